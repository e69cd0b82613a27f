"""A recipe: every choice of a run in one validated document, from and to YAML."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from routekit.backbones.factory import is_factory
from routekit.baselines.depth import orders
from routekit.baselines.pruning import prunings
from routekit.cost.aim import Aim
from routekit.cost.target import Cost
from routekit.data.augment import Fill, Policy
from routekit.documents import parse_yaml, read_document
from routekit.errors import InputError
from routekit.faults import explain, lines_of
from routekit.junctions.junction import Junction
from routekit.junctions.kinds import junctions
from routekit.network.pricing import AUTO, PriceRange
from routekit.objective.objective import ObjectiveWeights
from routekit.registry import nearest, one_of
from routekit.routing.router import RouterConfig
from routekit.training.schedule import TrainingConfig


def _settings(value: Any) -> dict[str, Any]:
    """`[skip, exit]`, or `{exit: {at: stages}}` -> the settings of each kind of junction, by its name."""
    if isinstance(value, dict):
        return {str(kind): each or {} for kind, each in value.items()}
    try:
        return {str(kind): {} for kind in value or []}
    except TypeError:
        raise PydanticCustomError("junction", "name the kinds: [skip, exit]") from None


def _configs(value: Any) -> dict[str, Junction]:
    """The configs of junctions, in the order in which they are attached. All faults are raised at once."""
    found: dict[str, Junction] = {}
    faults: list[InitErrorDetails] = []
    for kind, settings in _settings(value).items():
        try:
            found[kind] = TypeAdapter(junctions[kind]).validate_python(settings)
        except InputError as error:
            unknown = PydanticCustomError("junction", "{said}", {"said": str(error)})
            faults.append({"type": unknown, "loc": (kind,), "input": kind})
        except ValidationError as error:
            for fault in error.errors():
                kept = PydanticCustomError(fault["type"], "{said}", {"said": fault["msg"]})
                faults.append({"type": kept, "loc": (kind, *fault["loc"]), "input": fault["input"]})
    if faults:
        raise ValidationError.from_exception_data("junctions", faults)
    return {kind: found[kind] for kind in junctions.in_order(list(found))}


def _plain(configs: dict[str, Junction]) -> dict[str, Any]:
    return {kind: TypeAdapter(type(each)).dump_python(each, mode="json") for kind, each in configs.items()}


Junctions = Annotated[dict[str, Junction], BeforeValidator(_configs), PlainSerializer(_plain)]


Finite = Annotated[float, Field(allow_inf_nan=False)]
# A deviation under this is none of images on [0, 1].
Deviation = Annotated[float, Field(ge=1e-6, allow_inf_nan=False)]
# How many recipes may stand on each other.
BASES = 20


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


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
        fill: What shifted training images are padded with: zeros, or their mean colour, of pixels ("mean") or of light
            ("decoded-mean").
        augment: What is done to training images beside shifts or crops and mirroring: nothing more ("standard"), or
            "autoaugment" (Cubuk et al., 2019).
        input_size: The height and width of images; None for those of the network.
        mean: The mean of each channel, on images scaled to [0, 1]; None for that of the network.
        std: The standard deviation of each channel, likewise.
        crop: The share of the image, at its centre, that is used; None for that of the network.
        interpolation: How images are resized; None for that of the network.
    """

    source: str = "digits"
    root: str | None = None
    download: bool = False
    val: str | None = None
    val_from_test: Annotated[float | None, Field(gt=0, lt=1)] = None
    fill: Fill = "zeros"
    augment: Policy = "standard"
    input_size: Annotated[int | None, Field(ge=8, le=1024)] = None
    mean: tuple[Finite, ...] | None = None
    std: tuple[Deviation, ...] | None = None
    crop: Annotated[float | None, Field(gt=0, le=1)] = None
    interpolation: Literal["bilinear", "bicubic"] | None = None


class PruningSection(_Section):
    """How the network is pruned before it is routed.

    Attributes:
        method: The method.
        target: The cost after pruning. "auto" is half-way to the budget: pruning and routing save the same share.
        below: Budgets under this share of the dense cost need pruning; routing alone meets larger ones. Behind smaller
            networks, all budgets under the dense cost need it.
    """

    method: Annotated[str, one_of("pruning method", prunings)] = "l1"
    target: Cost = AUTO
    below: Annotated[float, Field(gt=0, le=1)] = 1.0


class Recipe(_Section):
    """All choices of a run.

    Attributes:
        method: "routed" decides for each image what `junctions` names. "dense" and the static methods decide nothing. A
            "cascade" is joined from finished networks, and is not trained. A "ladder" trains forms of the network, and
            chooses a sequence of them for an aim.
        model: Which network.
        data: Which images.
        target: The budget as given ("50%", "1.5e8"); None for a dense network, and where the aim is no budget.
        aim: What a ladder is aimed at, and in which runtime. A target is an aim, too.
        ladder: The forms of a ladder, beside the dense network: the share of its cost, "25%", or also how it is made:
            "l1:25%".
        pruning: How a network is pruned before it is routed; None for not at all.
        smaller: Runs or checkpoints of smaller networks for the same classes, the cheapest first. They answer the
            images of which they are sure, and the recipe's own network comes last.
        junctions: What a routed network decides: the settings of each kind of junction.
        routers: How the routers of units are built.
        adaptive_cost: The prices of computing at which one network learns to decide; None for a single budget.
        inference: Whether decisions are hard or sampled (Table 4b of Wang et al.).
        objective: What is minimised.
        training: How the network of the run is trained.
        dense: How the dense network is trained first, where that is needed. With 0 epochs, an untrained network is
            trained from scratch as it is routed, without a teacher.
        seed: The seed of every random choice.
    """

    method: Annotated[str, one_of("method", prunings, orders, also=["routed", "dense", "cascade", "ladder"])] = "routed"
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    target: str | None = None
    aim: Aim = Aim()
    ladder: list[Cost] = ["50%", "25%", "12%", "6%"]
    pruning: PruningSection | None = None
    smaller: list[str] = []
    junctions: Junctions = {}
    routers: RouterConfig = RouterConfig()
    adaptive_cost: PriceRange | None = None
    inference: Literal["hard", "bernoulli"] = "hard"
    objective: ObjectiveWeights = ObjectiveWeights()
    training: TrainingConfig = TrainingConfig()
    dense: TrainingConfig = TrainingConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def to_yaml(self) -> str:
        """The whole recipe, defaults included."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def static(method: str) -> dict[str, Any]:
    """The settings of a method that decides nothing; they replace those of a recipe for routing."""
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
        return (resources.files("routekit.recipes") / f"{name}.yaml").read_text(encoding="utf-8")
    if path.suffix in (".yaml", ".yml") and path.exists():
        return read_document(path)
    raise InputError(f"unknown recipe {name!r}: {nearest(name, shipped_recipes())} (or a path to a .yaml file)")


def load_recipe(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a shipped recipe by name, or a YAML file by path.

    A recipe may name another one as its `base:`, which has the settings that it does not name itself.

    Args:
        name: The recipe.
        overrides: Settings that replace those of the file, by dotted names ("training.epochs"). None is a value, too.

    Returns:
        The recipe.

    Raises:
        InputError: The recipe has faults: all of them, each with its line if it is in the file.
    """
    values, lines = _document(name, ())
    for dotted, value in (overrides or {}).items():
        path = tuple(dotted.split("."))
        _put(values, path, value)
        lines = {place: line for place, line in lines.items() if place[: len(path)] != path}  # the file is not at fault
    if "\\x00" in repr(values):
        raise InputError(f"recipe {name}: a value holds a zero byte")
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InputError(f"recipe {name}: {explain(error.errors(), lines, Recipe)}") from error


def check_no_code(name: str) -> None:
    """Check that a recipe file does not name a network that code makes: only who uses it may.

    Args:
        name: The recipe.

    Raises:
        InputError: It does.
    """
    model = _document(name, ())[0].get("model")
    made = model.get("name") if isinstance(model, dict) else None
    if isinstance(made, str) and is_factory(made):
        raise InputError(f"recipe {name}: model.name={made} is code, which no recipe runs: name it yourself")


def _document(name: str, seen: tuple[str, ...]) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The settings of a recipe, those of its base included, and the line of each of its own."""
    if len(seen) > BASES:
        raise InputError(f"recipe {seen[0]} has more than {BASES} bases")
    if name in seen:
        raise InputError(f"recipe {name} is its own base: {' -> '.join([*seen, name])}")
    text = recipe_text(name)
    try:
        found, node = parse_yaml(text)
        values, lines = found or {}, lines_of(node)
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
    """Settings over others. Junctions replace all those below them."""
    found = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict) and key != "junctions"
        found[key] = _merged(below[key], value) if both else value
    return found


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a value at its place. A section that is missing or None is made."""
    *sections, key = path
    for section in sections:
        if section == "junctions":
            values[section] = _settings(values.get(section))
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            return  # validation finds this fault, with all others
    values[key] = value
