"""How much better one method is than another: paired, seed by seed and image by image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from routekit.evaluation.answers import unpack
from routekit.report.comparison import Measured


@dataclass(frozen=True)
class Difference:
    """How much more accurate a method is than `other` at a budget, over the seeds that both have, in points.

    `error` is the standard error of `mean` over test images, paired, and over seeds where there are several. The error
    of one seed does not hold what another seed would change. It is None if a record does not hold which images were
    right, or if each seed has test images of its own.
    """

    other: str
    budget: str
    mean: float
    error: float | None
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether the method leads by more than two standard errors."""
        return self.error is not None and self.mean > 2 * self.error


def differences(cells: Sequence[Measured], method: str) -> list[Difference]:
    """Compare a method with each other method, at each budget. The dense network stands at every budget.

    Args:
        cells: The cells that are done.
        method: The method.

    Returns:
        A difference for each other method and budget with a seed of both, in the order of their names.
    """
    placed = {(cell.method, cell.budget, cell.seed): cell for cell in cells}
    own = [cell for cell in cells if cell.method == method]
    found = []
    for other in sorted({cell.method for cell in cells} - {method}):
        for budget in sorted({cell.budget for cell in own if cell.budget is not None}):
            pairs = []
            for cell in own:
                theirs = placed.get((other, budget, cell.seed)) or placed.get((other, None, cell.seed))
                if cell.budget == budget and theirs is not None:
                    pairs.append((cell, theirs))
            if pairs:
                mean = fmean(ours.accuracy - theirs.accuracy for ours, theirs in pairs)
                found.append(Difference(other, budget, mean, _error(pairs), len(pairs)))
    return found


def _error(pairs: Sequence[tuple[Measured, Measured]]) -> float | None:
    """Compute the standard error of the mean lead, with seeds and images both drawn at random, in points.

    The variance of the mean has a part of the images and a part of the seeds. Both parts hold the residual, which is
    counted once (analysis of variance, two-way random effects).
    """
    records = [cell.record for pair in pairs for cell in pair]
    if not all("right" in record for record in records) or len({record["images"] for record in records}) > 1:
        return None
    seeds, images = len(pairs), records[0]["images"]
    if seeds > 1 and any(record.get("validation") == "test" for record in records):
        return None  # the seed draws which test images remain beside the validation images
    # An image that both networks answer alike adds nothing: pairing is sharper than two separate errors.
    leads = torch.stack([_right(ours) - _right(theirs) for ours, theirs in pairs])
    of_images = float(leads.mean(dim=0).var()) / images
    if seeds == 1:
        return math.sqrt(of_images)
    rest = leads - leads.mean(dim=0) - leads.mean(dim=1, keepdim=True) + leads.mean()
    residual = float(rest.square().sum()) / ((seeds - 1) * (images - 1)) / (seeds * images)
    of_seeds = float(leads.mean(dim=1).var()) / seeds
    return math.sqrt(of_images + max(0.0, of_seeds - residual))


def _right(cell: Measured) -> torch.Tensor:
    """Which images were answered rightly, `[N]`: 100 or 0."""
    return 100 * unpack(cell.record["right"], cell.record["images"]).double()
