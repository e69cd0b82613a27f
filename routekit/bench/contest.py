"""Networks in any runtime beside each other, in one process of their own: what they answer, and how long they take."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from torch import Tensor

from routekit.backbones.load import build
from routekit.data.augment import normalize
from routekit.errors import InputError, first_line
from routekit.execution.timing import in_turns
from routekit.formats.checkpoint import load, read_about
from routekit.runtime.drive import Passes
from routekit.runtime.load import load_runtime
from routekit.runtime.pass_packages import open_packages
from routekit.runtime.passes import PassesRuntime, open_passes
from routekit.runtime.runtime import Runtime, TorchRuntime
from routekit.runtime.worker import Worker, serve


@dataclass(frozen=True)
class Contender:
    """A network in a runtime.

    Attributes:
        runtime: "torch", "compile" (torch.compile), "aot" (AOTInductor), "onnx" or "openvino".
        passes: Its files.
        plain: Whether its passes are plain dense networks. Else something decides inside of them, and the files are
            those of the formats compact, onnx and openvino.
    """

    runtime: str
    passes: Passes
    plain: bool = True

    def open(self, *, batch: int, threads: int) -> Runtime:
        """Open it for batches of a size. Raises InputError: it cannot be opened here."""
        folder, source = self.passes.folder, self.passes.source
        if self.runtime == "aot":
            return PassesRuntime(*open_packages(folder, threads))
        model = None if source is None else partial(build, source)
        if self.runtime == "compile":
            with warnings.catch_warnings():
                # A pass that is not compiled would run, as slowly as without the compiler.
                warnings.filterwarnings("error", "pass . runs without the compiler", RuntimeWarning)
                try:
                    return open_passes(
                        folder,
                        "torch",
                        batch=batch,
                        threads=threads,
                        precisions=self.passes.precisions,
                        compiled=True,
                        model=model,
                    )
                except RuntimeWarning as error:
                    raise InputError(f"torch cannot compile here: {first_line(error)}") from error
        if self.plain:
            return self.passes.open(self.runtime, batch=batch, threads=threads)
        if self.runtime == "torch":
            return TorchRuntime(load(folder, model), read_about(folder))
        return load_runtime(folder)


@dataclass(frozen=True)
class Times:
    """Milliseconds an image.

    Attributes:
        ms: The median of each batch's calls, averaged over the batches: images differ in their routes.
        p25: Of single calls; `p75` and `p95` likewise.
        p75: As p25.
        p95: As p25.
        calls: How many calls were timed.
    """

    ms: float
    p25: float
    p75: float
    p95: float
    calls: int


class Contest(Worker):
    """Runs contenders in a process of its own, all with as many threads.

    Args:
        threads: The threads.
    """

    def __init__(self, threads: int) -> None:
        super().__init__("routekit.bench.contest", "the process that runs the network", threads)

    def answers(self, contender: Contender, images: Tensor, batch: int) -> Tensor:
        """Let a contender answer.

        Args:
            contender: The contender.
            images: uint8 `[N, C, H, W]`.
            batch: How many images come at once. The last ones come with the first ones, as a whole batch.

        Returns:
            The classes `[N]`.

        Raises:
            RoutekitError: It cannot be opened, or fails.
        """
        return torch.tensor(self._ask("answers", [contender], images, batch=batch)[0])

    def times(
        self, contenders: Mapping[str, Contender], images: Tensor, batch: int, seconds: float
    ) -> dict[str, Times]:
        """Time contenders in turns on the same images.

        Args:
            contenders: The contenders, by name.
            images: uint8 `[N, C, H, W]`, one batch at least.
            batch: How many images come at once.
            seconds: About how long it takes for each.

        Returns:
            The times of each.

        Raises:
            RoutekitError: One of them fails.
        """
        found = self._ask("times", list(contenders.values()), images, batch=batch, seconds=seconds)
        return {name: Times(**each) for name, each in zip(contenders, found, strict=True)}

    def _ask(self, what: str, contenders: Sequence[Contender], images: Tensor, **more: Any) -> list[Any]:
        file = self.folder / "images.safetensors"
        save_file({"images": images.contiguous()}, file)
        opened = [asdict(each) | {"passes": each.passes.for_json()} for each in contenders]
        return self.ask({"what": what, "contenders": opened, "images": str(file), "threads": self.threads, **more})


# What is open for batches of a size.
_opened: dict[int, dict[Contender, Runtime]] = {}


def _serve(request: dict[str, Any]) -> list[Any]:
    """What the process does: let contenders answer, or time them."""
    batch, threads = request["batch"], request["threads"]
    torch.set_num_threads(threads)
    pixels = load_file(request["images"])["images"]
    contenders = TypeAdapter(list[Contender]).validate_python(request["contenders"])
    if batch not in _opened:  # those for batches of other sizes are not needed any more
        _opened.clear()
    here = _opened.setdefault(batch, {})
    for each in contenders:
        if each not in here:
            here[each] = each.open(batch=batch, threads=threads)
    spec = here[contenders[0]].description.spec
    if request["what"] == "answers":
        (call,) = (here[each] for each in contenders)
        rows = torch.arange(-(-len(pixels) // batch) * batch) % len(pixels)
        parts = [normalize(pixels[part], spec.mean, spec.std) for part in torch.split(rows, batch)]
        classes = torch.cat([call(part).logits.argmax(dim=1) for part in parts])
        return [classes[: len(pixels)].tolist()]
    batches = [normalize(part, spec.mean, spec.std) for part in torch.split(pixels, batch) if len(part) == batch]
    calls = {str(number): here[each] for number, each in enumerate(contenders)}
    timings = in_turns(calls, batches, seconds=request["seconds"] * len(calls))
    levels = {"p25": 0.25, "p75": 0.75, "p95": 0.95}
    return [
        {"ms": timing.typical / batch, "calls": timing.calls}
        | {name: timing.quantile(level) / batch for name, level in levels.items()}
        for timing in timings.values()
    ]


if __name__ == "__main__":
    serve(_serve)
