"""What a routed network does with its images: which units they run, which share a route, and what changes it."""

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.data.augment import normalize
from routekit.data.image_set import Images
from routekit.evaluation.evaluate import Evaluation, evaluate
from routekit.execution.prepare import optimize
from routekit.execution.timing import in_turns
from routekit.network.network import RoutedNetwork

# How many of the commonest routes are shown, how many images of each, and their size, pixels.
COMMON, EXAMPLES, SIZE = 8, 10, 48
# How many images are timed of each length of the route.
TIMED = 8

# What numbers can be, for an analysis that is read.
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=10**15)]


@dataclass(frozen=True)
class Length:
    """The images whose routes run a given number of units, and the latency of one of them alone, in torch."""

    units: Count
    images: Count
    accuracy: Share
    milliseconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class SharedRoute:
    """A route that many images take.

    Attributes:
        runs: `[columns]`, which columns are taken.
        images: How many images take it.
        accuracy: The accuracy on these.
        classes: How many images of each class take it.
        examples: A PNG of some of them in a row, in base64.
        right: Which of these were answered right.
    """

    runs: list[bool]
    images: Count
    accuracy: Share
    classes: list[Count]
    examples: str
    right: list[bool] | None = None  # former versions did not know


@dataclass(frozen=True)
class Analysis:
    """What was found on a set of images.

    Attributes:
        columns: The names of the columns of a route.
        classes: The names of the classes.
        class_rates: `[classes, columns]`, the share of a class's images that takes each column.
        lengths: By the number of units that run.
        shared: The commonest routes, the commonest first.
        kept: The share of images that keep their route if they are shifted, mirrored or turned a little.
    """

    columns: list[str]
    classes: list[str]
    class_rates: list[list[float]]  # NaN for a class without images
    lengths: list[Length]
    shared: list[SharedRoute]
    kept: dict[str, Share]

    def __post_init__(self) -> None:
        """Raise ValueError for parts that are not of as many columns and classes."""
        columns = {*map(len, self.class_rates), *(len(route.runs) for route in self.shared)}
        classes = {len(self.class_rates), *(len(route.classes) for route in self.shared)}
        if columns - {len(self.columns)} or classes - {len(self.classes)} or not (self.columns and self.lengths):
            raise ValueError("its parts are of other columns or classes")

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def analyse(network: RoutedNetwork, images: Images, costs: CostTable) -> Analysis:
    """Run all images through the network, and again varied; time some of them.

    Args:
        network: The network.
        images: The images.
        costs: The cost table.

    Returns:
        What was found.
    """
    found = evaluate(network, images, costs)
    kept = {}
    for name, vary in VARIATIONS.items():
        same = evaluate(network, _Varied(images, vary), costs).routes == found.routes
        kept[name] = float(same.all(dim=1).double().mean())
    by_class = [found.routes[found.labels == label] for label in range(len(images.classes))]
    return Analysis(
        columns=network.columns,
        classes=list(images.classes),
        class_rates=[routes.double().mean(dim=0).tolist() for routes in by_class],
        lengths=_lengths(network, found, images),
        shared=_shared(found, images),
        kept=kept,
    )


def _lengths(network: RoutedNetwork, found: Evaluation, images: Images) -> list[Length]:
    """Accuracy and latency by the number of units that a route runs."""
    fast, device, spec = optimize(network), next(network.parameters()).device, network.spec
    units, lengths = network.units_run(found.routes), []
    for count in sorted(set(units.tolist())):
        members = (units == count).nonzero().squeeze(1)
        batch, _ = next(iter(images.batches(some_of(members, TIMED), TIMED)))
        singles = normalize(batch.to(device), spec.mean, spec.std)
        timing = in_turns({"routed": fast}, torch.split(singles, 1), seconds=0.0)["routed"]
        accuracy = float(found.correct[members].double().mean())
        lengths.append(Length(count, len(members), accuracy, timing.typical))
    return lengths


def _shared(found: Evaluation, images: Images) -> list[SharedRoute]:
    """The commonest routes, the commonest first."""
    routes, which, counts = torch.unique(F.pad(found.routes, (0, 1)), dim=0, return_inverse=True, return_counts=True)
    shared = []
    for place in counts.argsort(descending=True, stable=True)[:COMMON].tolist():
        members = (which == place).nonzero().squeeze(1)
        some = some_of(members, EXAMPLES)
        batch, _ = next(iter(images.batches(some, EXAMPLES)))
        shared.append(
            SharedRoute(
                runs=routes[place, :-1].tolist(),
                images=len(members),
                accuracy=float(found.correct[members].double().mean()),
                classes=torch.bincount(found.labels[members], minlength=len(images.classes)).tolist(),
                examples=_strip(batch),
                right=found.correct[some].tolist(),
            )
        )
    return shared


def some_of(members: Tensor, count: int) -> Tensor:
    """Up to `count` of `members`, evenly spaced: images often come class by class."""
    return members[torch.linspace(0, len(members) - 1, min(count, len(members))).round().long()]


def _strip(batch: Tensor) -> str:
    """Images uint8 [B, 3, H, W] -> a PNG of them in a row, in base64."""
    from torchvision.transforms.v2 import functional as vision

    row = torch.cat(list(vision.resize(batch, [SIZE, SIZE], antialias=True)), dim=2).expand(3, -1, -1)
    stream = io.BytesIO()
    Image.fromarray(row.permute(1, 2, 0).numpy()).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _shifted(batch: Tensor) -> Tensor:
    """Move images to the lower right by a sixteenth of their size; what is uncovered is black."""
    by = max(1, batch.shape[-1] // 16)
    return F.pad(batch, (by, 0, by, 0))[..., : batch.shape[-2], : batch.shape[-1]]


def _turned(batch: Tensor) -> Tensor:
    # To import torchvision takes as long as to import torch, and most commands need none of it.
    from torchvision.transforms.v2 import functional as vision

    turned: Tensor = vision.rotate(batch, 10, vision.InterpolationMode.BILINEAR)
    return turned


VARIATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "shifted by a sixteenth": _shifted,
    "mirrored": lambda batch: batch.flip(3),
    "turned by 10 degrees": _turned,
}


class _Varied:
    """Images, each of them changed in the same way."""

    def __init__(self, images: Images, vary: Callable[[Tensor], Tensor]) -> None:
        self.images, self.vary = images, vary
        self.labels, self.classes, self.name = images.labels, images.classes, images.name

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Tensor) -> "_Varied":
        return _Varied(self.images.subset(indices), self.vary)

    def batches(self, indices: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for batch, labels in self.images.batches(indices, batch_size):
            yield self.vary(batch), labels
