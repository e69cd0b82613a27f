"""A recipe: every choice of a run in one validated document, YAML in and out."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from routekit.baselines.depth import orders
from routekit.baselines.pruning import prunings
from routekit.errors import InputError
from routekit.faults import explain, lines_of
from routekit.junctions.junction import Junction
from routekit.junctions.kinds import junctions
from routekit.network.pricing import AUTO, PriceRange
from routekit.objective.objective import ObjectiveWeights
from routekit.registry import nearest, one_of
from routekit.routing.router import RouterConfig
from routekit.training.schedule import TrainingConfig


def junction_settings(value: Any) -> dict[str, Any]:
    """Read `[skip, exit]`, or `{exit: {at: stages}}` -> the settings of each kind, by its name."""
    if isinstance(value, dict):
        return {kind: each or {} for kind, each in value.items()}
    return {str(kind): {} for kind in value or []}


def _configs(value: Any) -> dict[str, Junction]:
    """The configs of junctions. What is wrong in one is told by `load_recipe`, with its place."""
    try:
        found = junction_settings(value)
        return {kind: config_of(kind, found[kind]) for kind in junctions.in_order(list(found))}
    except (InputError, ValidationError, TypeError) as error:
        raise PydanticCustomError("junction", "{said}", {"said": " ".join(str(error).split())}) from error


def config_of(kind: str, settings: Any) -> Junction:
    """The config of a junction. Raises InputError for an unknown kind, ValidationError for wrong settings."""
    return settings if isinstance(settings, Junction) else TypeAdapter(junctions[kind]).validate_python(settings)


def _plain(configs: dict[str, Junction]) -> dict[str, Any]:
    return {kind: TypeAdapter(type(each)).dump_python(each, mode="json") for kind, each in configs.items()}


Junctions = Annotated[dict[str, Junction], BeforeValidator(_configs), PlainSerializer(_plain)]


Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True, arbitrary_types_allowed=True)


class ModelSection(_Section):
    """Which network: a name that `load_backbone` takes, and where its weights come from."""

    name: str = "resnet110"
    weights: str = "auto"


class DataSection(_Section):
    """Which images, and how a network sees them.

    Attributes:
        source: "digits", a torchvision set, a folder with train/ and test/, some classes of one of these, or several.
        root: The folder of torchvision's data sets.
        download: Whether these may be downloaded.
        val: A folder of validation images.
        val_from_test: The share of the test images that is taken for validation.
        fill: What shifted training images are padded with: zeros, or their mean colour.
        input_size: The height and width of images; None for what the network was made for.
        mean, std: Of each channel, on images scaled to [0, 1]; None for what the network was made for.
        crop: The share of an image's centre that is seen; None for what is usual.
        interpolation: How images are resized; None for what is usual.
    """

    source: str = "digits"
    root: str | None = None
    download: bool = False
    val: str | None = None
    val_from_test: Annotated[float | None, Field(gt=0, lt=1)] = None
    fill: Literal["zeros", "mean"] = "zeros"
    input_size: Annotated[int | None, Field(ge=8)] = None
    mean: tuple[Finite, ...] | None = None
    std: tuple[Positive, ...] | None = None
    crop: Annotated[float | None, Field(gt=0, le=1)] = None
    interpolation: Literal["bilinear", "bicubic"] | None = None


# Methods that decide for each image, or not at all; all others are registered.
WAYS = ("routed", "dense", "cascade")


class PruningSection(_Section):
    """How the network is pruned before it is routed.

    Attributes:
        method: By which method.
        target: To which cost. "auto" is half-way to the budget: pruning and routing then take the same share.
        below: Only for budgets under this share of the dense cost: larger ones are met by routing alone. Behind smaller
            networks it is for all budgets under the dense cost.
    """

    method: Annotated[str, one_of("pruning method", prunings)] = "l1"
    target: str = AUTO
    below: Annotated[float, Field(gt=0, le=1)] = 1.0


class Recipe(_Section):
    """All choices of a run.

    Attributes:
        method: "routed" decides for each image what `junctions` names; "dense" and the static methods decide nothing; a
            "cascade" is joined from networks that are done, and learns nothing.
        model: Which network.
        data: Which images.
        target: The budget as given ("50%", "1.5e8"); None for a dense network.
        pruning: What is done to a network before it is routed; None for nothing.
        smaller: Runs or checkpoints of smaller networks for the same classes, the cheapest first: they answer what they
            are sure of, and the recipe's own network comes last.
        junctions: What a routed network decides: the settings of each kind of junction.
        routers: How the routers of units are built.
        adaptive_cost: The prices of computing at which one network learns to decide; None for a single budget.
        inference: Whether decisions are taken, or sampled (Table 4b of Wang et al.).
        objective: What is minimised.
        training: Of the network that the run is about.
        dense: Of the dense network, where one has to be fine-tuned first. With 0 epochs, an untrained network is
            trained from scratch as it is routed, and nothing teaches it.
        seed: Of every random choice.
    """

    method: Annotated[str, one_of("method", prunings, orders, also=WAYS)] = "routed"
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    target: str | None = None
    pruning: PruningSection | None = None
    smaller: list[str] = []
    junctions: Junctions = {}
    routers: RouterConfig = RouterConfig()
    adaptive_cost: PriceRange | None = None
    inference: Literal["hard", "bernoulli"] = "hard"
    objective: ObjectiveWeights = ObjectiveWeights()
    training: TrainingConfig = TrainingConfig()
    dense: TrainingConfig = TrainingConfig()
    seed: Annotated[int, Field(ge=0)] = 0

    def to_yaml(self) -> str:
        """The whole recipe, defaults included."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def static(method: str) -> dict[str, Any]:
    """The settings of a method that decides nothing: whatever a recipe says of routing does not hold for it."""
    return {"method": method, "junctions": {}, "pruning": None, "smaller": []}


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
    """Read a shipped recipe by name, or a YAML file by path.

    A recipe may name another one as its `base:` what it does not say itself is as there.

    Args:
        name: The recipe.
        overrides: Settings that win, by dotted names ("training.epochs"); None is a value, too.

    Returns:
        The recipe.

    Raises:
        InputError: All faults at once, each with its line where it is in the file.
    """
    values, lines = _document(name, ())
    for dotted, value in (overrides or {}).items():
        path = tuple(dotted.split("."))
        _put(values, path, value)
        lines = {place: line for place, line in lines.items() if place[: len(path)] != path}  # the file is not at fault
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        faults = [fault for fault in error.errors() if fault["type"] != "junction"]
        raise InputError(f"recipe {name}: {explain([*faults, *_junction_faults(values)], lines, Recipe)}") from error


def _document(name: str, seen: tuple[str, ...]) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The settings of a recipe, those of its base included, and on which line each of its own is."""
    if name in seen:
        raise InputError(f"recipe {name} is its own base: {' -> '.join([*seen, name])}")
    text = recipe_text(name)
    try:
        values, lines = yaml.safe_load(text) or {}, lines_of(yaml.compose(text))
    except yaml.YAMLError as error:
        raise InputError(f"recipe {name} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"recipe {name} is no mapping of sections")
    base = values.pop("base", None)
    if base is None:
        return values, lines
    below, _ = _document(str(base), (*seen, name))
    return _merged(below, values), lines


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings over others; junctions that are named take the place of all that are below."""
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict) and key != "junctions"
        found[key] = _merged(below[key], value) if both else value
    return found


def _junction_faults(values: dict[str, Any]) -> list[Any]:
    """What is wrong with the junctions of a document, each fault at its place."""
    faults: list[Any] = []
    try:
        given = junction_settings(values.get("junctions"))
    except TypeError:
        return [{"type": "junction", "loc": ("junctions",), "msg": "name the kinds: [skip, exit]"}]
    for kind, settings in given.items():
        try:
            config_of(kind, settings)
        except InputError as error:
            faults.append({"type": "junction", "loc": ("junctions", kind), "msg": str(error)})
        except ValidationError as error:
            faults += [{**fault, "loc": ("junctions", kind, *fault["loc"])} for fault in error.errors()]
    return faults


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a value at its place; a section that is not there, or is nothing, begins empty."""
    *sections, key = path
    for section in sections:
        if section == "junctions":
            values[section] = junction_settings(values.get(section))
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            return  # what is wrong with it is told with all other faults
    values[key] = value
