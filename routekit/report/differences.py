"""How much better one method is than another: paired, seed by seed and image by image."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from routekit.evaluation.answers import unpack
from routekit.report.comparison import Measured


@dataclass(frozen=True)
class Difference:
    """How much more accurate `method` is than `other` at a budget, over the seeds that both have, in points.

    `error` is the standard error of `mean`: over test images, paired, and, with more than one seed, over seeds as well
    (the variances add up); None if neither is known.
    """

    method: str
    other: str
    budget: str
    mean: float
    error: float | None
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether it is at least two standard errors."""
        return self.error is not None and abs(self.mean) >= 2 * self.error


def differences(cells: Sequence[Measured], method: str) -> list[Difference]:
    """`method` against each other method, at each budget. The dense network stands at every budget."""
    own = {(cell.budget, cell.seed): cell for cell in cells if cell.method == method}
    found = []
    for other in sorted({cell.method for cell in cells} - {method}):
        theirs = {(cell.budget, cell.seed): cell for cell in cells if cell.method == other}
        for budget in sorted({budget for budget, _ in own if budget is not None}):
            pairs = [
                (cell, theirs[key])
                for (at, seed), cell in own.items()
                for key in [(at, seed) if (at, seed) in theirs else (None, seed)]
                if at == budget and key in theirs
            ]
            if pairs:
                mean = statistics.fmean(ours.accuracy - other.accuracy for ours, other in pairs)
                found.append(Difference(method, other, budget, mean, _error(pairs), len(pairs)))
    return found


def _error(pairs: Sequence[tuple[Measured, Measured]]) -> float | None:
    variances = []
    if len(pairs) > 1:
        leads = [ours.accuracy - other.accuracy for ours, other in pairs]
        variances.append(statistics.variance(leads) / len(leads))
    if all("right" in cell.record for pair in pairs for cell in pair):
        # An image that both networks answer alike says nothing; that is why pairing is sharper than two error bars.
        leads_by_image = torch.stack([_right(ours) - _right(other) for ours, other in pairs]).mean(dim=0)
        variances.append(float(leads_by_image.var() / len(leads_by_image)))
    return sum(variances) ** 0.5 if variances else None


def _right(cell: Measured) -> torch.Tensor:
    return 100 * unpack(cell.record["right"], cell.record["images"]).double()
