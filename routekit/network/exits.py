"""Exits: classifiers along the way, each with a rule that decides whether its answer will do."""

import itertools
from dataclasses import fields, replace
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from routekit.backbones.unit import Backbone, evaluating
from routekit.errors import InputError
from routekit.macs import count
from routekit.network.branches import AUTO, narrow_for
from routekit.network.heads import OWN, Place, Size, heads, shallow
from routekit.registry import one_of
from routekit.routing.certainty import certainties, lead, negentropy
from routekit.routing.router import open_head

# A learned exit is told two numbers of its classifier's answer: the lead, brought to the size of the other, and how far
# from uniform it is. Networks are saved with routers for these, in this order.
MEASURES, LEAD = 2, 1 / 3

Share = Annotated[float, Field(gt=0, le=1)]
Head = Annotated[str, one_of("exit head", heads)]
Rule = Annotated[str, one_of("rule", certainties, also=["learned"])]

# The place before the first unit, where there may be several exits: "stem", "stem.1" and so on.
STEM = "stem"
# And after the last one.
END = "end"


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class ExitConfig:
    """How a network's exits are built.

    at:      after which units: "auto" (`count` of them, spread evenly over the dense cost), "stages" (after the last
             unit of each stage but the last one), "first" (after the first unit), "all" (after each but the last), or
             the units' names separated by commas; "stem" is before the first unit, "end" after the last, where an image
             that goes on is looked at again, mirrored
    head:    what the classifier is: "deep" (three 3x3 convolutions to `width` channels, two of them with strides, then
             pooling and a linear layer), "conv" (one convolution), "linear" (none), or "narrow" (the rest of the
             network, every unit with the share `keep` of its inner channels), or "own" at the end: the network's own
    depth:   the share of each stage's units that a "narrow" classifier has
    own:     whether a "narrow" classifier has weights of its own, which begin as the network's, or shares those
    rule:    what decides: "learned", a small router that is given the features and how sure the classifier is; or its
             "confidence" or "entropy" alone, as in BranchyNet (Teerapittayanon et al., 2016)
    hidden:  width of the router's hidden layer
    features: how large each standardised feature is to the router, where what it is told of the answer is of size 1:
             as large, they are learned by heart, and routers decide worse than by the answer alone
    """

    at: str = "auto"
    count: Annotated[int, Field(ge=1)] = 3
    head: Head = "deep"
    width: Annotated[int, Field(ge=1)] = 64
    keep: Share = 0.3
    depth: Share = 1.0
    own: bool = False
    rule: Rule = "learned"
    hidden: Annotated[int, Field(ge=1)] = 32
    features: Annotated[float, Field(ge=0)] = 0.1

    def __post_init__(self) -> None:
        """Raise ValueError for the network's own head elsewhere than at its end, another one there, or a router."""
        if (self.at == END) != (self.head == OWN) or (self.at == END and self.rule == "learned"):
            raise ValueError(
                f"at the end, and there alone, images are answered by the network's own head, by a rule: "
                f"at: {END}, head: {OWN}, rule: confidence"
            )


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class CascadeConfig(ExitConfig):
    """The exits that make a cascade of a network with itself: a narrow form of it answers first, if it is sure.

    keep:  the share of the inner channels of the narrow form, or of several, which are asked from the narrowest on;
           "auto" for one that fits the budget
    depth: the share of each stage's units that it has: few make it fast, where time goes by layers
    own:   with weights of their own, narrow forms are more accurate, and the network can stay as it is
    """

    keep: Share | tuple[Share, ...] | Literal["auto"] = AUTO  # type: ignore[assignment]
    at: str = STEM
    head: Head = "narrow"
    own: bool = True
    rule: Rule = "confidence"

    def __post_init__(self) -> None:
        """Raise ValueError for narrow forms out of order."""
        super().__post_init__()
        if self.keep == () or list(self.keeps) != sorted(set(self.keeps)):
            raise ValueError("the narrow forms of a cascade go from the narrowest to the widest: keep: [0.2, 0.5]")

    @property
    def keeps(self) -> tuple[float, ...]:
        """The share of each narrow form, as far as it is said."""
        if isinstance(self.keep, tuple):
            return self.keep
        return () if isinstance(self.keep, str) else (self.keep,)

    def exits(self, budget: float, view: Backbone | None = None) -> list[ExitConfig]:
        """The exit of each narrow form, all of them at one place; `budget` is a share of the dense cost.

        How deep a form of `view` can be is said by its stages' units: `depth` is rounded to them.
        """
        shared = {part.name: getattr(self, part.name) for part in fields(ExitConfig) if part.name != "keep"}
        units = [] if view is None else [unit for unit in view.units if unit.computes]
        deep = len(shallow(units, self.depth)) / len(units) if units else self.depth
        fitting = min(1.0, round(narrow_for(budget) / deep, 2))
        return [ExitConfig(keep=keep, **shared) for keep in self.keeps or (fitting,)]


class Shrunk(nn.BatchNorm1d):
    """Standardises features [B, C], and brings them to a `size`."""

    def __init__(self, features: int, size: float) -> None:
        super().__init__(features, affine=False)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, C] -> [B, C]."""
        return self.size * super().forward(x)


class Exit(nn.Module):
    """A classifier after the unit `after`, and what decides whether an image goes on past it.

    `offset` speaks for going on: the knob by which a budget is met without training. A new exit lets every image pass,
    so that a converted network begins as the original. The decision never sees a label: it knows the features and
    what the classifier made of them.
    """

    offset: Tensor
    price: Tensor | None

    def __init__(self, place: Place, config: ExitConfig, *, dial: bool = False) -> None:
        super().__init__()
        self.after, self.config = place.after, config
        self.head = heads[config.head](place, Size(config.width, config.keep, config.own, config.depth))
        self.certainty = None if config.rule == "learned" else certainties[config.rule]
        # No certainty is over 1: with an offset of 1 all go on.
        self.register_buffer("offset", torch.tensor(0.0 if self.certainty is None else 1.0))
        if self.certainty is None:
            self.summarize = place.summarize
            self.normalize: nn.Module = Shrunk(place.features, config.features)
            inputs = place.features + MEASURES + dial
            self.router = nn.Sequential(nn.Linear(inputs, config.hidden), nn.ReLU(), open_head(config.hidden, 1.0))

        # The logarithm of the price of computing, standardised, which the router of an adaptive network is told.
        self.register_buffer("price", torch.tensor(0.0) if dial and self.certainty is None else None)

    def forward(
        self, x: Tensor, prices: Tensor | None = None, kept: dict[int, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features [B, C, H, W] -> the classifier's logits [B, classes], float32, and scores [B, 2] over (go, stop).

        `prices` [B] are other prices of computing than the one that is set, for an adaptive network. What leaves the
        stages inside a classifier that has any is put into `kept`.
        """
        logits = (self.head(x) if kept is None or self.config.head != "narrow" else self.head(x, kept)).float()
        with torch.autocast(x.device.type, enabled=False):
            probabilities = logits.detach().softmax(dim=1)
            if self.certainty is not None:
                score = -self.certainty(probabilities) + self.offset
                return logits, torch.stack([score, torch.zeros_like(score)], dim=1)
            known = [LEAD * lead(logits.detach()), negentropy(probabilities)]
            if self.price is not None:
                known.append(self.price.expand(x.shape[0]) if prices is None else prices)
            inputs = [self.normalize(self.summarize(x.detach().float())), torch.stack(known, dim=1)]
            scores = self.router(torch.cat(inputs, dim=1))
            return logits, torch.cat([scores[:, :1] + self.offset, scores[:, 1:]], dim=1)

    def says(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] -> [B, classes + 2]: the logits, and the scores."""
        return torch.cat(self(x), dim=1)

    def told(self, x: Tensor) -> Tensor:
        """Features [B, C, H, W] -> [B, classes + 1]: the logits, and by how much each image prefers to go on."""
        logits, scores = self(x)
        return torch.cat([logits, scores[:, :1] - scores[:, 1:]], dim=1)

    def decide_by(self, rule: str) -> None:
        """Decide by a rule from now on, "confidence" or "entropy"; all images go on until its threshold is set."""
        if self.certainty is None:
            del self.router, self.normalize
        self.certainty, self.config, self.price = certainties[rule], replace(self.config, rule=rule), None
        self.offset.fill_(1.0)

    def fold(self) -> None:
        """Fold the normalisation of what the router reads into its first layer: the same function in eval mode."""
        if self.certainty is None and isinstance(self.normalize, Shrunk):
            first, norm = self.router[0], self.normalize
            assert isinstance(first, nn.Linear)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            channels = norm.num_features
            with torch.no_grad():
                first.weight[:, :channels] *= norm.size * (norm.running_var + norm.eps).rsqrt()
                first.bias.sub_(first.weight[:, :channels] @ norm.running_mean)
            self.normalize = nn.Identity()

    def deciding_parameters(self) -> list[nn.Parameter]:
        """The parameters of what decides."""
        return [] if self.certainty is not None else list(self.router.parameters())

    @property
    def each(self) -> list["Exit"]:
        """The exits that this one consists of, each with a classifier: itself."""
        return [self]

    @property
    def ends(self) -> bool:
        """Whether it lies after the last unit."""
        return self.config.head == OWN


@torch.no_grad()
def places(view: Backbone, config: ExitConfig, example: Tensor) -> list[str]:
    """After which units of `view` the exits lie, in order; `example` is one image [1, C, H, W].

    Raises InputError for a name that is no unit's, and for the last unit, after which the network answers anyway.
    """
    names = [unit.name for unit in view.units if unit.computes]
    if config.at == "first":
        return names[:1]
    if config.at == END:
        return names[-1:]
    if config.at == "all":
        return names[:-1]
    if config.at == "stages":
        return [a.name for a, b in itertools.pairwise(view.units) if a.stage != b.stage]
    if config.at == "auto":
        shares = [(place + 1) / (config.count + 1) for place in range(config.count)]
        spent = _spent(view, example)
        nearest = {min(names[:-1], key=lambda name: abs(spent[name] - share * spent[names[-1]])) for share in shares}
        return sorted(nearest, key=names.index)
    wanted = [name.strip() for name in config.at.split(",")]
    wanted = [STEM if name.partition(".")[0] == STEM and name not in names else name for name in wanted]
    known = [STEM, *names[:-1]]
    for name in wanted:
        if name not in known:
            raise InputError(f"no exit can lie after {name!r}: known: auto, stages, first, all, {', '.join(known)}")
    return sorted(set(wanted), key=known.index)


def _spent(view: Backbone, x: Tensor) -> dict[str, float]:
    """What has been computed after each unit, MACs."""
    with evaluating(view.model):
        total = float(count(view.stem, (x,), view.model).flops)
        x = view.stem(x)
        spent = {}
        for unit in view.units:
            total += count(unit.run, (x,), unit.block).flops
            spent[unit.name] = total
            x = unit.run(x)
    return spent
