"""Options that several commands share, and how they become a recipe."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from routekit.pipeline.machine import Machine
    from routekit.recipe import Recipe

Weights = Annotated[str | None, typer.Option(help="auto, none, a dense run's folder, a file or a URL.")]
Data = Annotated[
    str | None,
    typer.Option(help="digits, cifar10, cifar100, svhn, mnist, fashionmnist, or a folder with train/ and test/."),
]
DataRoot = Annotated[str | None, typer.Option(help="The folder of torchvision's data sets.")]
Download = Annotated[bool, typer.Option("--download", help="Download a torchvision set into --data-root.")]
Val = Annotated[str | None, typer.Option(help="A folder of validation images.")]
ValFromTest = Annotated[str | None, typer.Option(help="Take this share of the test images for validation: 40%.")]
Epochs = Annotated[float | None, typer.Option(min=0, help="Epochs of training.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of every random choice.")]
Out = Annotated[Path, typer.Option(help="The folder that run folders are made in.")]
Name = Annotated[str | None, typer.Option(help="The run folder's name; by default made of the run's choices.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; by default the best there is.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; all else on stderr.")]
RecipeName = Annotated[str | None, typer.Option("--recipe", help="A shipped recipe's name, or a YAML file.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Any setting of the recipe: training.batch_size=64.")]
Resume = Annotated[Path | None, typer.Option(help="Go on with this run.")]


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


KINDS = ("skip", "exit", "branch", "cascade", "again")


def junctions(kinds: str | None) -> list[str] | None:
    """`--junctions skip,exit` -> [skip, exit]. Raises InputError for a kind that there is not."""
    from routekit.errors import InputError
    from routekit.registry import nearest

    wanted = [] if kinds is None else [kind.strip() for kind in kinds.split(",")]
    for kind in wanted:
        if kind not in KINDS:
            raise InputError(f"unknown junction {kind!r}: {nearest(kind, KINDS)}; several as skip,exit")
    return list(dict.fromkeys(wanted)) or None


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given: an option that was not is None."""
    return {name: value for name, value in values.items() if value is not None}


def made(method: str | None, wanted: list[str] | None, prune: str | None) -> dict[str, Any]:
    """What is made of the network: a method, or junctions, that are named take the place of all that the recipe says.

    Raises InputError for a static network that is to decide something.
    """
    from routekit.baselines.depth import orders
    from routekit.baselines.pruning import prunings
    from routekit.errors import InputError
    from routekit.recipe import static

    if method is not None and (method in orders or method in prunings):
        if wanted is not None or prune is not None:
            raise InputError(f"--method {method} is a static network: it takes no --junctions and no --prune")
        return static(method)
    pruned = {} if prune is None else {"pruning": pruning(prune)}
    if wanted is None:
        return given({"method": method}) | pruned
    return {"method": method or "routed", "junctions": wanted, "pruning": None} | pruned


def decided(
    wanted: list[str], at: str | None, policy: str | None, narrow: str | None, router: str | None, gate: str | None
) -> dict[str, Any]:
    """`--exits stages --policy actor --narrow 30%` -> settings. Raises InputError for what the junctions have not."""
    from routekit.errors import InputError
    from routekit.registry import nearest
    from routekit.routing.certainty import certainties
    from routekit.routing.policy import critics

    if (at is not None or policy is not None) and "exit" not in wanted:
        option = "--exits" if at is not None else "--policy"
        raise InputError(f"{option} is for exits: add --junctions exit, or skip,exit")
    if narrow is not None and not {"branch", "cascade"} & set(wanted):
        raise InputError("--narrow is for narrow branches and cascades: add --junctions branch or cascade")
    if (router is not None or gate is not None) and not {"skip", "branch"} & set(wanted):
        option = "--router" if router is not None else "--gate"
        raise InputError(f"{option} is for units: add --junctions skip or branch")
    keeps = sorted({share for text in narrow.split(",") if (share := fraction(text))}) if narrow else []
    learned = ["actor", *critics]
    if policy is not None and policy not in learned and policy not in certainties:
        raise InputError(f"unknown policy {policy!r}: {nearest(policy, [*learned, *certainties])}")
    settings = {
        "routers.kind": router,
        "training.gate": gate,
        "branches.keep": keeps[::-1] or None if "branch" in wanted else None,
        "cascade.keep": keeps or None if "cascade" in wanted else None,
        "exits.at": at,
        "exits.rule": policy if policy in certainties else None,
        "objective.policy.kind": policy if policy in learned else None,
    }
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


def run_name(recipe: "Recipe") -> str:
    """A folder's name made of what most often tells runs apart."""
    from routekit.network.branches import AUTO

    data = Path(recipe.data.source).name or "data"
    pruning, adaptive = recipe.pruning, "adaptive" if recipe.adaptive_cost else None
    left = [] if pruning is None or pruning.target == AUTO else [pruning.target]
    pruned = [] if pruning is None else [":".join([pruning.method, *left])]
    smaller = [Path(path).resolve().name for path in recipe.smaller]
    method = "+".join([*smaller, *pruned, *recipe.junctions]) if recipe.method == "routed" else recipe.method
    parts = [recipe.model.name, data, method, adaptive, recipe.target, f"seed{recipe.seed}"]
    return "-".join(part.replace(":", "-").replace("/", "-").replace("%", "pct") for part in parts if part)


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
