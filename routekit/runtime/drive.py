"""Milliseconds of passes, measured in a process of their own, where they run alone as they will where they are used."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor

from routekit.backbones.load import build
from routekit.backbones.unit import ModelSpec
from routekit.cost.passes import counts_of
from routekit.data.augment import normalize
from routekit.runtime.passes import PassesRuntime, open_passes
from routekit.runtime.worker import Worker, serve

# About how long each number of images is timed, seconds.
SECONDS = 4.0
# Images are normalised in parts, and so many single images come before those that count; of batches, three.
PART, WARM_UP = 64, 20
# So many calls of a turn count.
TURN = 5


@dataclass(frozen=True)
class Place:
    """Where passes are timed.

    Attributes:
        runtime: "onnx", "openvino" or "torch".
        batch: How many images come at once.
        threads: The threads of the CPU.
    """

    runtime: str
    batch: int
    threads: int


@dataclass(frozen=True)
class Driven:
    """Milliseconds an image of passes that were driven, image by image or batch by batch.

    Attributes:
        mean: Over all images.
        p50: The median call, an image's share of it; `p95` and `p99` likewise.
        p95: As p50.
        p99: As p50.
        calls: How many calls were timed.
    """

    mean: float
    p50: float
    p95: float
    p99: float
    calls: int


@dataclass(frozen=True)
class Passes:
    """What is opened.

    Attributes:
        folder: As in `runtime.passes.open_passes`.
        precisions: In torch, of each pass.
        source: In torch, the specification of a user's own network, which its factory builds.
    """

    folder: Path
    precisions: tuple[str, ...] = ()
    source: ModelSpec | None = None

    def open(self, runtime: str, *, batch: int | None = None, threads: int = 0) -> PassesRuntime:
        """Open it (`open_passes`)."""
        model = None if self.source is None else partial(build, self.source)
        precisions = self.precisions or None
        return open_passes(self.folder, runtime, batch=batch, threads=threads, precisions=precisions, model=model)

    def for_json(self) -> dict[str, Any]:
        """As a process in another folder reads it."""
        return asdict(self) | {"folder": str(self.folder.absolute())}


class Clock(Worker):
    """Times passes in a process of its own, which is there for as long as the context.

    >>> with Clock(Place("onnx", batch=1, threads=2)) as clock:
    ...     (driven,) = clock.drive([Passes(Path("runs/mine/passes"))], images)

    Args:
        place: Where passes are timed.
    """

    def __init__(self, place: Place) -> None:
        super().__init__("routekit.runtime.drive", f"timing in {place.runtime}", place.threads)
        self.place = place

    def time(self, passes: Sequence[Passes], images: Tensor, seconds: float | None = None) -> list[dict[int, float]]:
        """Time static networks, in turns.

        Args:
            passes: The networks, a pass each.
            images: Typical images, uint8 `[N, C, H, W]`.
            seconds: About how long each number of images takes; None for `SECONDS`.

        Returns:
            For each, the milliseconds of a call by its number of images (`cost.passes.counts_of`).

        Raises:
            RoutekitError: The process failed.
        """
        found = self._ask("passes", passes, images, seconds=SECONDS if seconds is None else seconds)
        return [{int(count): ms for count, ms in each.items()} for each in found]

    def drive(self, passes: Sequence[Passes], images: Tensor) -> list[Driven]:
        """Run sequences of passes on images as they come, in turns, each image through what it needs.

        Args:
            passes: The sequences.
            images: The images in the order in which they come, uint8 `[N, C, H, W]`.

        Returns:
            The milliseconds of each.

        Raises:
            RoutekitError: The process failed.
        """
        return [Driven(**each) for each in self._ask("driven", passes, images)]

    def _ask(self, what: str, passes: Sequence[Passes], images: Tensor, **more: Any) -> list[Any]:
        """Send a request about passes and images, and return its answer."""
        file = self.folder / "images.safetensors"
        save_file({"images": images.contiguous()}, file)
        opened = [each.for_json() for each in passes]
        return self.ask({"what": what, "passes": opened, "images": str(file), "place": vars(self.place), **more})


def _serve(request: dict[str, Any]) -> list[Any]:
    """What the process does: open all passes, and time them."""
    place = Place(**request["place"])
    torch.set_num_threads(place.threads)
    pixels = load_file(request["images"])["images"]
    passes = TypeAdapter(list[Passes]).validate_python(request["passes"])

    def opened(batch: int) -> list[PassesRuntime]:
        return [each.open(place.runtime, batch=batch, threads=place.threads) for each in passes]

    def images_of(start: int, count: int) -> np.ndarray:
        rows = torch.arange(start, start + count) % len(pixels)
        return normalize(pixels[rows], spec.mean, spec.std).numpy()

    spec = passes[0].open(place.runtime, batch=1).description.spec
    if request["what"] == "passes":
        found: list[dict[int, float]] = [{} for _ in passes]
        for count in counts_of(place.batch):
            runtimes = opened(count)
            batches = [images_of(turn * count, count) for turn in range(min(16, max(1, 256 // count)))]
            for ms, each in zip(_turns(runtimes, batches, request["seconds"]), found, strict=True):
                each[count] = ms
        return found
    return _driven(opened(place.batch), images_of, len(pixels), place.batch)


def _turns(runtimes: Sequence[PassesRuntime], batches: Sequence[np.ndarray], seconds: float) -> list[float]:
    """The median milliseconds of a call, in turns of some calls. The first call of a turn is not counted.

    Passes of a sequence are called again and again: call by call in turns, each would find the caches of another one.
    """
    samples: list[list[float]] = [[] for _ in runtimes]
    order = list(range(len(runtimes)))
    started, turn = time.perf_counter(), 0
    while turn < 3 or time.perf_counter() - started < seconds:
        for number in order:
            found = [_milliseconds(runtimes[number], batches[(turn + k) % len(batches)]) for k in range(TURN + 1)]
            samples[number] += found[1:]
        order.reverse()
        turn += 1
    return [statistics.median(each) for each in samples]


def _driven(
    runtimes: Sequence[PassesRuntime], images_of: Callable[[int, int], np.ndarray], total: int, batch: int
) -> list[dict[str, float]]:
    """Drive each over all images, in turns of some calls."""
    samples: list[list[float]] = [[] for _ in runtimes]
    for runtime in runtimes:
        for turn in range(WARM_UP if batch == 1 else 3):
            runtime.run(images_of(turn * batch, batch))
    # Whole batches, for which passes are planned: the last one is filled with the first images.
    calls, together = -(-total // batch), max(PART // batch, 1)
    for first in range(0, calls, together):
        part = images_of(first * batch, batch * min(together, calls - first))
        for number, runtime in enumerate(runtimes):
            if len(runtimes) > 1:
                runtime.run(part[:batch])  # what another one left in the caches is not counted
            samples[number] += [
                _milliseconds(runtime, part[at : at + batch]) / batch for at in range(0, len(part), batch)
            ]
    found = []
    for each in samples:
        taken = torch.tensor(each, dtype=torch.float64)
        levels = torch.quantile(taken, torch.tensor([0.5, 0.95, 0.99], dtype=torch.float64)).tolist()
        quantiles = dict(zip(("p50", "p95", "p99"), levels, strict=True))
        found.append({"mean": float(taken.mean()), **quantiles, "calls": len(each)})
    return found


def _milliseconds(runtime: PassesRuntime, images: np.ndarray) -> float:
    started = time.perf_counter()
    runtime.run(images)
    return 1e3 * (time.perf_counter() - started)


if __name__ == "__main__":
    serve(_serve)
