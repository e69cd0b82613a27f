"""Fully connected routers in the form in which they are executed: a group's weights stacked into one product."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routekit.routing.decision import SKIP
from routekit.routing.router import FullyConnectedRouters, RouterBank, pool


class StackedRouters(RouterBank):
    """The same decisions as those of a bank, for inference. Each survey is a pooling and two products.

    The first layer contains the normalisation of the inputs and the price in force. The second layer gives margins over
    the default, and `bias` contains its bias.

    Attributes:
        groups: The junctions that see the same features (`Units.groups`).
    """

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
            self.first.append(torch.cat(weights))
            self.constant.append(torch.cat(biases))
            self.second.append(torch.stack(margins))
            self.bias[self.columns(group)] += torch.cat(constants)
        self.requires_grad_(requires_grad=False)
        self._views: dict[range, tuple[Tensor, ...]] = {}

    def survey(self, junctions: range, features: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Score several junctions of one group, in the precision of the features: it is not for autocast.

        Args:
            junctions: The m junctions' places in the bank.
            features: `[B, C, H, W]`.
            state: It is passed on.

        Returns:
            Margins `[B, m * width]` over the default, with the bias, and the state.
        """
        return self._products(junctions, features) + self._weights(junctions)[-1], state

    def score(self, index: int, features: Tensor, state: Any, prices: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score one junction at the price in the first layer: the margins over the default, and 0 for the default."""
        del prices
        margins = self._products(range(index, index + 1), features)
        return torch.cat([margins, torch.zeros_like(margins[:, :1])], dim=1), state

    def _products(self, junctions: range, features: Tensor) -> Tensor:
        """Features `[B, C, H, W]` -> margins `[B, m * width]` without the bias."""
        first, bias, second, _ = self._weights(junctions)
        hidden = F.linear(pool(features), first, bias).relu_()
        hidden = hidden.view(-1, *second.shape[:2]).transpose(0, 1)
        return torch.bmm(hidden, second).transpose(0, 1).flatten(1)

    def _weights(self, junctions: range) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling():
            return self.weights(junctions)  # an exported program reads parameters, not views of them
        # Slicing in each survey would take as long as the products.
        if junctions not in self._views:
            self._views[junctions] = self.weights(junctions)
        return self._views[junctions]

    def weights(self, junctions: range) -> tuple[Tensor, ...]:
        """Return the weights of a survey of `junctions`, which lie in one group.

        Returns:
            The first weight `[m * hidden, C]` and its bias, the second weight `[m, hidden, width]`, and the bias
            `[m * width]`.
        """
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
    """Fold one router -> the first weight `[hidden, C]`, its bias, the margins' weight `[hidden, width]` and bias."""
    router: Any = bank.routers[index]
    normalize, first, _, second = router
    weight, bias = first.weight, first.bias
    if bank.price is not None:
        weight, bias = weight[:, :-1], bias + weight[:, -1] * bank.price
    if not isinstance(normalize, nn.Identity):
        scale = (normalize.running_var + normalize.eps).rsqrt()
        bias = bias - weight @ (normalize.running_mean * scale)
        weight = weight * scale
    margins = second.weight[:SKIP] - second.weight[SKIP]
    return weight, bias, margins.t(), second.bias[:SKIP] - second.bias[SKIP]
