"""A network as it is shipped to each runtime, in each precision."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from routekit.backbones.unit import ModelSpec
from routekit.bench.contest import Contender
from routekit.bench.forms import PACKAGES, check_installed
from routekit.errors import InputError
from routekit.formats.checkpoint import save_network
from routekit.formats.sections import decides_inside, stretches
from routekit.manifest import MANIFEST
from routekit.network.network import RoutedNetwork
from routekit.runtime.drive import Passes

# In which precisions each runtime computes. The first three are torch's: as it is, compiled as it runs, and before.
RUNTIMES = {
    "torch": ("fp32", "bf16"),
    "compile": ("fp32", "bf16"),
    "aot": ("fp32", "bf16"),
    "onnx": ("fp32", "int8"),
    "openvino": ("fp32", "int8"),
}


def check_runtime(name: str) -> str:
    """Check that the packages of a runtime are installed -> the version of the one that computes.

    Args:
        name: A name in `RUNTIMES`.

    Returns:
        The version.

    Raises:
        InputError: A package is not installed.
    """
    if name not in PACKAGES:
        return torch.__version__
    check_installed(name)
    return version(PACKAGES[name][0]) if PACKAGES[name] else torch.__version__


@dataclass(frozen=True)
class Shipped:
    """Writes the files of a network, each when it is asked for.

    Attributes:
        network: The network.
        folder: Where its files are written.
        about: The classes, for the files.
        calibration: Makes training images `[N, C, H, W]`, normalised, by which passes are quantised.
        say: What shows messages.
        source: The specification of a user's own network.
    """

    network: RoutedNetwork
    folder: Path
    about: dict[str, Any]
    calibration: Callable[[], Tensor]
    say: Callable[[str], None]
    source: ModelSpec | None = None
    made: dict[str, Path] = field(default_factory=dict)

    @cached_property
    def plain(self) -> bool:
        """Whether its passes are plain dense networks."""
        return not decides_inside(self.network)

    def contender(self, runtime: str, precisions: tuple[str, ...]) -> Contender:
        """Write the files for a runtime.

        Args:
            runtime: A name in `RUNTIMES`.
            precisions: Of each pass; one for all. For files of other runtimes than torch's, one.

        Returns:
            How they are opened.

        Raises:
            RoutekitError: The network cannot be had in that form, or not on this machine.
        """
        if not self.plain and (runtime in ("compile", "aot") or precisions != ("fp32",)):
            raise InputError(
                "something decides inside of a pass: only plain passes are compiled, or in other precisions"
            )
        if runtime in ("torch", "compile"):
            folder = self._checkpoint(precisions)
            passes = Passes(folder, self._of_each(precisions) if self.plain else (), self.source)
        elif runtime == "aot":
            passes = Passes(
                self._once(f"aot-{'-'.join(precisions)}", lambda folder: self._packages(folder, precisions))
            )
        else:
            passes = Passes(self._files(runtime, *precisions))
        return Contender(runtime, passes, self.plain)

    def _of_each(self, precisions: tuple[str, ...]) -> tuple[str, ...]:
        return precisions * len(stretches(self.network)) if len(precisions) == 1 else precisions

    def _once(self, name: str, write: Callable[[Path], object]) -> Path:
        """Make a folder of files unless it is made."""
        if name not in self.made:
            folder = self.folder / name
            self.folder.mkdir(exist_ok=True)
            write(folder)
            self.made[name] = folder
        return self.made[name]

    def _checkpoint(self, precisions: tuple[str, ...]) -> Path:
        name = "bf16" if precisions == ("bf16",) else "fp32"
        dtype = {"bf16": torch.bfloat16, "fp32": None}[name]
        return self._once(
            f"torch-{name}", lambda folder: save_network(folder, self.network, about=self.about, dtype=dtype)
        )

    def _packages(self, folder: Path, precisions: tuple[str, ...]) -> None:
        from routekit.runtime.pass_packages import save_packages

        self.say(f"compiling {self.folder.name} in {', '.join(precisions)} ahead of time")
        folder.mkdir(exist_ok=True)
        save_packages(folder, self.network, self._of_each(precisions))

    def _files(self, runtime: str, precision: str) -> Path:
        from routekit.formats.onnx.file import save_onnx
        from routekit.formats.onnx.passes import save_passes

        if not self.plain:
            onnx = self._once("onnx", lambda folder: save_onnx(folder, self.network, self.about))
            if runtime == "onnx":
                return onnx
            from routekit.formats.openvino import save_openvino

            return self._once("openvino", lambda folder: save_openvino(folder, sorted(onnx.glob("*.onnx"))))
        passes = self._once("passes", lambda folder: save_passes(folder, self.network, self.about))
        if precision == "fp32":
            return passes
        return self._once(f"{runtime}-int8", lambda folder: self._quantise(passes, folder, runtime))

    def _quantise(self, passes: Path, folder: Path, runtime: str) -> None:
        from routekit.runtime.quantize import quantize_passes

        self.say(f"quantising {self.folder.name} for {runtime}")
        shutil.copytree(passes, folder)
        quantize_passes(folder, self.calibration(), runtime=runtime)


def size_of(contender: Contender) -> int:
    """The bytes of the files of a contender, less what only describes them."""
    files = contender.passes.folder.glob("*.pt2" if contender.runtime == "aot" else "*")
    return sum(file.stat().st_size for file in files if file.is_file() and file.name != MANIFEST)
