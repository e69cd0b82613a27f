"""A recipe: every choice of a run in one validated document, YAML in and out."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from routekit.baselines.depth import orders
from routekit.baselines.pruning import prunings
from routekit.errors import InputError
from routekit.network.branches import AUTO, BranchConfig
from routekit.network.dial import DialRange
from routekit.network.exits import CascadeConfig, ExitConfig
from routekit.objective.objective import ObjectiveWeights
from routekit.registry import nearest, one_of
from routekit.routing.router import RouterConfig
from routekit.training.schedule import TrainingConfig


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class ModelSection(_Section):
    """Which network: a name that `load_backbone` takes, and where its weights come from."""

    name: str = "resnet110"
    weights: str = "auto"


class DataSection(_Section):
    """Which images: "digits", a torchvision set, an ImageFolder tree, some classes of one of these, or several of them.

    val, val_from_test:  where validation images come from
    fill:                what shifted training images are padded with: zeros, or their mean colour
    """

    source: str = "digits"
    root: str | None = None
    download: bool = False
    val: str | None = None
    val_from_test: Annotated[float | None, Field(gt=0, lt=1)] = None
    fill: Literal["zeros", "mean"] = "zeros"
    input_size: Annotated[int | None, Field(ge=8)] = None


# Methods that decide for each image, or not at all; all others are registered.
WAYS = ("routed", "dense", "cascade")


class PruningSection(_Section):
    """How the network is pruned before it is routed: by which method, and to which cost.

    target:  "auto" is half-way to the budget: pruning and routing then take the same share
    below:   only for budgets under this share of the dense cost: larger ones are met by routing alone; behind smaller
             networks it is for all budgets under the dense cost
    """

    method: Annotated[str, one_of("pruning method", prunings)] = "l1"
    target: str = AUTO
    below: Annotated[float, Field(gt=0, le=1)] = 1.0


class Recipe(_Section):
    """All choices of a run.

    method:   "routed" decides for each image what "junctions" names; "dense" and the static methods have a fixed route,
              or fewer channels; a "cascade" is joined from networks that are done, and learns nothing
    pruning:  what is done to a network before it is routed; None for nothing
    smaller:  runs or checkpoints of smaller networks for the same classes, the cheapest first: they answer what they
              are sure of, and the recipe's own network comes last; the junction "cascade" then lies between whole ones
    junctions: what a routed network decides: "skip" (which units run), "branch" (which run in full, and which narrow;
              or which path of a tree an image takes, with `branches.forks`), "exit" (where to stop), "cascade" (whether
              a narrow form of the whole network will do), "again" (whether to look once more, at the image mirrored);
              others decide nothing
    cascade:  how the exit is built that "cascade" stands for
    adaptive_cost: the prices of computing at which one network learns to decide; None for a single budget
    target:   the budget as given ("50%", "1.5e8"); None for a dense network
    training: of the network that the run is about
    dense:    of the dense network, where one has to be fine-tuned first; with 0 epochs, an untrained network is trained
              from scratch as it is routed, and nothing teaches it
    """

    method: Annotated[str, one_of("method", prunings, orders, also=WAYS)] = "routed"
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    target: str | None = None
    pruning: PruningSection | None = None
    smaller: list[str] = []
    junctions: list[Literal["skip", "exit", "branch", "cascade", "again"]] = ["skip"]
    routers: RouterConfig = RouterConfig()
    exits: ExitConfig = ExitConfig()
    branches: BranchConfig = BranchConfig()
    cascade: CascadeConfig = CascadeConfig()
    adaptive_cost: DialRange | None = None
    inference: Literal["hard", "bernoulli"] = "hard"
    objective: ObjectiveWeights = ObjectiveWeights()
    training: TrainingConfig = TrainingConfig()
    dense: TrainingConfig = TrainingConfig()
    seed: Annotated[int, Field(ge=0)] = 0

    @property
    def prunes_below(self) -> float:
        """For which budgets the network is pruned before, as a share of the dense cost."""
        if self.pruning is None:
            return 0.0
        # More images can go on to a pruned network: with a ResNet-56 at 40% to 60% (reports/README.md) that was 0.15 to
        # 0.3 points better than with the network as it is, less than two standard errors. For larger budgets it is a
        # guess.
        return 1.0 if self.smaller else self.pruning.below

    @property
    def freezes(self) -> bool:
        """Whether the network's own weights stay as they are, by default where they need not change."""
        if self.training.frozen is not None:
            return self.training.frozen
        beside = {*self.junctions} - {"again"} == {"cascade"} and self.cascade.own
        return self.method == "routed" and beside and self.pruning is None  # what was pruned has to recover

    def to_yaml(self) -> str:
        """The whole recipe, defaults included."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def static(method: str) -> dict[str, Any]:
    """The settings of a method that decides nothing: whatever a recipe says of routing does not hold for it."""
    return {"method": method, "junctions": [], "pruning": None, "smaller": []}


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with routekit."""
    return sorted(
        f.name.removesuffix(".yaml") for f in resources.files("routekit.recipes").iterdir() if f.name.endswith(".yaml")
    )


def recipe_text(name: str) -> str:
    """The text of a shipped recipe by name, or of a YAML file by path. Raises InputError for neither."""
    path = Path(name)
    if name in shipped_recipes():
        return (resources.files("routekit.recipes") / f"{name}.yaml").read_text()
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path.read_text()
    raise InputError(f"unknown recipe {name!r}: {nearest(name, shipped_recipes())} (or a path to a .yaml file)")


def load_recipe(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a shipped recipe by name, or a YAML file by path; dotted `overrides` ("training.epochs") win, None too.

    Raises InputError that lists every fault at once, each with its line where it is in the file.
    """
    text = recipe_text(name)
    try:
        values, lines = yaml.safe_load(text) or {}, _lines(yaml.compose(text))
    except yaml.YAMLError as error:
        raise InputError(f"recipe {name} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"recipe {name} is no mapping of sections")
    for dotted, value in (overrides or {}).items():
        path = tuple(dotted.split("."))
        _put(values, path, value)
        lines = {place: line for place, line in lines.items() if place[: len(path)] != path}  # the file is not at fault
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InputError(f"recipe {name}: {_faults(error, lines)}") from error


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a value at its place; a section that is not there, or is nothing, begins empty."""
    *sections, key = path
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            return  # what is wrong with it is told with all other faults
    values[key] = value


def _faults(error: ValidationError, lines: dict[tuple[str, ...], int]) -> str:
    """Say what is wrong and where: on which line, if the file says it; a name that there is not, with the nearest."""
    faults: dict[tuple[str, ...], list[str]] = {}
    for fault in error.errors():
        path = tuple(str(part) for part in fault["loc"])
        if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            faults[path] = [f"no such setting: {nearest(path[-1], _fields(path[:-1]))}"]
        else:  # of what can be one thing or another, pydantic tells what is wrong with each
            faults.setdefault(_setting(path), []).append(fault["msg"])
    told = []
    for path, said in sorted(faults.items(), key=lambda each: lines.get(each[0], 0)):
        first, *others = dict.fromkeys(said)
        message = ", or ".join([first, *(each.removeprefix("Input should be ") for each in others)])
        told.append(f"{'.'.join(path)}: {message}" + (f" (line {lines[path]})" if path in lines else ""))
    return "; ".join(told)


def _setting(path: tuple[str, ...]) -> tuple[str, ...]:
    """Of the place of a fault, the setting that it is in."""
    known = 0
    while known < len(path) and path[known] in _fields(path[:known]):
        known += 1
    return path[:known]


def _fields(path: tuple[str, ...]) -> list[str]:
    """What settings there are in the section at `path`."""
    kind: Any = Recipe
    for part in path:
        found = get_type_hints(kind).get(part)
        kind = next((each for each in get_args(found) if hasattr(each, "__annotations__")), found)
    return list(get_type_hints(kind)) if hasattr(kind, "__annotations__") else []


def _lines(node: yaml.Node | None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """On which line each key of a document is, from 1."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    found = {}
    for key, value in node.value:
        here = (*path, str(key.value))
        found[here] = key.start_mark.line + 1
        found |= _lines(value, here)
    return found
