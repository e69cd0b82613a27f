"""`resolve`: what a recipe comes to. All that is left open is decided here, once; nothing below reads a recipe."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from routekit.backbones.load import spec_of
from routekit.backbones.unit import ModelSpec
from routekit.baselines.pruning import prunings
from routekit.cost.target import Reach, parse_amount
from routekit.errors import InputError
from routekit.macs import CONVENTION, describe
from routekit.network.deciders import LEARNED
from routekit.network.pricing import AUTO, PriceRange
from routekit.objective.objective import ObjectiveWeights
from routekit.pipeline.reach import dense_cost, reach_of, sized, smaller_reach
from routekit.recipe import DataSection, Junctions, Recipe, static
from routekit.routing.router import RouterConfig
from routekit.training.schedule import TrainingConfig

NO_BUDGET = "which budget? e.g. --target-flops 50% (of the dense cost) or --target-flops 1.5e8"


class Facts(BaseModel):
    """What is known of the data and the weights once they are there.

    Attributes:
        classes: The number of classes; None while that is not known.
        untrained: Whether the network's classifier has yet to be trained for the data.
        mirrored: Whether an image and its mirror image are of the same class, as far as training goes.
    """

    model_config = ConfigDict(frozen=True)

    classes: int | None = None
    untrained: bool = False
    mirrored: bool = True


class Pruned(BaseModel):
    """By which method a network is pruned before it is routed, and to how many MACs."""

    model_config = ConfigDict(frozen=True)

    method: str
    cost: float


class RunPlan(BaseModel):
    """What a run does, with nothing left open. Costs are in MACs.

    Attributes:
        model, weights: The network's name, and where its weights come from.
        spec: The architecture, and what its images have to look like.
        data: Which images.
        method: "routed", "dense", a static method, or "cascade" of networks that are done.
        dense_cost: What the network costs as it is.
        target: The mean cost that is asked for; None for a dense network.
        pruned: How the network is pruned before it is routed; None: not at all.
        junctions: What is decided, with all settings.
        routers: How the routers of units are built.
        prices: The prices of computing at which the network learns to decide; None for one budget.
        second_look: Whether a second look is tried on validation images.
        smaller: Networks that are done and come before this one, the cheapest first.
        rule: By which certainty these defer.
        average: Whether the mean of the answers of all networks that were asked counts.
        inference: Whether decisions are taken, or sampled.
        objective: What is minimised.
        training: How the network is trained.
        dense: How the dense network is trained first; 0 epochs: not at all.
        dense_first: Whether it is.
        from_scratch: Whether the routed network is trained from scratch, and nothing teaches it.
        seed: Of every random choice.
        notes: What was decided and may surprise, in sentences.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    model: str
    weights: str
    spec: ModelSpec
    data: DataSection
    method: str
    dense_cost: float
    target: float | None
    pruned: Pruned | None = None
    junctions: Junctions = {}
    routers: RouterConfig = RouterConfig()
    prices: PriceRange | None = None
    second_look: bool = False
    smaller: list[str] = []
    rule: str = "confidence"
    average: bool = True
    inference: Literal["hard", "bernoulli"] = "hard"
    objective: ObjectiveWeights = ObjectiveWeights()
    training: TrainingConfig = TrainingConfig()
    dense: TrainingConfig = TrainingConfig()
    dense_first: bool = False
    from_scratch: bool = False
    seed: int = 0
    notes: list[str] = []

    @property
    def kinds(self) -> list[str]:
        """The kinds of junctions that are asked for, a second look included."""
        return [*self.junctions, *(["again"] if self.second_look else [])]

    @property
    def policy(self) -> str | None:
        """By which policy exits decide, if there are any."""
        exits = [junction for junction in self.junctions.values() if junction.policies]
        rules = [getattr(each, "rule", LEARNED) for each in exits]
        return None if not exits else self.objective.policy.kind if LEARNED in rules else rules[0]

    def as_dense(self, *, train: bool) -> "RunPlan":
        """The plan of the dense network that this one begins with: trained first, or as it is."""
        training = self.dense if train else replace(self.dense, epochs=0)
        return self._static("dense", None, training)

    def as_last(self, *, train: bool) -> "RunPlan":
        """The plan of the network behind the smaller ones: pruned half-way to the budget, or the dense one."""
        if self.pruned is None:
            return self.as_dense(train=train)
        return self._static(self.pruned.method, self.pruned.cost, self.training).model_copy(
            update={"dense_first": self.dense_first}
        )

    def _static(self, method: str, target: float | None, training: TrainingConfig) -> "RunPlan":
        nothing: dict[str, Any] = {"junctions": {}, "pruned": None, "smaller": [], "prices": None, "second_look": False}
        more = {"dense_first": False, "from_scratch": False, "notes": [], "training": training}
        return self.model_copy(update={"method": method, "target": target} | nothing | more)

    def lines(self) -> list[str]:
        """Say the plan in a few lines, for people."""
        share = "" if self.target is None else f" = {100 * self.target / self.dense_cost:.1f}% of"
        target = "" if self.target is None else f"{describe(self.target)}{share} "
        said = [
            f"network    {self.model} for {self.data.source}, seed {self.seed}",
            f"cost       {target}{describe(self.dense_cost)}",
        ]
        if self.method != "routed":
            said.append(f"method     {self.method}")
        if self.pruned is not None:
            left = f"{describe(self.pruned.cost)}, {100 * self.pruned.cost / self.dense_cost:.1f}%"
            said.append(f"pruned     {self.pruned.method} to {left}")
        for kind, junction in self.junctions.items():
            values = TypeAdapter(type(junction)).dump_python(junction, mode="json")
            said.append(f"junction   {kind}: {', '.join(f'{name} {value}' for name, value in values.items()) or 'yes'}")
        if self.second_look:
            said.append("junction   again, if it pays on validation images")
        if self.smaller:
            said.append(f"behind     {', '.join(self.smaller)}, by {self.rule}")
        if self.dense_first:
            said.append(f"first      the dense network, {self.dense.epochs:g} epochs")
        frozen = ", its own weights as they are" if self.training.frozen else ""
        said.append(f"training   {self.training.epochs:g} epochs in batches of {self.training.batch_size}{frozen}")
        return [*said, *(f"note       {note}" for note in self.notes), f"convention {CONVENTION}"]


def resolve(recipe: Recipe, facts: Facts | None = None) -> RunPlan:
    """Decide all that a recipe leaves open: percentages, what is "auto", what is pruned to what, which junctions.

    Args:
        recipe: The choices.
        facts: What is known of the data and the weights. None: nothing yet; the plan is what can be said without.

    Returns:
        The plan.

    Raises:
        InputError: A network, weights, a budget, or settings that cannot be.
    """
    facts = facts or Facts()
    check_words(recipe)
    spec = spec_of_recipe(recipe, facts.classes)
    whole, notes = dense_cost(spec), list[str]()
    target = None if recipe.target is None else parse_amount(recipe.target, whole)
    pruned = pruned_to(recipe, target, whole, notes)
    kinds = _kinds(recipe, target, whole, facts, notes)
    left = whole if pruned is None else pruned.cost
    budget = 0.5 if target is None else target / left
    configs = {kind: sized(spec, recipe.junctions[kind], budget) for kind in kinds if kind != "again"}
    from_scratch = facts.untrained and recipe.dense.epochs == 0 and recipe.method != "dense"
    if recipe.smaller and from_scratch:
        raise InputError("the last network of this cascade would come from no dense one: dense.epochs is 0")
    cascade = recipe.junctions.get("cascade")
    plan = RunPlan(
        model=recipe.model.name,
        weights=recipe.model.weights,
        spec=spec,
        data=recipe.data,
        method=recipe.method,
        dense_cost=whole,
        target=target,
        pruned=pruned,
        junctions={} if recipe.smaller else configs,
        routers=recipe.routers,
        prices=_prices(recipe, left),
        second_look="again" in kinds,
        smaller=recipe.smaller,
        rule=getattr(cascade, "rule", "confidence"),
        inference=recipe.inference,
        objective=recipe.objective,
        training=replace(recipe.training, frozen=_freezes(recipe, kinds, pruned) and not from_scratch),
        dense=recipe.dense,
        dense_first=facts.untrained and recipe.method != "dense" and not from_scratch,
        from_scratch=from_scratch,
        seed=recipe.seed,
        notes=notes,
    )
    if target is not None and recipe.method != "cascade":
        _reach(plan).check(target, f"target {recipe.target} = ")
    return plan


def spec_of_recipe(recipe: Recipe, classes: int | None = None) -> ModelSpec:
    """The architecture that a recipe names, with the preprocessing that it asks for."""
    size, data = recipe.data.input_size, recipe.data
    spec = spec_of(recipe.model.name, num_classes=classes, input_size=None if size is None else (3, size, size))
    given: dict[str, Any] = {"mean": data.mean, "std": data.std, "crop": data.crop, "interpolation": data.interpolation}
    channels = spec.input_size[0]
    for name in ("mean", "std"):
        if given[name] is not None and len(given[name]) not in (1, channels):
            raise InputError(f"data.{name} has {len(given[name])} values, the images {channels} channels")
    values = {name: value for name, value in given.items() if value is not None}
    return replace(spec, **values)


def pruned_to(recipe: Recipe, target: float | None, whole: float, notes: list[str]) -> Pruned | None:
    """What is pruned to what before it is routed: half-way to the budget, unless the recipe says how much."""
    pruning = recipe.pruning
    if pruning is None or target is None or recipe.method != "routed":
        return None
    # More images can go on to a pruned network: with a ResNet-56 at 40% to 60% (reports/README.md) that was 0.15 to
    # 0.3 points better than with the network as it is, less than two standard errors. For larger budgets it is a guess.
    below = 1.0 if recipe.smaller else pruning.below
    if target >= below * whole:
        notes.append(f"not pruned: that is for budgets under {below:.0%} (pruning.below)")
        return None
    if pruning.target == AUTO:
        return Pruned(method=pruning.method, cost=math.sqrt(target * whole))
    left = parse_amount(pruning.target, whole)
    if left >= whole:
        raise InputError(f"--prune {pruning.method}:{pruning.target} leaves the network whole")
    return Pruned(method=pruning.method, cost=left)


def _kinds(recipe: Recipe, target: float | None, whole: float, facts: Facts, notes: list[str]) -> list[str]:
    """Which kinds of junctions there are; a second look is left out where it cannot pay."""
    kinds = list(recipe.junctions)
    if "again" not in kinds or recipe.method != "routed":
        return kinds
    once = [kind for kind in kinds if kind != "again"]
    pruning = recipe.pruning
    if recipe.smaller:
        return once
    if pruning is not None and target is not None and target < pruning.below * whole and pruning.below < 1:
        # It is pruned because few images could get to the end: there is nothing to spend on looking at them twice.
        notes.append(f"does not look again: not for budgets under {pruning.below:.0%} (pruning.below)")
        return once
    if not facts.mirrored:
        notes.append(f"does not look again: images of {recipe.data.source} are not mirrored in training, either")
        return once
    return kinds


def _freezes(recipe: Recipe, kinds: Sequence[str], pruned: Pruned | None) -> bool:
    """Whether the network's own weights stay as they are: where all that is added has weights of its own."""
    if recipe.training.frozen is not None:
        return recipe.training.frozen
    if recipe.method != "routed" or pruned is not None or recipe.smaller:  # what was pruned has to recover
        return False
    added = [recipe.junctions[kind] for kind in kinds]
    return bool(added) and all(each.learns == "added" and getattr(each, "own", True) for each in added)


def _prices(recipe: Recipe, left: float) -> PriceRange | None:
    prices = recipe.adaptive_cost
    if prices is None or (prices.is_open and not any(each.policies for each in recipe.junctions.values())):
        return prices
    # What units are worth is learned from all that is minimised; exits go by cross-entropy alone.
    units = any(each.rank == 0 for each in recipe.junctions.values())
    return prices.sized(left, recipe.objective.error_scale if units else 1.0)


def _reach(plan: RunPlan) -> Reach:
    if plan.smaller:
        last = plan.dense_cost if plan.pruned is None else plan.pruned.cost
        return smaller_reach(plan.smaller, last, plan.dense_cost)
    if plan.method in prunings:
        return reach_of(plan.spec, plan.method)
    pruned = None if plan.pruned is None else (plan.pruned.method, plan.pruned.cost)
    return reach_of(plan.spec, plan.method, plan.junctions, plan.routers, plan.prices, pruned)


def run_name(plan: RunPlan, recipe: Recipe) -> str:
    """A folder's name made of what most often tells runs apart."""
    data, pruning = Path(plan.data.source).name or "data", recipe.pruning
    to = [] if pruning is None or pruning.target == AUTO else [pruning.target]
    pruned = [] if plan.pruned is None else [":".join([plan.pruned.method, *to])]
    smaller = [Path(path).resolve().name for path in plan.smaller]
    kinds = ["cascade"] if plan.smaller else plan.kinds
    method = "+".join([*smaller, *pruned, *kinds]) if plan.method == "routed" else plan.method
    adaptive = "adaptive" if plan.prices is not None else None
    model = (
        Path(plan.model.partition(":")[0]).stem + plan.model.partition(":")[2] if ".py:" in plan.model else plan.model
    )
    parts = [model, data, method, adaptive, recipe.target, f"seed{plan.seed}"]
    return "-".join(part.replace(":", "-").replace("/", "-").replace("%", "pct") for part in parts if part)


def needed_by(recipe: Recipe) -> list[str]:
    """The files and runs that a recipe names."""
    return [recipe.model.weights, *recipe.smaller]


def data_of(recipe: Recipe) -> DataSection:
    """Which images a recipe names."""
    return recipe.data


def subject_of(recipe: Recipe) -> dict[str, str]:
    """The network, the images and the weights that a recipe names."""
    return {"network": recipe.model.name, "data": recipe.data.source, "weights": recipe.model.weights}


def lengths_of(recipe: Recipe) -> dict[str, Any]:
    """For how long, and in which batches, a recipe trains: what all methods of a comparison share."""
    return {"training.epochs": recipe.training.epochs, "training.batch_size": recipe.training.batch_size}


def dense_recipe(recipe: Recipe, *, train: bool) -> Recipe:
    """The recipe of the dense network that a recipe begins with: trained first, or as it is."""
    training = recipe.dense if train else replace(recipe.dense, epochs=0)
    return recipe.model_copy(update=static("dense") | {"target": None, "training": training, "adaptive_cost": None})


def check_words(recipe: Recipe) -> None:
    """Raise InputError for choices that do not go together, whatever the network."""
    weights, chosen = recipe.model.weights, list(recipe.junctions.values())
    if weights not in ("auto", "none") and "://" not in weights and not Path(weights).exists():
        raise InputError(f"--weights {weights}: no such file or run")
    if recipe.method == "dense" and recipe.target is not None:
        raise InputError("--method dense meets no budget: `routekit finetune` trains the network as it is")
    if recipe.method == "routed" and not chosen:
        raise InputError("a routed network decides something: --junctions skip, exit, branch or cascade")
    if recipe.method != "routed" and (recipe.adaptive_cost is not None or recipe.pruning is not None):
        raise InputError(f"--method {recipe.method} is a static network: it takes no --prune and no --adaptive-cost")
    if recipe.method not in ("dense", "cascade") and recipe.target is None:
        raise InputError(NO_BUDGET)
    if recipe.smaller and (recipe.method != "routed" or {*recipe.junctions} - {"again"} != {"cascade"}):
        raise InputError("--smaller makes a cascade of whole networks: --junctions cascade alone, --prune or not")
    for junction in chosen:
        junction.check(chosen)
    if "tree" in recipe.junctions and (recipe.pruning is not None or recipe.training.frozen):
        raise InputError("a tree grows from a whole network, and all of it learns: not --prune, frozen")
    if recipe.adaptive_cost is not None:
        if any(each.learns == "added" for each in chosen):
            raise InputError("--adaptive-cost needs decisions that learn: not --junctions cascade")
        if any(each.rank == 0 for each in chosen) and recipe.training.gate != "benefit":
            raise InputError("--adaptive-cost needs routers that learn what a unit is worth: --gate benefit")
        rules = [getattr(each, "rule", LEARNED) for each in chosen if each.policies]
        if any(rule != LEARNED for rule in rules):
            raise InputError(f"--adaptive-cost needs exits that learn: not --policy {rules[0]}")
