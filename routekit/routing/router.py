"""Routers: features `[B, C, H, W]` at a unit's junction -> logits `[B, K]` over its sinks: (run, ..., skip).

The routers of a pass form one bank, because some share weights or carry a state from unit to unit. A new bank runs
every unit of every image, so that a converted network begins as the original.
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
    """What a router is built for.

    Attributes:
        channels: The channels of the features that it reads.
        stage: The stage of its unit.
        sinks: The number of sinks.
        image: The channels of the image, for routers that see it.
    """

    channels: int
    stage: int
    sinks: int = 2
    image: int = 3


banks: Registry["type[RouterBank]"] = Registry("router")


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class RouterConfig:
    """How a bank of learned routers is built.

    Attributes:
        kind: "fc" (fully connected, as in Fig. 2b of Wang et al.), "cnn" or "rnn" (SkipNet), or "policy" (BlockDrop).
        hidden: The width of the hidden layer.
        normalize: Standardise each pooled channel over the batch first. Pooled features after an activation have a
            large constant part, which hides the differences between images.
        open_logit: The initial margin of running a unit in full over its other sinks.
        detach: Keep the routers' gradient out of the features. The backbone then learns its own task only, and a step
            is faster, because the gradient of the features is a large tensor.
    """

    kind: Annotated[str, one_of("router", banks)] = "fc"
    hidden: Annotated[int, Field(ge=1, le=4096)] = 16
    normalize: bool = True
    open_logit: float = 2.0
    detach: bool = True


class RouterBank(nn.Module):
    """The routers of a pass. Subclasses define `score`, or `policy` if they see the image (`sees_image`).

    All junctions have one more sink than `width`. A router of a priced bank also gets the price of computing as a
    feature, its standardised logarithm.

    Attributes:
        bias: `[n * width]`, added to the scores of all sinks but the default, junction by junction. It meets a budget
            without training.
        price: The price in force as a feature. None if the bank is not priced.
        config: How the routers were built. None if they do not learn.
        width: The number of sinks of each junction beside the default.
    """

    bias: Tensor
    price: Tensor | None
    # Whether it costs less to score several junctions together than one by one.
    surveys = False
    # Whether the junctions are forks: no unit lies behind both sinks of one.
    forks = False
    # Whether all routers score the image, before the first unit: a policy network. Whether positions decide, too.
    sees_image = by_position = False
    # Whether margins say what an image does at another bias.
    margins_tell = True

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
        """Return the columns of `junctions` in `bias`."""
        return slice(junctions.start * self.width, junctions.stop * self.width)

    def begin(self, images: Tensor) -> tuple[Tensor, ...] | None:
        """Images `[B, C, H, W]` -> the state before the first junction. None if the bank does not see images."""
        if not self.sees_image:
            return None
        with torch.autocast(images.device.type, enabled=False):
            return (self.policy(images.to(self.bias.dtype)),)

    def policy(self, images: Tensor) -> Tensor:
        """Images `[B, C, H, W]` -> logits `[B, n, K]` of all junctions, if `sees_image`."""
        raise NotImplementedError

    def read(self, features: Tensor) -> Tensor:
        """Features `[B, C, H, W]` -> what all routers read of them."""
        return features

    def score(self, index: int, features: Tensor, state: Any, prices: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score one junction.

        Args:
            index: The junction's place in the bank.
            features: What `read` gives.
            state: The state after the junction before it, or None.
            prices: `[B]`, other prices of computing than the one in force, as features.

        Returns:
            Logits `[B, K]`, and the state for the next junction.
        """
        del features, prices
        return state[0][:, index], state

    def positions(self, index: int, features: Tensor) -> tuple[Tensor, float] | None:
        """Junction, features `[B, C, H, W]` -> `positions` and `halo` as in `Decision`, if each position decides."""

    def with_price(self, summary: Tensor, prices: Tensor | None) -> Tensor:
        """Features `[B, S]` -> `[B, S + 1]`, with the price in force or `prices` `[B]`, if the bank is priced."""
        if self.price is None:
            return summary
        prices = self.price.expand(summary.shape[0]) if prices is None else prices
        return torch.cat([summary, prices.to(summary).unsqueeze(1)], dim=1)

    def forget(self, index: int) -> bool:
        """Remove junction `index`, whose unit is gone. Return False if its router cannot be removed alone."""
        if not self.remove(index):
            return False
        own = self.columns(range(index, index + 1))
        self.bias = torch.cat([self.bias[: own.start], self.bias[own.stop :]])
        return True

    def remove(self, index: int) -> bool:  # noqa: ARG002
        """Remove the router of junction `index`. Return False if other junctions need it, as with a shared state."""
        return False

    def forward(
        self, index: int, features: Tensor, state: Any = None, prices: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Features `[B, C, H, W]` -> as `score`, in the routers' own precision: bf16 would change decisions."""
        features = features.detach() if self.config is not None and self.config.detach else features
        with torch.autocast(features.device.type, enabled=False):
            return self.score(index, self.read(features.to(self.bias.dtype)), state, prices)

    def survey(self, junctions: range, features: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Score several junctions from the same features.

        A skipped unit does not change the features, so one survey finds the next unit that runs.

        Args:
            junctions: The m junctions' places in the bank.
            features: `[B, C, H, W]`.
            state: The state after the junction before them, or None.

        Returns:
            Margins `[B, m * width]` over the default, with the bias, and the state for the next junction.
        """
        scores = []
        with torch.autocast(features.device.type, enabled=False):
            features = self.read(features.to(self.bias.dtype))
            for index in junctions:
                logits, state = self.score(index, features, state)
                scores.append(logits)
            logits = torch.stack(scores, dim=1)
        margins = logits[..., :SKIP] - logits[..., SKIP:]
        return margins.flatten(1) + self.bias[self.columns(junctions)], state


def pool(features: Tensor) -> Tensor:
    """Features `[B, C, H, W]` -> their means `[B, C]`. fvcore counts one FLOP for each element."""
    return F.adaptive_avg_pool2d(features, 1).flatten(1)


def open_head(width: int, margin: float, sinks: int = 2) -> nn.Linear:
    """Build the last layer of a router. At first its logits are constant, the first one ahead by `margin`."""
    head = nn.Linear(width, sinks)
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, -margin / 2)
    with torch.no_grad():
        head.bias[RUN] = margin / 2
    return head


def _width(shapes: list[JunctionShape]) -> int:
    """Return the number of columns of each junction. All junctions have the same number of sinks."""
    (sinks,) = {shape.sinks for shape in shapes} or {2}
    return sinks - 1


@banks.register("fc")
class FullyConnectedRouters(RouterBank):
    """An average pool and two linear layers for each unit (Fig. 2b of Wang et al.)."""

    surveys = True
    read = staticmethod(pool)

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
        """Score one junction; there is no state."""
        router: Any = self.routers[index]
        return router[1:](self.with_price(router[0](features), prices)), state

    def remove(self, index: int) -> bool:
        """Remove the junction's router."""
        del self.routers[index]
        return True


@banks.register("cnn")
class ConvolutionalRouters(RouterBank):
    """A strided 3x3 convolution, an average pool and a linear layer for each unit (SkipNet, Wang et al., 2018).

    A router costs about 12.5% of its unit (Table 5 of the DRN paper). It is here for that comparison.
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
        """Score one junction; there is no state."""
        return self.heads[index](self.with_price(pool(self.convs[index](features)), prices)), state

    def remove(self, index: int) -> bool:
        """Remove the junction's router."""
        del self.convs[index], self.heads[index]
        return True


@banks.register("rnn")
class RecurrentRouters(RouterBank):
    """One LSTM cell for all units, which reads pooled features (SkipNet). Ours: a projection a stage.

    The state is that of the cell: (h, c), `[B, hidden]` each.
    """

    read = staticmethod(pool)

    def __init__(self, shapes: list[JunctionShape], config: RouterConfig, *, priced: bool = False) -> None:
        super().__init__(len(shapes), config, width=_width(shapes), priced=priced)
        # The first unit of a stage reads the channels of the stage before, so projections go by (stage, channels).
        self.keys = [f"{shape.stage}_{shape.channels}" for shape in shapes]
        self.projections = nn.ModuleDict(
            {
                key: nn.Sequential(
                    nn.BatchNorm1d(shape.channels, affine=False) if config.normalize else nn.Identity(),
                    nn.Linear(shape.channels, config.hidden),
                )
                for key, shape in zip(self.keys, shapes, strict=True)
            }
        )
        self.cell = nn.LSTMCell(config.hidden + priced, config.hidden)
        self.head = open_head(config.hidden, config.open_logit, self.width + 1)

    def score(self, index: int, features: Tensor, state: Any, prices: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score one junction."""
        h, c = self.cell(self.with_price(self.projections[self.keys[index]](features), prices), state)
        return self.head(h), (h, c)


def build_bank(shapes: list[JunctionShape], config: RouterConfig, *, priced: bool = False) -> RouterBank:
    """Build the bank that `config.kind` names, with a router for each shape, and with a price if `priced`."""
    return banks[config.kind](shapes, config, priced=priced)  # type: ignore[arg-type]
