"""Options that several commands share, and how they become a recipe."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from routekit.pipeline.machine import Machine
    from routekit.recipe import Recipe

# The panels in which `--help` groups options.
WHAT, BUDGET, DATA = "What is made", "Budget", "Data"
METHOD, TRAINING, OUTPUT = "Method", "Training", "Output"

Weights = Annotated[
    str | None, typer.Option(help="auto, none, a dense run's folder, a file or a URL.", rich_help_panel=WHAT)
]
Data = Annotated[
    str | None,
    typer.Option(
        help="digits, cifar10, cifar100, svhn, mnist, fashionmnist, or a folder with train/ and test/.",
        rich_help_panel=DATA,
    ),
]
DataRoot = Annotated[str | None, typer.Option(help="The folder of torchvision's data sets.", rich_help_panel=DATA)]
Download = Annotated[
    bool, typer.Option("--download", help="Download a torchvision set into --data-root.", rich_help_panel=DATA)
]
Val = Annotated[str | None, typer.Option(help="A folder of validation images.", rich_help_panel=DATA)]
ValFromTest = Annotated[
    str | None,
    typer.Option(help="Take this share of the test images for validation: 40%.", rich_help_panel=DATA),
]
Epochs = Annotated[float | None, typer.Option(min=0, help="Epochs of training.", rich_help_panel=TRAINING)]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate.", rich_help_panel=TRAINING)]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of every random choice.", rich_help_panel=TRAINING)]
Out = Annotated[Path, typer.Option(help="The folder that run folders are made in.", rich_help_panel=OUTPUT)]
Name = Annotated[
    str | None,
    typer.Option(help="The run folder's name; by default made of the run's choices.", rich_help_panel=OUTPUT),
]
Device = Annotated[
    str | None, typer.Option(help="cpu or cuda; by default the best there is.", rich_help_panel=TRAINING)
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.", rich_help_panel=OUTPUT)]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout; all else on stderr.", rich_help_panel=OUTPUT)
]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", help="A shipped recipe's name, or a YAML file.", rich_help_panel=METHOD)
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting of the recipe: training.batch_size=64.", rich_help_panel=METHOD),
]
Resume = Annotated[Path | None, typer.Option(help="Go on with this run.", rich_help_panel=OUTPUT)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and stop.", rich_help_panel=OUTPUT)]


def fraction(text: str | None) -> float | None:
    """`40%` or `0.4` -> 0.4. Raises InputError for anything else."""
    from routekit.errors import InputError

    if text is None:
        return None
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise InputError(f"{text!r} is no share: write 40% or 0.4")
    return value


def whole(text: str, what: str) -> int:
    """`8` -> 8. Raises InputError for anything but a whole number from 1 on."""
    from routekit.errors import InputError

    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{text!r} is no {what}: give whole numbers from 1 on")
    return int(text)


def overrides(pairs: list[str] | None) -> dict[str, Any]:
    """`--set a.b=value` -> {"a.b": value}, the value read as YAML."""
    import yaml

    from routekit.errors import InputError

    values: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes key=value, not {pair!r}")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {pair}: {value!r} is no YAML value") from error
    return values


def junction_help() -> str:
    """What --junctions takes, as the registry of junctions says it."""
    from routekit.junctions.words import kinds

    each = "; ".join(f"{name}: {about}" for name, about in kinds().items())
    return (
        f"What is decided, one or several with commas. {each}. By default cascade,again; for budgets under half of the "
        "dense cost cascade, of the network pruned as by --prune l1. Where you name them, only --prune prunes."
    )


def junctions(kinds: str | None) -> list[str] | None:
    """`--junctions skip,exit` -> [skip, exit]. Raises InputError for a kind that there is not."""
    from routekit.errors import InputError
    from routekit.junctions.kinds import junctions as known
    from routekit.registry import nearest

    wanted = [] if kinds is None else [kind.strip() for kind in kinds.split(",")]
    for kind in wanted:
        if kind not in known:
            raise InputError(f"unknown junction {kind!r}: {nearest(kind, known)}; several as skip,exit")
    return list(dict.fromkeys(wanted)) or None


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given: an option that was not is None."""
    return {name: value for name, value in values.items() if value is not None}


def made(planned: "Recipe", method: str | None, wanted: list[str] | None, prune: str | None) -> dict[str, Any]:
    """What is made of the network: a method, or junctions, that are named take the place of all that the recipe says.

    Junctions that the recipe has as well keep its settings. Raises InputError for a static network that is to decide
    something.
    """
    from routekit.baselines.depth import orders
    from routekit.baselines.pruning import prunings
    from routekit.errors import InputError
    from routekit.recipe import static

    if method is not None and (method in orders or method in prunings):
        if wanted is not None or prune is not None:
            raise InputError(f"--method {method} is a static network: it takes no --junctions and no --prune")
        return static(method)
    if method == "cascade":
        raise InputError("--method cascade is what `routekit cascade` makes; of one network: --junctions cascade")
    pruned = {} if prune is None else {"pruning": pruning(prune)}
    if wanted is None:
        return given({"method": method}) | pruned
    kinds: dict[str, Any] = {kind: planned.junctions.get(kind, {}) for kind in wanted}
    return {"method": method or "routed", "junctions": kinds, "pruning": None} | pruned


def decided(
    wanted: list[str], at: str | None, policy: str | None, narrow: str | None, router: str | None, gate: str | None
) -> dict[str, Any]:
    """`--exits stages --policy actor --narrow 30%` -> settings. Raises InputError for what the junctions have not."""
    from routekit.errors import InputError
    from routekit.junctions.kinds import junctions as known
    from routekit.registry import nearest
    from routekit.routing.certainty import certainties
    from routekit.routing.policy import critics

    exits = [kind for kind in wanted if known[kind].policies]
    units = [kind for kind in wanted if known[kind].rank == 0]
    narrowed = [kind for kind in wanted if "width" in known.settings_of(kind) and kind not in exits]
    if (at is not None or policy is not None) and not exits:
        option = "--exits" if at is not None else "--policy"
        raise InputError(f"{option} is for exits: add --junctions exit, or skip,exit")
    if narrow is not None and not narrowed:
        raise InputError("--narrow is for narrow branches and cascades: add --junctions branch or cascade")
    if (router is not None or gate is not None) and not units:
        option = "--router" if router is not None else "--gate"
        raise InputError(f"{option} is for units: add --junctions skip or branch")
    widths = sorted({share for text in narrow.split(",") if (share := fraction(text))}) if narrow else []
    learned = ["actor", *critics]
    if policy is not None and policy not in learned and policy not in certainties:
        raise InputError(f"unknown policy {policy!r}: {nearest(policy, [*learned, *certainties])}")
    settings: dict[str, Any] = {
        "routers.kind": router,
        "training.gate": gate,
        "objective.policy.kind": policy if policy in learned else None,
    }
    for kind in narrowed:  # the branches of a unit from the widest on, the forms of a network from the narrowest
        settings[f"junctions.{kind}.width"] = (widths[::-1] if kind in units else widths) or None
    for kind in exits:
        settings[f"junctions.{kind}.at"] = at
        settings[f"junctions.{kind}.rule"] = policy if policy in certainties else "learned" if policy else None
    return given(settings)


def subject(
    model: str,
    weights: str | None,
    data: str | None,
    data_root: str | None,
    download: bool,
    val: str | None,
    val_from_test: str | None,
) -> dict[str, Any]:
    """Which network and which images, as settings. Raises InputError for what is no share."""
    settings = {
        "model.name": model,
        "model.weights": weights,
        "data.source": data,
        "data.root": data_root,
        "data.download": download or None,
        "data.val": val,
        "data.val_from_test": fraction(val_from_test),
    }
    return given(settings)


def pruning(text: str) -> dict[str, str] | None:
    """`l1:70%`, `l1` for what fits the budget, `none` -> settings. Raises InputError for what is no method and cost."""
    from routekit.errors import InputError

    if text == "none":
        return None
    method, colon, target = text.partition(":")
    if not method or (colon and not target):
        raise InputError(f"--prune takes a method and a cost, l1:70%, or a method alone, not {text!r}")
    return {"method": method, **({"target": target} if target else {})}


def default_recipe(data: str | None) -> str:
    """The recipe for the data: the embedded digits are few, and need a schedule of their own."""
    return "digits" if data is None or re.fullmatch(r"digits(\[[^\]+]*\])?", data) else "default"


def machine(device: str | None, on_step: Any = lambda progress: None) -> "Machine":
    """The machine to run on, telling what it does on stderr. Raises InputError for an unknown device."""
    from routekit.errors import InputError
    from routekit.pipeline.machine import Hooks, Machine

    from .output import say, warn

    if device not in (None, "cpu", "cuda"):
        raise InputError(f"unknown device {device!r}: cpu or cuda")
    # Of several processes, the first one speaks.
    is_first = os.environ.get("RANK", "0") == "0"
    return Machine(device, Hooks(say=say, warn=warn, on_step=on_step) if is_first else Hooks())


def check_resumed(context: typer.Context, *takes: str) -> None:
    """Raise InputError for what stands beside --resume though the plan that goes on has settled it.

    `takes` are the options that are of use nevertheless, beside --device and --json.
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


def check_device(device: str | None) -> None:
    """Raise InputError early for a device that is no device."""
    machine(device)
