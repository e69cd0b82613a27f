"""What a run computes on, and where it tells what it does."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from routekit.errors import InputError
from routekit.training.trainer import Progress


@dataclass(frozen=True)
class Hooks:
    """Where a run tells what it does: sentences, warnings, and progress after each step."""

    say: Callable[[str], None] = lambda sentence: None
    warn: Callable[[str], None] = lambda sentence: None
    on_step: Callable[[Progress], None] = lambda progress: None


@dataclass(frozen=True)
class Machine:
    """What a run computes on: `device` is None for the best there is, else "cpu" or "cuda"."""

    device: str | None = None
    hooks: Hooks = field(default_factory=Hooks)

    def accelerator(self) -> Accelerator:
        """Build the accelerator; raises InputError for a device that is not there."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: this machine has no CUDA device that torch can use; try --device cpu")
        # Under hard routing a batch may leave a unit out entirely.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        return Accelerator(cpu=self.device == "cpu", kwargs_handlers=[unused])
