"""Routers: features [B, C, H, W] at a unit's junction -> logits [B, K] over its sinks: (run, ..., skip).

A network's routers form one bank, because some share weights or carry a state from unit to unit. A bank starts
fully open: it runs every unit of every image, so that a converted network begins as the original.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from routekit.registry import Registry, one_of
from routekit.routing.decision import RUN, SKIP


@dataclass(frozen=True)
class JunctionShape:
    """What a router is built from: the features' `channels` and the `stage` of its unit."""

    channels: int
    stage: int
    sinks: int = 2


banks: Registry["type[RouterBank]"] = Registry("router")


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class RouterConfig:
    """How a bank of learned routers is built.

    kind:        "fc" (fully connected, as in Fig. 2b of Wang et al.), "cnn" or "rnn"
    hidden:      width of the hidden layer
    normalize:   standardise each pooled channel over the batch first: pooled post-activation features are dominated
                 by a large constant, which hides what differs between images
    open_logit:  the initial margin of running a unit in full over its other sinks
    detach:      keep the routers' gradient out of the features: they learn to read what the backbone computes for its
                 own task, and a step costs less (the features' gradient is the largest tensor that they would touch)
    """

    kind: Annotated[str, one_of("router", banks)] = "fc"
    hidden: Annotated[int, Field(ge=1)] = 16
    normalize: bool = True
    open_logit: float = 2.0
    detach: bool = True


class RouterBank(nn.Module):
    """The routers of a pass. Subclasses define `score`, or `policy` where they are asked about the image.

    All junctions have one more sink than `width`. A bank may be priced: then each router also gets the price of
    computing as a feature, its standardised logarithm.

    Attributes:
        bias: `[n * width]`, added to the scores of all sinks but the default, junction by junction. A budget is met by
            it without training.
        price: The price in force as a feature. None if the bank is not priced.
        config: How the routers were built, if they learn.
    """

    bias: Tensor
    price: Tensor | None
    # Whether a junction's router can be removed alone.
    separate = True
    # Whether several junctions are asked about the same features at less cost than one by one.
    surveys = False
    # Whether the junctions are forks: what is behind one sink is never met behind the other.
    forks = False
    # Whether all routers are asked at once about the image, before the first unit: a policy network.
    sees_image = False

    def __init__(
        self, junctions: int, config: RouterConfig | None = None, *, width: int = 1, priced: bool = False
    ) -> None:
        super().__init__()
        self.config, self.width = config, width
        self.register_buffer("bias", torch.zeros(junctions * width))
        self.register_buffer("price", torch.tensor(0.0) if priced else None)

    def __len__(self) -> int:
        return len(self.bias) // self.width

    def columns(self, junctions: range) -> slice:
        """Where the columns of `junctions` are in the bank, and in `bias`."""
        return slice(junctions.start * self.width, junctions.stop * self.width)

    def begin(self, images: Tensor) -> tuple[Tensor, ...] | None:
        """Begin a pass over `images` `[B, C, H, W]`: return the state before the first junction."""
        if not self.sees_image:
            return None
        with torch.autocast(images.device.type, enabled=False):
            return (self.policy(images.to(self.bias.dtype)),)

    def policy(self, images: Tensor) -> Tensor:
        """Score all junctions about images `[B, C, H, W]` -> logits `[B, n, K]`, where `sees_image`."""
        raise NotImplementedError

    def score(self, index: int, features: Tensor, state: Any, prices: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score one junction.

        Args:
            index: The junction's place in the bank.
            features: `[B, C, H, W]`.
            state: What the junctions before it left, or None.
            prices: `[B]`, other prices of computing than the one in force, as features.

        Returns:
            Logits `[B, K]`, and the state for the next junction.
        """
        del features, prices
        return state[0][:, index], state

    def with_price(self, summary: Tensor, prices: Tensor | None) -> Tensor:
        """Add the price to the features `[B, S]` of each image, if the bank is priced."""
        if self.price is None:
            return summary
        prices = self.price.expand(summary.shape[0]) if prices is None else prices
        return torch.cat([summary, prices.to(summary).unsqueeze(1)], dim=1)

    def forget(self, index: int) -> bool:
        """Remove junction `index`, whose unit is gone; False if later junctions need its router (a shared state)."""
        if not self.separate:
            return False
        own = self.columns(range(index, index + 1))
        self.bias = torch.cat([self.bias[: own.start], self.bias[own.stop :]])
        self.remove(index)
        return True

    def remove(self, index: int) -> None:
        """Remove the router of junction `index`, if the bank's routers are separate."""
        raise NotImplementedError

    def forward(
        self, index: int, features: Tensor, state: Any = None, prices: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """`score`, in the routers' own precision whatever the autocast: no decision hangs on bf16."""
        features = features.detach() if self.config is not None and self.config.detach else features
        with torch.autocast(features.device.type, enabled=False):
            return self.score(index, features.to(self.bias.dtype), state, prices)

    def survey(self, junctions: range, features: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Ask all of `junctions` about the same features: [B, C, H, W] -> margins [B, m * width] over the default.

        A skipped unit leaves the features as they are, so one survey finds the next unit that runs.
        """
        with torch.autocast(features.device.type, enabled=False):
            logits, state = self.score_all(junctions, features.to(self.bias.dtype), state)
        margins = logits[..., :SKIP] - logits[..., SKIP:]
        return margins.flatten(1) + self.bias[self.columns(junctions)], state

    def score_all(self, junctions: range, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Score several junctions from the same features -> logits [B, m, K]; here one by one."""
        logits = []
        for index in junctions:
            scores, state = self.score(index, features, state)
            logits.append(scores)
        return torch.stack(logits, dim=1), state


def pool(features: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C]. fvcore charges one FLOP an element for it, so the pooling is part of the cost."""
    return F.adaptive_avg_pool2d(features, 1).flatten(1)


def open_head(width: int, margin: float, sinks: int = 2) -> nn.Linear:
    """Build the last layer of a router: constant logits at first, the first sink ahead of the others by `margin`."""
    head = nn.Linear(width, sinks)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, -margin / 2)
    with torch.no_grad():
        head.bias[RUN] = margin / 2
    return head


def _width(shapes: list[JunctionShape]) -> int:
    """How many columns each junction has; all have as many sinks."""
    (sinks,) = {shape.sinks for shape in shapes} or {2}
    return sinks - 1


@banks.register("fc")
class FullyConnectedRouters(RouterBank):
    """Average pool and two linear layers, a pair for each unit (Fig. 2b of Wang et al.)."""

    surveys = True

    def __init__(self, shapes: list[JunctionShape], config: RouterConfig, *, priced: bool = False) -> None:
        super().__init__(len(shapes), config, width=_width(shapes), priced=priced)
        self.routers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(shape.channels, affine=False) if config.normalize else nn.Identity(),
                nn.Linear(shape.channels + priced, config.hidden),
                nn.ReLU(),
                open_head(config.hidden, config.open_logit, shape.sinks),
            )
            for shape in shapes
        )

    def score(self, index: int, features: Tensor, state: Any, prices: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score junction `index`; there is no state."""
        return self._ask(index, pool(features), prices), state

    def score_all(self, junctions: range, features: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Pool once, for all of `junctions`."""
        pooled = pool(features)
        return torch.stack([self._ask(index, pooled) for index in junctions], dim=1), state

    def _ask(self, index: int, pooled: Tensor, prices: Tensor | None = None) -> Tensor:
        router: Any = self.routers[index]
        logits: Tensor = router[1:](self.with_price(router[0](pooled), prices))
        return logits

    def remove(self, index: int) -> None:
        """Remove the junction's router."""
        del self.routers[index]


@banks.register("cnn")
class ConvolutionalRouters(RouterBank):
    """A strided 3x3 convolution, average pool and a linear layer for each unit (SkipNet, Wang et al., 2018).

    It costs about 12.5% of its unit (Table 5 of the DRN paper): here for that comparison.
    """

    def __init__(self, shapes: list[JunctionShape], config: RouterConfig, *, priced: bool = False) -> None:
        super().__init__(len(shapes), config, width=_width(shapes), priced=priced)
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(shape.channels, shape.channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(shape.channels),
                nn.ReLU(),
            )
            for shape in shapes
        )
        self.heads = nn.ModuleList(
            open_head(shape.channels + priced, config.open_logit, shape.sinks) for shape in shapes
        )

    def score(self, index: int, features: Tensor, state: Any, prices: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score junction `index`; there is no state."""
        return self.heads[index](self.with_price(pool(self.convs[index](features)), prices)), state

    def remove(self, index: int) -> None:
        """Remove the junction's router."""
        del self.convs[index], self.heads[index]


@banks.register("rnn")
class RecurrentRouters(RouterBank):
    """One LSTM cell shared by all units, fed with pooled features projected per stage (SkipNet).

    The cell's state (h, c), [B, hidden] each, carries what the earlier junctions saw.
    """

    separate = False

    def __init__(self, shapes: list[JunctionShape], config: RouterConfig, *, priced: bool = False) -> None:
        super().__init__(len(shapes), config, width=_width(shapes), priced=priced)
        # A stage's first unit still sees the previous stage's channels, so projections go by (stage, channels).
        keys = [f"{shape.stage}_{shape.channels}" for shape in shapes]
        self.keys = keys
        self.projections = nn.ModuleDict(
            {
                key: nn.Sequential(
                    nn.BatchNorm1d(shape.channels, affine=False) if config.normalize else nn.Identity(),
                    nn.Linear(shape.channels, config.hidden),
                )
                for key, shape in zip(keys, shapes, strict=True)
            }
        )
        self.cell = nn.LSTMCell(config.hidden + priced, config.hidden)
        self.head = open_head(config.hidden, config.open_logit, self.width + 1)

    def score(self, index: int, features: Tensor, state: Any, prices: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score junction `index` from its features and the state (h, c), or None before the first junction."""
        h, c = self.cell(self.with_price(self.projections[self.keys[index]](pool(features)), prices), state)
        return self.head(h), (h, c)


def build_bank(shapes: list[JunctionShape], config: RouterConfig, *, priced: bool = False) -> RouterBank:
    """Build the bank of routers that `config.kind` names, with the price as a feature if `priced`."""
    return banks[config.kind](shapes, config, priced=priced)  # type: ignore[arg-type]
