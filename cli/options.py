"""Options that several commands share, and what they name."""

import os
import shlex
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from routekit.pipeline.machine import Machine
    from routekit.recipe import DataSection

# The words of the command line that is carried out, without `routekit`.
words: ContextVar[list[str]] = ContextVar("words")
# The panels in which `--help` groups options.
WHAT, BUDGET, DATA = "What is made", "Budget", "Data"
METHOD, TRAINING, OUTPUT = "Method", "Training", "Output"


def option(text: str, panel: str | None = None, *names: str, **settings: Any) -> Any:
    """An option of a command.

    Args:
        text: Its help.
        panel: The panel of `--help` in which it is.
        *names: Its names, if they are not made from the parameter.
        **settings: Further settings of `typer.Option`.

    Returns:
        What `Annotated` takes.
    """
    return typer.Option(*names, help=text, rich_help_panel=panel, **settings)


def share(text: str) -> float:
    """`40%` or `0.4` -> 0.4. Raises InputError for anything else."""
    from routekit.errors import InputError

    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise InputError(f"{text!r} is no share: write 40% or 0.4")
    return value


def here(text: str) -> str:
    """`hf://user/name` -> its folder on this machine, which is fetched; anything else stays. Raises InputError."""
    if not text.startswith("hf://"):
        return text
    from routekit.hub import local

    return str(local(text))


def path(text: str) -> Path:
    """A path, or `hf://user/name`, as a path."""
    return Path(here(text))


def saved(text: str, parser: Callable[[str], Any] = path) -> Any:
    """An argument that names a network as it was saved, here or on the Hugging Face Hub.

    Args:
        text: Its help.
        parser: `here`, where it may be another word, too.

    Returns:
        What `Annotated` takes.
    """
    return typer.Argument(help=text, parser=parser)


SETS = "digits, cifar10, cifar100, svhn, mnist, fashionmnist"
Weights = Annotated[str | None, option("auto, none, the run of a dense network, a file, or a URL.", WHAT)]
Data = Annotated[str | None, option(f"{SETS}, or a folder with train/ and test/.", DATA)]
DataRoot = Annotated[str | None, option("The folder of torchvision's data sets.", DATA)]
Download = Annotated[bool, option("Download a torchvision data set into --data-root.", DATA, "--download")]
Val = Annotated[str | None, option("A folder of validation images.", DATA)]
ValFromTest = Annotated[
    float | None, option("The share of the test images to use for validation: 40%.", DATA, parser=share)
]
Epochs = Annotated[float | None, option("The number of training epochs.", TRAINING, min=0)]
LearningRate = Annotated[float | None, option("The highest learning rate.", TRAINING)]
Seed = Annotated[int | None, option("The seed of every random choice.", TRAINING, min=0)]
Out = Annotated[Path, option("The folder in which the run's folder is made.", OUTPUT)]
Name = Annotated[str | None, option("The name of the run's folder. Default: made from the settings.", OUTPUT)]
Device = Annotated[str | None, option("cpu or cuda. Default: cuda if there is one.", TRAINING)]
Force = Annotated[bool, option("Replace what exists.", OUTPUT, "--force")]
Json = Annotated[bool, option("Print one JSON document on stdout, and all else on stderr.", OUTPUT, "--json")]
RecipeName = Annotated[str | None, option("The name of a recipe of routekit, or a YAML file.", METHOD, "--recipe")]
Set = Annotated[list[str] | None, option("Any setting of the recipe: training.batch_size=64.", METHOD, "--set")]
Track = Annotated[
    str | None,
    option("Tell a tracker of the training, too: tensorboard, wandb, trackio or mlflow, if it is installed.", OUTPUT),
]
Resume = Annotated[Path | None, option("Continue this run.", OUTPUT)]
TargetMs = Annotated[float | None, option("Mean milliseconds of an image, measured on this machine.", BUDGET)]
TargetSpeedup = Annotated[
    float | None, option("How many times as fast as the dense network in float32, on average.", BUDGET)
]
MaxDrop = Annotated[
    float | None,
    option("The fastest that loses at most so many points of accuracy on validation images: 0.5.", BUDGET, min=0),
]
MaxSize = Annotated[str | None, option("The most that the files of all passes may have: 5MB.", BUDGET)]
Runtime = Annotated[str | None, option("Where time counts: onnx (the default), openvino or torch.", BUDGET)]
Precision = Annotated[
    str | None, option("fp32, bf16 (torch), int8 (onnx, openvino), or auto: the fastest of each pass.", BUDGET)
]
Batch = Annotated[int | None, option("How many images come at once. Default: 1.", BUDGET, min=1)]
Threads = Annotated[int | None, option("CPU threads. Default: all cores.", BUDGET, min=1)]
DryRun = Annotated[bool, option("Print the plan, and stop.", OUTPUT, "--dry-run")]


def listed(text: str | None) -> list[str]:
    """`a, b,a` -> [a, b]."""
    return list(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def batch_sizes(text: str) -> list[int]:
    """`1,8` -> [1, 8]. Raises InputError for anything but whole numbers from 1 on."""
    from routekit.errors import InputError

    for size in listed(text):
        if not size.isdecimal() or len(size) > 18 or int(size) < 1:
            raise InputError(f"{size!r} is no batch size: give whole numbers from 1 on")
    return [int(size) for size in listed(text)]


def junction_help() -> str:
    """The help of --junctions, from the registry of junctions."""
    from routekit.junctions.words import kinds

    each = "; ".join(f"{name}: {about}" for name, about in kinds().items())
    return (
        f"What is decided, one kind or several with commas. {each}. Default: cascade,again; for budgets under half of "
        "the dense cost, cascade after --prune l1. If you give --junctions, only --prune prunes."
    )


def images(
    data: str | None, data_root: str | None, val: str | None = None, val_from_test: float | None = None
) -> "DataSection | None":
    """The images that a user gives for a finished network.

    Args:
        data: The value of --data.
        data_root: The value of --data-root.
        val: The value of --val.
        val_from_test: The value of --val-from-test.

    Returns:
        The images; None for those of the run.

    Raises:
        InputError: One of the other options without --data.
    """
    from routekit.errors import InputError
    from routekit.recipe import DataSection

    if data is not None:
        return DataSection(source=data, root=data_root, val=val, val_from_test=val_from_test)
    for flag, value in (("--data-root", data_root), ("--val", val), ("--val-from-test", val_from_test)):
        if value is not None:
            raise InputError(f"{flag} goes with --data: a run has its own images")
    return None


def machine(device: str | None, on_step: Any = lambda progress: None, track: str | None = None) -> "Machine":
    """The machine to run on. It writes sentences and warnings to stderr.

    Args:
        device: The value of --device.
        on_step: Called with the progress after each training step.
        track: The value of --track.

    Returns:
        The machine.

    Raises:
        InputError: The device is unknown.
    """
    from routekit.errors import InputError
    from routekit.pipeline.machine import Hooks, Machine

    from .output import say, warn

    if device not in (None, "cpu", "cuda"):
        raise InputError(f"unknown device {device!r}: cpu or cuda")
    # Of several processes, the first one writes.
    is_first = os.environ.get("RANK", "0") == "0"
    hooks = Hooks(say=say, warn=warn, on_step=on_step) if is_first else Hooks()
    return Machine(device, hooks, shlex.join(["routekit", *words.get()]), track)


def check_resumed(context: typer.Context, *takes: str) -> None:
    """Check that no option is given beside --resume that the plan of the run already decides.

    Args:
        context: The command line.
        *takes: The options that are of use nevertheless, beside --device and --json.

    Raises:
        InputError: There is such an option, or a model.
    """
    from routekit.errors import InputError

    useful = {"--resume", "--device", "--json", *takes}
    refused = [
        parameter.name.upper() if parameter.param_type_name == "argument" else parameter.opts[0]
        for parameter in context.command.params
        if (source := context.get_parameter_source(parameter.name)) is not None
        and source.name == "COMMANDLINE"
        and not useful & set(parameter.opts)
    ]
    if refused:
        raise InputError(f"--resume goes on with what its own folder says: give no {', '.join(refused)}")
