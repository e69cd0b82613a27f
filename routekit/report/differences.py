"""How much better one method is than another: paired, seed by seed and image by image."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from routekit.evaluation.answers import unpack
from routekit.report.comparison import Measured


@dataclass(frozen=True)
class Difference:
    """How much more accurate `method` is than `other` at a budget, over the seeds that both have, in points.

    `error` is the standard error of `mean`: over test images, paired, and, with more than one seed, over seeds; of one
    seed, nothing is in it of what another would change. None if a record does not say which images were right, or if
    each seed has test images of its own.
    """

    method: str
    other: str
    budget: str
    mean: float
    error: float | None
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether `method` leads by more than two standard errors."""
        return self.error is not None and self.mean > 2 * self.error


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
    """Two ways crossed, seeds and images, both drawn at random: the variance of the mean has a part of each.

    That of the images' means over seeds and that of the seeds' means over images both hold what is left of neither: it
    is counted once (analysis of variance, two-way random effects).
    """
    records = [cell.record for pair in pairs for cell in pair]
    if not all("right" in record for record in records) or len({record["images"] for record in records}) > 1:
        return None
    seeds, images = len(pairs), records[0]["images"]
    if seeds > 1 and any(record.get("validation") == "test" for record in records):
        return None  # what the validation images leave of the test images is drawn by the seed
    # An image that both networks answer alike says nothing; that is why pairing is sharper than two error bars.
    leads = torch.stack([_right(ours) - _right(other) for ours, other in pairs])
    of_images = float(leads.mean(dim=0).var()) / images
    if seeds == 1:
        return math.sqrt(of_images)
    rest = leads - leads.mean(dim=0) - leads.mean(dim=1, keepdim=True) + leads.mean()
    left = float(rest.square().sum()) / ((seeds - 1) * (images - 1)) / (seeds * images)
    of_seeds = float(leads.mean(dim=1).var()) / seeds
    return math.sqrt(of_images + max(0.0, of_seeds - left))


def _right(cell: Measured) -> torch.Tensor:
    return 100 * unpack(cell.record["right"], cell.record["images"]).double()
