"""The benchmark: for each runtime and batch size, the fastest dense form against the fastest routed one."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from routekit.bench.forms import Make, Setting, runtimes
from routekit.cost.model import CostModel
from routekit.execution.executor import SparseExecutor
from routekit.execution.prepare import prepare
from routekit.execution.timing import Call, Timing, in_turns, peak_memory
from routekit.network.network import RoutedNetwork

# In how many groups, from the cheapest to the dearest images, latency is told by the length of the route.
LENGTHS = 4


@dataclass(frozen=True)
class Row:
    """One cell: a runtime at a batch size. Times are medians, milliseconds a batch.

    speedup:     dense_ms / routed_ms
    ideal:       the dense network's MACs over the mean of those that the images' routes execute, routers included
    efficiency:  speedup / ideal
    break_even:  the share of the dense MACs above which routing does not pay, from a line through batches of cheap
                 and of dear images; None where their costs are too alike to tell
    """

    runtime: str
    device: str
    batch: int
    dense_form: str
    dense_ms: float
    dense_p10: float
    dense_p90: float
    routed_form: str
    routed_ms: float
    routed_p10: float
    routed_p90: float
    speedup: float
    ideal: float
    efficiency: float
    images_per_second: float
    dense_memory: int | None
    routed_memory: int | None
    samples: int
    break_even: float | None


@dataclass(frozen=True)
class Length:
    """How long images take, one at a time, whose routes run from `shortest` to `longest` units."""

    runtime: str
    shortest: int
    longest: int
    images: int
    share: float
    dense_ms: float
    routed_ms: float


@dataclass(frozen=True)
class Bench:
    """What was measured; `versions` of the runtimes, `kept` the mean share of the dense MACs that images execute."""

    rows: list[Row]
    lengths: list[Length]
    versions: dict[str, str]
    kept: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def bench(
    network: RoutedNetwork,
    images: Tensor,
    *,
    names: Sequence[str],
    batches: Sequence[int],
    setting: Setting,
    seconds: float,
) -> Bench:
    """Time `network` on `images` [N, C, H, W], normalised, in their order; N at least the largest batch.

    names:    of the runtimes
    batches:  sizes
    seconds:  roughly, for each comparison
    """
    network = prepare(network)
    costs = CostModel.measure(network)
    executor = SparseExecutor(network)
    routes = torch.cat([executor(chunk).routes for chunk in torch.split(images, 64)])
    spent = costs.of_routes(routes) / costs.dense
    rows, lengths, versions = [], [], {}
    for name in names:
        setting.say(f"{name}: preparing")
        forms = runtimes[name](network, setting)
        versions[name] = forms.version
        made: dict[str, Call] = {}
        for batch in batches:
            setting.say(f"{name}: batch {batch}")
            makes = forms.for_batch(batch)
            made |= {form: make() for form, make in makes.items() if form not in made}
            contenders = {form: made[form] for form in makes}
            timings = in_turns(contenders, _cut(images, batch), seconds=seconds)
            ranked = sorted(timings, key=lambda form: timings[form].median)
            dense_form, routed_form = (next(f for f in ranked if f.startswith(side)) for side in ("dense", "routed"))
            fastest = {"dense": contenders[dense_form], "routed": contenders[routed_form]}
            dense, routed = (_Side(f, timings[f], makes[f], images[:batch]) for f in (dense_form, routed_form))
            groups = _by_cost(images, spent, batch)
            grouped = [(share, in_turns(fastest, cut, seconds=seconds / LENGTHS)) for share, cut, _ in groups]
            rows.append(_row(name, batch, setting, dense, routed, spent, len(images), grouped))
            if batch == 1:
                for (share, cut, members), (_, timed) in zip(groups, grouped, strict=True):
                    units = routes[members].sum(dim=1)
                    shortest, longest = int(units.min()), int(units.max())
                    lengths.append(
                        Length(name, shortest, longest, len(cut), share, timed["dense"].median, timed["routed"].median)
                    )
    return Bench(rows, lengths, versions, float(spent.mean()))


class _Side:
    """The fastest form of one side."""

    def __init__(self, name: str, timing: Timing, make: Make, images: Tensor) -> None:
        self.form = name.partition(" ")[2]
        self.timing, self.make, self.images = timing, make, images

    def memory(self) -> int | None:
        # What a compiler needs while it compiles is not what its product needs.
        return None if self.form == "compiled" else peak_memory(self.make, self.images)


def _row(
    name: str,
    batch: int,
    setting: Setting,
    dense: "_Side",
    routed: "_Side",
    spent: Tensor,
    count: int,
    grouped: list[tuple[float, dict[str, Timing]]],
) -> Row:
    # What was timed are whole batches; the images that fill none are left out.
    used = count // batch * batch
    ideal = 1 / float(spent[:used].mean())
    speedup = dense.timing.median / routed.timing.median
    points = [(share, timed["routed"].median / timed["dense"].median) for share, timed in grouped]
    return Row(
        runtime=name,
        device=setting.device.type,
        batch=batch,
        dense_form=dense.form,
        dense_ms=dense.timing.median,
        dense_p10=dense.timing.quantile(0.1),
        dense_p90=dense.timing.quantile(0.9),
        routed_form=routed.form,
        routed_ms=routed.timing.median,
        routed_p10=routed.timing.quantile(0.1),
        routed_p90=routed.timing.quantile(0.9),
        speedup=speedup,
        ideal=ideal,
        efficiency=speedup / ideal,
        images_per_second=1e3 * batch / routed.timing.median,
        dense_memory=dense.memory(),
        routed_memory=routed.memory(),
        samples=len(routed.timing.samples),
        break_even=break_even(points),
    )


def break_even(points: Sequence[tuple[float, float]]) -> float | None:
    """Find where a line through (share of the dense MACs, routed / dense time) reaches 1.

    None if the shares differ by less than five points, or if time does not grow with them.
    """
    shares, ratios = (torch.tensor(column, dtype=torch.float64) for column in zip(*points, strict=True))
    if len(points) < 2 or float(shares.max() - shares.min()) < 0.05:
        return None
    centred = shares - shares.mean()
    slope = float((centred * ratios).sum() / centred.square().sum())
    return None if slope <= 0 else float(shares.mean()) + (1 - float(ratios.mean())) / slope


def _cut(images: Tensor, batch: int) -> list[Tensor]:
    """Divide images into batches of one size; what is left over is dropped."""
    return [
        part.contiguous(memory_format=torch.channels_last) for part in torch.split(images, batch) if len(part) == batch
    ]


def _by_cost(images: Tensor, spent: Tensor, batch: int) -> list[tuple[float, list[Tensor], Tensor]]:
    """Divide images by their cost into up to LENGTHS groups of whole batches: mean share, batches, members."""
    order = spent.argsort()
    groups = min(LENGTHS, len(images) // batch)
    found = []
    for members in order.tensor_split(groups):
        members = members[: len(members) // batch * batch]
        found.append((float(spent[members].mean()), _cut(images[members], batch), members))
    return found
