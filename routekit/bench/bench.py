"""The benchmark: for each runtime and batch size, the fastest dense form against the fastest routed one."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from routekit.backbones.load import build
from routekit.bench.forms import Make, Setting, runtimes
from routekit.cost.table import CostTable
from routekit.execution.executor import SparseExecutor
from routekit.execution.prepare import prepare
from routekit.execution.timing import DISTINCT, Call, Timing, in_turns, peak_memory
from routekit.junctions.convert import convert
from routekit.network.network import RoutedNetwork

# The number of groups, from the cheapest to the dearest images, whose latencies are reported.
LENGTHS = 4


@dataclass(frozen=True)
class Row:
    """One cell: a runtime at a batch size, on the fastest form of either side.

    Times are milliseconds a batch: the median of each batch's calls, averaged over the batches; p10 and p90 are of
    single calls. The forms were chosen by a shorter comparison before.

    Attributes:
        speedup: dense_ms / routed_ms.
        ideal: The dense network's MACs over the mean of those that the timed images execute, with routers.
        efficiency: speedup / ideal.
        break_even: The share of the dense MACs above which routing does not pay. It comes from a line through batches
            of cheap and of dear images, and may lie beyond them. None where their costs are too alike.
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
    """The latency of images whose routes run from `shortest` to `longest` units, one image at a time."""

    runtime: str
    shortest: int
    longest: int
    images: int
    share: float
    dense_ms: float
    routed_ms: float


@dataclass(frozen=True)
class Bench:
    """What was measured; `versions` of the runtimes, `kept` the mean share of the `dense` MACs that images execute."""

    rows: list[Row]
    lengths: list[Length]
    versions: dict[str, str]
    kept: float
    dense: float

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
    """Time a network, dense and routed.

    Args:
        network: The network.
        images: `[N, C, H, W]`, normalised; they are taken in their order. N is at least the largest batch.
        names: The runtimes.
        batches: Their sizes.
        setting: Where and how to run.
        seconds: Roughly, for each comparison.

    Returns:
        What was measured.
    """
    network = prepare(network)
    original = unpruned(network)
    costs, dense_cost = CostTable.measure(network), CostTable.measure(original).dense
    executor = SparseExecutor(network)
    routes = torch.cat([executor(chunk).routes for chunk in torch.split(images, 64)])
    spent = costs.of_routes(routes) / dense_cost
    rows, lengths, versions = [], [], {}
    for name in names:
        setting.say(f"{name}: preparing")
        forms = runtimes[name](network, setting)
        if original is not network:
            other = runtimes[name](original, replace(setting, folder=setting.folder / "original"))
            forms = replace(forms, dense=other.dense)
        versions[name] = forms.version
        made: dict[str, Call] = {}
        for batch in batches:
            setting.say(f"{name}: batch {batch}")
            makes = forms.for_batch(batch)
            made |= {form: make() for form, make in makes.items() if form not in made}
            contenders = {form: made[form] for form in makes}
            timed = _cut(images, batch)
            tried = in_turns(contenders, timed, seconds=seconds / 3, rounds=1)
            ranked = sorted(tried, key=lambda form: tried[form].typical)
            chosen = {side: next(form for form in ranked if form.startswith(side)) for side in ("dense", "routed")}
            fastest = {side: contenders[form] for side, form in chosen.items()}
            # Timed again: the fastest of several was partly the luckiest.
            timings = in_turns(fastest, timed, seconds=seconds)
            sides: dict[str, Any] = {}
            for side, form in chosen.items():
                sides |= _side(side, form, timings[side], makes[form], images[:batch], forms.device)
            groups = _by_cost(images, spent, batch)
            grouped = [(share, in_turns(fastest, cut, seconds=seconds / LENGTHS)) for share, cut, _ in groups]
            speedup = timings["dense"].typical / timings["routed"].typical
            cost = float(spent[: batch * len(timed)].mean())
            rows.append(
                Row(
                    runtime=name,
                    device=forms.device,
                    batch=batch,
                    speedup=speedup,
                    ideal=1 / cost,
                    efficiency=speedup * cost,
                    images_per_second=1e3 * batch / timings["routed"].typical,
                    samples=timings["routed"].calls,
                    break_even=break_even(
                        [(share, found["routed"].typical / found["dense"].typical) for share, found in grouped]
                    ),
                    **sides,
                )
            )
            if batch == 1:
                for (share, cut, members), (_, found) in zip(groups, grouped, strict=True):
                    units = network.units_run(routes[members])
                    lengths.append(
                        Length(
                            runtime=name,
                            shortest=int(units.min()),
                            longest=int(units.max()),
                            images=len(cut),
                            share=share,
                            dense_ms=found["dense"].typical,
                            routed_ms=found["routed"].typical,
                        )
                    )
    return Bench(rows, lengths, versions, float(spent.mean()), dense_cost)


def unpruned(network: RoutedNetwork) -> RoutedNetwork:
    """What the dense side is timed on: the network itself, or, if it was pruned, one of the shape that it had before.

    What its weights are changes no time.
    """
    return prepare(convert(build(network.view.spec))) if network.view.pruned else network


def _side(side: str, form: str, timing: Timing, make: Make, images: Tensor, device: str) -> dict[str, Any]:
    """The columns of a row that are about the fastest form of one side."""
    label = form.removeprefix(f"{side} ")
    return {
        f"{side}_form": label,
        f"{side}_ms": timing.typical,
        f"{side}_p10": timing.quantile(0.1),
        f"{side}_p90": timing.quantile(0.9),
        # What a compiler needs while it compiles is not what its product needs.
        f"{side}_memory": None if label == "compiled" else peak_memory(make, images, device),
    }


def break_even(points: Sequence[tuple[float, float]]) -> float | None:
    """Find where a line through (share of the dense MACs, routed / dense time) reaches 1.

    None if the shares differ by less than five points, or if there is no such place between 0 and 1.
    """
    shares, ratios = (torch.tensor(column, dtype=torch.float64) for column in zip(*points, strict=True))
    if len(points) < 2 or float(shares.max() - shares.min()) < 0.05:
        return None
    centred = shares - shares.mean()
    slope = float((centred * ratios).sum() / centred.square().sum())
    place = float(shares.mean()) + (1 - float(ratios.mean())) / slope if slope > 0 else 0.0
    return place if 0 < place <= 1 else None


def _cut(images: Tensor, batch: int) -> list[Tensor]:
    """The batches that are timed: whole ones, from the first image on."""
    parts = torch.split(images, batch)[:DISTINCT]
    return [part.contiguous(memory_format=torch.channels_last) for part in parts if len(part) == batch]


def _by_cost(images: Tensor, spent: Tensor, batch: int) -> list[tuple[float, list[Tensor], Tensor]]:
    """Divide images by their cost into up to LENGTHS groups of batches: mean share, batches, members.

    There are no more groups than costs: images that all cost the same are one group.
    """
    groups = min(LENGTHS, len(images) // batch, len(set(spent.tolist())))
    found = []
    for members in spent.argsort().tensor_split(groups):
        members = members.sort().values  # within a group, costs come as they come
        cut = _cut(images[members], batch)
        members = members[: batch * len(cut)]
        found.append((float(spent[members].mean()), cut, members))
    return found
