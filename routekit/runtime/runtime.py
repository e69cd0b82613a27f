"""What all runtimes have in common, and torch's."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from routekit.errors import InputError
from routekit.execution.executor import Answer
from routekit.execution.prepare import optimize, prepare
from routekit.formats.description import Description
from routekit.manifest import ours, verify
from routekit.network.network import RoutedNetwork
from routekit.network.program import by_position

# A pass of a cascade: values by name -> values by name.
Pass = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


class Runtime(Protocol):
    """A routed network that answers: images `[B, C, H, W]`, normalised, on the CPU -> logits and margins."""

    @property
    def description(self) -> Description:
        """What the network is."""

    def __call__(self, images: Tensor) -> Answer:
        """Answer a batch of any size."""


class TorchRuntime:
    """The sparse executor, on any device. Where positions of features decide, the network itself, which counts them."""

    def __init__(self, network: RoutedNetwork, about: dict[str, Any], device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        prepared = prepare(network.to(self.device))
        self.counted = prepared if by_position(network.steps) else None
        self.executor = optimize(network)
        self.description = Description.of(prepared, about)

    def __call__(self, images: Tensor) -> Answer:
        """Answer a batch of any size."""
        images = images.to(self.device, memory_format=torch.channels_last)
        if self.counted is not None:
            with torch.inference_mode():
                trace = self.counted(images)
            return Answer(trace.logits.cpu(), trace.margins.cpu(), trace.computed.cpu())
        answer = self.executor(images)
        return Answer(answer.logits.cpu(), answer.margins.cpu())


class TwoForms:
    """What runtimes share whose files come in two forms: one for a single image, one for batches.

    `path` is the exported folder or one of its files.
    """

    suffix: str

    def __init__(self, path: Path) -> None:
        self.models: dict[str, Callable[[Tensor], Answer]] = {}
        for file in [path] if path.is_file() else ours(path, f"*{self.suffix}"):
            for part in (file, file.with_suffix(".bin")):
                verify(part)
            text, model = self.open(file)
            self.description, form = Description.from_json(text, file)
            self.models[form] = model

    def open(self, file: Path) -> tuple[str | None, Callable[[Tensor], Answer]]:
        """Read a file: its description, and what answers images. Raises InputError."""
        raise NotImplementedError

    def __call__(self, images: Tensor) -> Answer:
        """Answer a batch of any size: one by one, where there is no form for batches."""
        if "single" not in self.models or (len(images) > 1 and "batch" in self.models):
            return self.models["batch"](images)
        answers = [self.models["single"](image) for image in torch.split(images, 1)]
        return Answer(torch.cat([a.logits for a in answers]), torch.cat([a.margins for a in answers]))


def need(module: str, extra: str) -> Any:
    """Import an optional package.

    Args:
        module: Its name.
        extra: The extra of routekit that installs it.

    Returns:
        The module.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{module} is not installed: pip install 'routekit[{extra}]'") from error
