"""What all runtimes have in common, and torch's."""

import importlib
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from routekit.errors import InputError
from routekit.execution.executor import Answer
from routekit.execution.prepare import optimize, prepare
from routekit.formats.checkpoint import load, read_about
from routekit.formats.description import Description
from routekit.network.network import RoutedNetwork


class Runtime(Protocol):
    """A routed network that answers: images [B, C, H, W], normalised, on the CPU -> logits and margins."""

    @property
    def description(self) -> Description:
        """What the network is."""

    def __call__(self, images: Tensor) -> Answer:
        """Answer a batch of any size."""


class TorchRuntime:
    """The sparse executor, on any device."""

    def __init__(self, network: RoutedNetwork, about: dict[str, Any], device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self.executor = optimize(network.to(self.device))
        self.description = Description.of(prepare(network), about)

    @classmethod
    def load(cls, path: Path, device: torch.device | None = None) -> "TorchRuntime":
        """Open a run or a compact checkpoint. Raises InputError."""
        return cls(load(path), read_about(path), device)

    def __call__(self, images: Tensor) -> Answer:
        """Answer a batch of any size."""
        answer = self.executor(images.to(self.device, memory_format=torch.channels_last))
        return Answer(answer.logits.cpu(), answer.margins.cpu())


class TwoForms:
    """What runtimes share whose files come in two forms: one for a single image, one for batches."""

    def __init__(self, path: Path, suffix: str) -> None:
        self.models: dict[str, Any] = {}
        for file in [path] if path.is_file() else sorted(path.glob(f"*{suffix}")):
            text, model = self.open(file)
            self.description, form = Description.from_json(text, file)
            self.models[form] = model

    def open(self, file: Path) -> tuple[str | None, Any]:
        """Read a file: its description, and a model to be run. Raises InputError."""
        raise NotImplementedError

    def run(self, model: Any, images: Tensor) -> Answer:
        """Run an opened model."""
        raise NotImplementedError

    def __call__(self, images: Tensor) -> Answer:
        """Answer a batch of any size: one by one, where there is no form for batches."""
        form = "single" if "single" in self.models and (len(images) == 1 or "batch" not in self.models) else "batch"
        if form == "batch":
            return self.run(self.models[form], images)
        answers = [self.run(self.models[form], image) for image in torch.split(images, 1)]
        return Answer(torch.cat([a.logits for a in answers]), torch.cat([a.margins for a in answers]))


def need(module: str, extra: str) -> Any:
    """Import an optional package. Raises InputError that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{module} is not installed: pip install 'routekit[{extra}]'") from error
