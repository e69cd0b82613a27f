"""The passes of a network compiled ahead of time by torch (AOTInductor), one package each, for the CPU."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from routekit.errors import InputError, first_line
from routekit.execution.prepare import prepare
from routekit.formats.description import Description, Section
from routekit.formats.onnx.quiet import quiet
from routekit.formats.sections import NEXT, decides_inside, from_metadata, stretches, to_metadata
from routekit.network.network import RoutedNetwork
from routekit.runtime.pass_modules import PRECISIONS, DensePass, called
from routekit.runtime.runtime import Pass

# In the file beside a package: the values that the pass reads.
READS = "reads"


@torch.no_grad()
def save_packages(folder: Path, network: RoutedNetwork, precisions: Sequence[str]) -> list[Path]:
    """Compile `pass-0.pt2`, `pass-1.pt2`, ... for any number of images. Each takes up to a minute.

    Args:
        folder: A folder.
        network: A network in which only rules at stops decide.
        precisions: Of each pass, "fp32" or "bf16".

    Returns:
        The packages, which hold code for CPUs of this machine's kind.

    Raises:
        InputError: Something decides inside of a pass, or torch cannot compile here.
    """
    if decides_inside(network):
        raise InputError(f"{network.name} decides inside of a pass, which is no plain dense network")
    description = Description.of(prepare(network), {})
    values = {"images": torch.zeros(2, *network.spec.input_size)}
    files = []
    for number, precision in enumerate(precisions):
        ready = prepare(network).to(PRECISIONS[precision])
        stretch = stretches(ready)[number]
        module = DensePass(ready, stretch, PRECISIONS[precision]).eval()
        # A package reads memory as it lay in these, and does not ask: `called` gives all values so.
        given = {name: values[name].to(memory_format=torch.channels_last) for name in stretch.reads}
        any_number = {name: {0: torch.export.Dim.DYNAMIC} for name in given}
        files.append(folder / f"pass-{number}.pt2")
        try:
            program = torch.export.export(module, (given,), dynamic_shapes=(any_number,))
            # Freezing lets the compiler lay out the weights, and fuse what follows a convolution into it.
            options = {"freezing": True}
            with quiet("torch.utils.cpp_extension"):  # which wonders where the GPU is
                torch._inductor.aoti_compile_and_package(program, package_path=str(files[-1]), inductor_configs=options)
        except Exception as error:  # no C++ compiler, or a block that it cannot follow: torch raises whatever it meets
            raise InputError(f"torch cannot compile here ahead of time: {first_line(error)}") from error
        about = to_metadata(description, stretch.section) | {READS: stretch.reads}
        files[-1].with_suffix(".json").write_text(json.dumps(about))
        values |= {name.removeprefix(NEXT): value for name, value in module(given).items()}
    return files


def open_packages(folder: Path, threads: int) -> tuple[Description, list[Section], list[Pass]]:
    """Open what `save_packages` wrote. To open it is to run the code in it: only for one's own files.

    Args:
        folder: The folder.
        threads: The number of threads; 0 for torch's choice.

    Returns:
        What the network is, how each pass is used, and what runs each.
    """
    sections, passes = [], []
    for number in range(len(list(folder.glob("pass-*.pt2")))):
        file = folder / f"pass-{number}.pt2"
        about = json.loads(file.with_suffix(".json").read_text())
        description, section = from_metadata(about, file)
        sections.append(section)
        passes.append(called(torch._inductor.aoti_load_package(str(file)), about[READS], threads))
    return description, sections, passes
