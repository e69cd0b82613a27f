"""Fully connected routers in the form in which they are executed: a group's weights stacked into one product."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routekit.routing.decision import SKIP
from routekit.routing.router import FullyConnectedRouters, RouterBank, pool


class StackedRouters(RouterBank):
    """The same decisions as `bank`, for inference; each survey is a pooling and two products.

    The normalisation of the inputs and the price in force are folded into the first layer, the default's score into the
    others' margins, and the second layer's bias into `bias`.

    `groups` are the junctions that see the same features (`Units.groups`).
    """

    separate = False
    surveys = True

    @torch.no_grad()
    def __init__(self, bank: FullyConnectedRouters, groups: list[range]) -> None:
        super().__init__(len(bank.routers), width=bank.width)
        self.bias = bank.bias.clone()
        self.groups = groups
        self.first = nn.ParameterList()
        self.constant = nn.ParameterList()
        self.second = nn.ParameterList()
        for group in groups:
            weights, biases, margins, constants = zip(*(_folded(bank, index) for index in group), strict=True)
            self.first.append(_frozen(torch.cat(weights)))
            self.constant.append(_frozen(torch.cat(biases)))
            self.second.append(_frozen(torch.stack(margins)))
            self.bias[self.columns(group)] += torch.cat(constants)
        self._views: dict[range, tuple[Tensor, ...]] = {}

    def survey(self, junctions: range, features: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Ask all of `junctions`, which lie in one group: [B, C, H, W] -> margins [B, m * width].

        In the precision of the features, so not for autocast.
        """
        return self._products(junctions, features) + self._weights(junctions)[-1], state

    def score(self, index: int, features: Tensor, state: Any, prices: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score junction `index`: the margins over the default, nothing for that; at the price that is folded in."""
        del prices
        margins = self._products(range(index, index + 1), features)
        return torch.cat([margins, torch.zeros_like(margins[:, :1])], dim=1), state

    def _products(self, junctions: range, features: Tensor) -> Tensor:
        """Features [B, C, H, W] -> margins [B, m * width] without the bias."""
        first, bias, second, _ = self._weights(junctions)
        hidden = F.linear(pool(features), first, bias).relu_()
        hidden = hidden.view(-1, *second.shape[:2]).transpose(0, 1)
        return torch.bmm(hidden, second).transpose(0, 1).flatten(1)

    def _weights(self, junctions: range) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling():
            return self.weights(junctions)  # a program wants parameters, not views of them
        # Slicing anew in each survey would cost as much as the products.
        if junctions not in self._views:
            self._views[junctions] = self.weights(junctions)
        return self._views[junctions]

    def weights(self, junctions: range) -> tuple[Tensor, ...]:
        """Of a survey: first weight [m * hidden, C], its bias, second weight [m, hidden, width], bias [m * width]."""
        place, group = next((i, group) for i, group in enumerate(self.groups) if junctions.start in group)
        start, stop = junctions.start - group.start, junctions.stop - group.start
        second = self.second[place][start:stop]
        hidden = second.shape[1]
        rows = slice(start * hidden, stop * hidden)
        return self.first[place][rows], self.constant[place][rows], second, self.bias[self.columns(junctions)]

    def _apply(self, fn: Any, recurse: bool = True) -> "StackedRouters":
        self._views = {}  # the tensors move to another device or dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def _folded(bank: FullyConnectedRouters, index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fold one router: first weight [hidden, C], its bias, and the margins' weight [hidden, width] and constants."""
    router: Any = bank.routers[index]
    normalize, first, _, second = router
    weight, bias = first.weight, first.bias
    if bank.price is not None:
        weight, bias = weight[:, :-1], bias + weight[:, -1] * bank.price
    if isinstance(normalize, nn.BatchNorm1d):
        assert normalize.running_mean is not None
        assert normalize.running_var is not None
        scale = (normalize.running_var + normalize.eps).rsqrt()
        bias = bias - weight @ (normalize.running_mean * scale)
        weight = weight * scale
    margins = second.weight[:SKIP] - second.weight[SKIP]
    return weight, bias, margins.t(), second.bias[:SKIP] - second.bias[SKIP]


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
