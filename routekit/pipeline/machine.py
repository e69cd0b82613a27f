"""What a run computes on, and where it reports what it does."""

import os
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from routekit.errors import InputError
from routekit.registry import nearest
from routekit.training.log import Progress

# What Accelerate knows, and works offline if its own settings say so.
TRACKERS = ("tensorboard", "wandb", "trackio", "mlflow")


@dataclass(frozen=True)
class Hooks:
    """Where a run reports what it does: sentences, warnings, and progress after each step."""

    say: Callable[[str], None] = lambda sentence: None
    warn: Callable[[str], None] = lambda sentence: None
    on_step: Callable[[Progress], None] = lambda progress: None


@dataclass(frozen=True)
class Machine:
    """What a run computes on.

    Attributes:
        device: "cpu" or "cuda"; None for the best there is.
        hooks: Where it reports what it does.
        command: The command line that it carries out, for records.
        track: The tracker that is told of training: "tensorboard", "wandb", "trackio" or "mlflow"; None for none.
    """

    device: str | None = None
    hooks: Hooks = field(default_factory=Hooks)
    command: str | None = None
    track: str | None = None

    def __post_init__(self) -> None:
        """Raise InputError if there is no such tracker, or its package is not installed."""
        if self.track is not None:
            check_tracker(self.track)

    def accelerator(self, run: Path | None = None) -> Accelerator:
        """Make the accelerator.

        Args:
            run: The folder of the run of whose training a tracker is told; None for none.

        Returns:
            The accelerator.

        Raises:
            InputError: This machine does not have the device.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("device=cuda: this machine has no CUDA device that torch can use; try device=cpu")
        # Under hard routing, no image of a batch may run a unit.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        # On a CPU, `accelerate launch` prepares for as many processes as it is asked for, and starts one.
        if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ and "RANK" not in os.environ:
            raise InputError(
                "several processes were asked for, and one came: on CPUs `accelerate launch` starts one; start them "
                "with `torchrun ... -m routekit_cli.main convert ...`, which works on GPUs as well"
            )
        # Of other accelerators, some lack the float64 in which costs are counted.
        on_cpu = self.device == "cpu" or not torch.cuda.is_available()
        track = None if run is None else self.track
        try:
            return Accelerator(cpu=on_cpu, kwargs_handlers=[unused], log_with=track, project_dir=run)
        except ValueError as error:  # variables of torchrun or Accelerate that say nothing, or not all
            raise InputError(f"the variables of this environment are no launch of processes: {error}") from error

    def environment(self) -> dict[str, Any]:
        """Where and when a figure was measured, for its record."""
        accelerator = self.accelerator()
        device, processes = accelerator.device, accelerator.num_processes
        return {
            "date": datetime.now(UTC).date().isoformat(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "routekit": version("routekit"),
            **({"processes": processes} if processes > 1 else {}),
            **({} if self.command is None else {"command": self.command}),
        }


def check_tracker(name: str) -> None:
    """Raise InputError if there is no such tracker, or its package is not installed: Accelerate would go on without."""
    from accelerate.tracking import get_available_trackers

    if name not in TRACKERS:
        raise InputError(f"track={name}: {nearest(name, TRACKERS)}")
    if name not in {str(each.value) for each in get_available_trackers()}:
        raise InputError(f"track={name} needs a package that is not installed: pip install {name}")


def count_threads(threads: int | None) -> int:
    """How many threads of the CPU are used.

    Args:
        threads: The number; None for all cores.

    Returns:
        The number.

    Raises:
        InputError: It is more than the cores of this machine.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads is not None and threads > cores:
        raise InputError(f"aim.threads={threads}: this machine has {cores} cores")
    return threads or cores


def processor_name() -> str:
    """The name of the processor, and which of its vector instructions torch uses."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"
