"""The passes of a checkpoint as plain dense modules, by torch on the CPU."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from routekit.backbones.unit import Backbone
from routekit.errors import InputError, first_line
from routekit.execution.fuse import fuse
from routekit.execution.prepare import prepare
from routekit.formats.checkpoint import load, read_about
from routekit.formats.description import Description, Section
from routekit.formats.sections import NEXT, Stretch, decides_inside, stretches
from routekit.network.execution import masked
from routekit.network.forward import forward
from routekit.network.network import RoutedNetwork
from routekit.network.program import Stem
from routekit.network.state import ForwardState
from routekit.registry import nearest
from routekit.runtime.runtime import Pass

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Of how many images a pass is compiled that takes any number.
SEVERAL = 2


class DensePass(nn.Module):
    """The steps of a section, of which none decides anything.

    Args:
        network: What the steps are of.
        stretch: The steps.
        dtype: In which they compute. Images are brought into it when they have been normalised.
    """

    def __init__(self, network: RoutedNetwork, stretch: Stretch, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.stretch, self.dtype = network, stretch, dtype
        self.spec, self.layout = network.spec, network.layout

    def forward(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Compute, from what the section reads: "logits" `[b, classes]`, and what the next ones read."""
        state = ForwardState(next(iter(values.values())), self.spec, self.layout, execution=masked)
        if "x" in values:
            state.x = values["x"].to(self.dtype)
        if "shared" in values:
            state.shared = values["shared"].to(self.dtype)
        for step in self.stretch.steps:
            if isinstance(step, Stem):
                state.view = state.view.to(self.dtype)
            forward.table[type(step)](step, state)
        made = {"logits": state.answer} | {NEXT + name: getattr(state, name) for name in self.stretch.gives}
        return {name: value.float() for name, value in made.items() if value is not None}


@torch.inference_mode()
def open_modules(
    path: Path,
    *,
    batch: int | None,
    threads: int,
    precisions: Sequence[str] | None,
    compiled: bool,
    model: Callable[[], Backbone] | None = None,
) -> tuple[Description, list[Section], list[Pass]]:
    """Open the passes of a run or a checkpoint.

    Args:
        path: The folder.
        batch: The number of images in every call; None if that is not known.
        threads: The number of threads; 0 for torch's choice.
        precisions: Of each pass, "fp32" or "bf16"; None for float32.
        compiled: Whether torch's compiler is used where it works. Else convolutions are fused.
        model: What makes the user's own network from which they were made.

    Returns:
        What the network is, how each pass is used, and what runs each.

    Raises:
        InputError: It cannot be loaded, something but a rule decides, or the precisions are not those of its passes.
    """
    network = load(path, model)
    if decides_inside(network):
        raise InputError(f"{path} decides at units, or has learned to stop: its passes are no plain dense networks")
    sections = [stretch.section for stretch in stretches(network)]
    chosen = ["fp32"] * len(sections) if precisions is None else list(precisions)
    for precision in chosen:
        if precision == "int8":
            raise InputError("torch runs passes in fp32 or bf16, not in int8: take bf16, or int8 files in openvino")
        if precision not in PRECISIONS:
            raise InputError(f"unknown precision {precision!r}: {nearest(precision, PRECISIONS)}")
    if len(chosen) != len(sections):
        raise InputError(f"{path} has {len(sections)} passes, and {len(chosen)} precisions are given")

    @cache
    def made(precision: str, fused: bool) -> RoutedNetwork:
        ready = prepare(network)
        if fused and (precision == "fp32" or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
            ready = fuse(ready)
        return ready.to(PRECISIONS[precision])

    def module(number: int, fused: bool) -> DensePass:
        which = made(chosen[number], fused)
        return DensePass(which, stretches(which)[number], PRECISIONS[chosen[number]]).eval()

    passes: list[Pass] = []
    values = {"images": np.zeros((batch or SEVERAL, *network.spec.input_size), dtype=np.float32)}
    for number in range(len(sections)):
        run = None
        if compiled:
            known = batch is not None and (number == 0 or batch == 1)
            run = _compiled(module(number, fused=False), values, threads, known=known)
        if run is None:
            eager = module(number, fused=True)
            run = called(eager, eager.stretch.reads, threads)
        passes.append(run)
        values |= {name.removeprefix(NEXT): value for name, value in run(values).items()}
    return Description.of(prepare(network), read_about(path)), sections, passes


def _compiled(module: DensePass, values: Mapping[str, np.ndarray], threads: int, *, known: bool) -> Pass | None:
    """Compile a pass on values like those to come; `known` says that their number stays. None if that fails."""
    # Freezing lets the compiler lay out the weights and fuse what follows a convolution into it.
    options: dict[str, Any] = {"dynamic": not known, "options": {"freezing": True}}
    # Passes share their code: else torch would compile the first eight of a process alone. Older versions do.
    if "isolate_recompiles" in signature(torch.compile).parameters:
        options["isolate_recompiles"] = True
    run = called(torch.compile(module, **options), module.stretch.reads, threads)
    try:
        run(values)
    except Exception as error:  # no C++ compiler, or a block that it cannot follow: torch raises whatever it meets
        number = module.stretch.section.number
        warnings.warn(f"pass {number} runs without the compiler: {first_line(error)}", RuntimeWarning, stacklevel=4)
        return None
    return run


def called(call: Callable[[dict[str, Tensor]], dict[str, Tensor]], reads: Sequence[str], threads: int) -> Pass:
    """Make a pass on arrays out of a call on tensors.

    Args:
        call: The values by name that it reads -> "logits" `[b, classes]`, and what the next passes read.
        reads: The names of these values.
        threads: The number of threads; 0 for torch's choice.

    Returns:
        The pass.
    """

    @torch.inference_mode()
    def run(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        # A copy of the images: some stem may give its input on to blocks that change it in place.
        given = {
            name: torch.from_numpy(values[name]).to(memory_format=torch.channels_last, copy=name == "images")
            for name in reads
        }
        with _using(threads):
            made = call(given)
        return {name: value.numpy() for name, value in made.items()}

    return run


@contextmanager
def _using(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads; 0 for as many as it does."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if threads:
            torch.set_num_threads(before)
