"""Deciders: is the answer so far good enough? By a rule on the answer, or by a router that learns."""

from typing import Annotated

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from routekit.network.heads import Place, xavier
from routekit.registry import one_of
from routekit.routing.certainty import LearnedCertainty, certainties, lead, negentropy
from routekit.routing.decision import GO, STOP
from routekit.routing.router import open_head

# A router gets two numbers of the answer: the lead, brought to the size of the other, and how far from uniform it is.
# Networks are saved with routers for these, in this order.
MEASURES, LEAD = 2, 1 / 3

# Rules that are no function of the answer alone: a router of an exit, and the rule of the "I don't know" cascade, which
# is fitted to images (`evaluation/fit_deferral.py`).
LEARNED, IDK = "learned", "idk"

Rule = Annotated[str, one_of("rule", certainties, also=[LEARNED, IDK])]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class DeciderConfig:
    """What decides whether to stop.

    Attributes:
        rule: "learned", a small router that gets the features and how sure the classifier is; "confidence" or
            "entropy" (as in BranchyNet, Teerapittayanon et al., 2016) of the answer alone; or "idk", a logistic
            regression on the answer, as in "I don't know" cascades (Wang et al., 2018).
        hidden: The width of the router's hidden layers.
        layers: How many hidden layers there are.
        normalize: Whether hidden layers are batch-normalised before their rectification.
        answer: Whether the router gets how sure the classifier is, beside the features.
        features: The size of each standardised feature, where what the router gets of the answer has size 1. With
            features of size 1 routers overfit, and decide worse than by the answer alone. None: as they are, as in
            Fig. 3 of McGill and Perona.
        detach: Keep the router's gradient out of the features: the network learns to answer only. Else it also learns
            what helps to decide, as in that paper (section 4.1). What a router gets of the answer teaches nobody.
    """

    rule: Rule = LEARNED
    hidden: Annotated[int, Field(ge=1, le=4096)] = 32
    layers: Annotated[int, Field(ge=1, le=4)] = 1
    normalize: bool = False
    answer: bool = True
    features: Annotated[float, Field(ge=0)] | None = 0.1
    detach: bool = True


class ScaledBatchNorm(nn.BatchNorm1d):
    """Standardises features `[B, C]`, and brings them to a `size`."""

    def __init__(self, features: int, size: float) -> None:
        super().__init__(features, affine=False)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Features `[B, C]` -> `[B, C]`."""
        return self.size * super().forward(x)


class Decider(nn.Module):
    """Decides whether an image goes on. It gets the answer so far, and perhaps the features, but never a label.

    A new decider lets every image pass, so that a converted network begins as the original.

    Attributes:
        bias: Added to the score of going on. A budget is met by it without training. Of a rule, it is the threshold:
            an image goes on if the certainty of its answer is at most this.
        price: The price of computing in force, as a feature of the router. None if it gets none.
    """

    bias: Tensor
    price: Tensor | None

    def __init__(self, config: DeciderConfig, *, priced: bool = False) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bias", torch.tensor(0.0))
        self.register_buffer("price", torch.tensor(0.0) if priced else None)

    def forward(self, x: Tensor, logits: Tensor, prices: Tensor | None = None) -> Tensor:
        """Score whether to go on.

        Args:
            x: Features `[B, C, H, W]`.
            logits: The answer so far, `[B, classes]`.
            prices: `[B]`, other prices of computing than the one in force, as features.

        Returns:
            Scores `[B, 2]` over (go, stop).
        """
        raise NotImplementedError

    def margin(self, x: Tensor, logits: Tensor) -> Tensor:
        """Score how much each image prefers to go on.

        Args:
            x: Features `[B, C, H, W]`.
            logits: The answer so far, `[B, classes]`.

        Returns:
            `[B]`, the score of going on minus that of stopping.
        """
        scores: Tensor = self(x, logits)
        return scores[:, GO] - scores[:, STOP]

    @property
    def learns(self) -> bool:
        """Whether training teaches it."""
        return False

    @property
    def each(self) -> list["Decider"]:
        """The deciders that it consists of: itself."""
        return [self]

    def fold(self) -> None:
        """Fold the normalisation of what a router reads into its first layer: the same function in eval mode."""


class RuleDecider(Decider):
    """Stops where the answer is certain enough, by a function of its probabilities."""

    def __init__(self, config: DeciderConfig) -> None:
        super().__init__(config)
        self.certainty = LearnedCertainty() if config.rule == IDK else certainties[config.rule]
        # No certainty is over 1: with this threshold all go on.
        self.bias.fill_(1.0)

    def forward(self, x: Tensor, logits: Tensor, prices: Tensor | None = None) -> Tensor:
        """Score by the certainty; features and prices are not read."""
        del x, prices
        with torch.autocast(logits.device.type, enabled=False):
            score = -self.certainty(logits.detach().float().softmax(dim=1)) + self.bias
        return torch.stack([score, torch.zeros_like(score)], dim=1)


class LearnedDecider(Decider):
    """A router that gets a summary of the features, and how sure the answer is.

    In the beginning all scores are zero (`build_router`). So all images pass, by a tie, and at any temperature the
    training policy explores both ways.
    """

    def __init__(self, place: Place, config: DeciderConfig, *, priced: bool = False) -> None:
        super().__init__(config, priced=priced)
        self.summarize = place.summarize
        self.normalize: nn.Module = nn.Identity()
        if config.features is not None:
            self.normalize = ScaledBatchNorm(place.features, config.features)
        inputs = place.features + MEASURES * config.answer + priced
        self.router = nn.Sequential(*build_router(inputs, config.hidden, config.layers, normalize=config.normalize))

    def forward(self, x: Tensor, logits: Tensor, prices: Tensor | None = None) -> Tensor:
        """Score by the router."""
        with torch.autocast(x.device.type, enabled=False):
            return self.score(self.summary(x), logits, prices)

    def summary(self, x: Tensor) -> Tensor:
        """Features `[B, C, H, W]` -> what the router gets of them, `[B, S]`."""
        x = x.detach() if self.config.detach else x
        summary: Tensor = self.normalize(self.summarize(x.to(self.bias.dtype)))
        return summary

    def score(self, summary: Tensor, logits: Tensor, prices: Tensor | None = None) -> Tensor:
        """Score by what the router gets.

        Args:
            summary: Of the features, `[B, S]` (`summary`).
            logits: The answer so far, `[B, classes]`.
            prices: `[B]`, other prices of computing than the one in force, as features.

        Returns:
            Scores `[B, 2]`.
        """
        inputs = [summary]
        if self.config.answer:
            logits = logits.detach().to(self.bias.dtype)
            inputs += [LEAD * lead(logits).unsqueeze(1), negentropy(logits.softmax(dim=1)).unsqueeze(1)]
        if self.price is not None:
            price = self.price.expand(len(summary)) if prices is None else prices
            inputs.append(price.unsqueeze(1))
        scores = self.router(torch.cat(inputs, dim=1))
        return torch.cat([scores[:, :1] + self.bias, scores[:, 1:]], dim=1)

    @property
    def learns(self) -> bool:
        """Whether training teaches it."""
        return True

    def fold(self) -> None:
        """Fold the normalisation into the router's first layer."""
        if isinstance(self.normalize, ScaledBatchNorm):
            first, norm = self.router[0], self.normalize
            assert isinstance(first, nn.Linear)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            channels = norm.num_features
            with torch.no_grad():
                first.weight[:, :channels] *= norm.size * (norm.running_var + norm.eps).rsqrt()
                first.bias.sub_(first.weight[:, :channels] @ norm.running_mean)
            self.normalize = nn.Identity()


def build_router(inputs: int, hidden: int, layers: int, *, normalize: bool, sinks: int = 2) -> list[nn.Module]:
    """Build what scores the sinks of a junction.

    Hidden layers begin by Xavier's method, the last layer and all biases as zero (section 4.7 of McGill and Perona).

    Args:
        inputs: The number of features that it reads.
        hidden: The width of its hidden layers.
        layers: How many there are.
        normalize: Whether they are batch-normalised before their rectification.
        sinks: The number of sinks.

    Returns:
        Its layers, in order.
    """
    made: list[nn.Module] = []
    for _ in range(layers):
        made.append(xavier(nn.Linear(inputs, hidden)))
        if normalize:
            made.append(nn.BatchNorm1d(hidden, eps=1e-6))
        made.append(nn.ReLU())
        inputs = hidden
    return [*made, open_head(inputs, 0.0, sinks)]


def build_decider(place: Place, config: DeciderConfig, *, priced: bool = False) -> Decider:
    """Build what `config.rule` names.

    Args:
        place: Where in the network it decides.
        config: Its settings.
        priced: Whether it gets the price of computing as a feature.

    Returns:
        The decider.
    """
    return LearnedDecider(place, config, priced=priced) if config.rule == LEARNED else RuleDecider(config)
