"""The plan of a run: all that it does, with nothing left open. The run's folder holds it, and resuming reads it."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from routekit.backbones.unit import ModelSpec
from routekit.cost.aim import Aim
from routekit.macs import CONVENTION, describe
from routekit.network.deciders import LEARNED
from routekit.network.pricing import PriceRange
from routekit.objective.objective import ObjectiveWeights
from routekit.recipe import DataSection, Junctions
from routekit.routing.router import RouterConfig
from routekit.training.schedule import TrainingConfig


class Facts(BaseModel, frozen=True):
    """What is known of the data and the weights once they are loaded.

    Attributes:
        classes: The number of classes; None while it is not known.
        untrained: Whether the network's classifier is not yet trained for the data.
        mirrored: Whether training mirrors images of every class.
    """

    classes: int | None = None
    untrained: bool = False
    mirrored: bool = True


class Pruned(BaseModel, frozen=True):
    """By which method a network is pruned before it is routed, and to how many MACs."""

    method: str
    cost: float


class Form(BaseModel, frozen=True):
    """A form of a network in a ladder: how it is made, and what it costs, MACs."""

    kind: str
    cost: float

    def name(self, whole: float) -> str:
        """Its name, such as `l1-25pct`, in a network that costs `whole` MACs."""
        return f"{self.kind}-{100 * self.cost / whole:.3g}pct"


def _near(path: str) -> str:
    """A path for people: from the working folder on, if it lies there."""
    return path.replace(f"{Path.cwd()}/", "")


class RunPlan(BaseModel):
    """What a run does, with nothing left open. Costs are in MACs.

    Attributes:
        model: The name of the network.
        weights: Where its weights come from.
        spec: The architecture, and what its images have to look like.
        data: Which images.
        method: "routed", "dense", a static method, "cascade" of finished networks, or "ladder".
        dense_cost: What the network costs as it is.
        target: The mean cost to be met; None for a dense network.
        aim: What a ladder is aimed at; None for other methods.
        forms: The forms of a ladder beside the dense network, the cheapest first.
        pruned: How the network is pruned before it is routed; None: not at all.
        junctions: What is decided, with all settings.
        routers: How the routers of units are built.
        prices: The prices of computing at which the network learns to decide; None for one budget.
        second_look: Whether a second look is tried on validation images.
        smaller: Finished networks that run before this one, the cheapest first; or compete with the forms of a ladder.
        rule: The certainty by which they defer.
        average: Whether the answer is the mean of the answers of all networks that ran.
        inference: Whether decisions are hard or sampled.
        objective: What is minimised.
        training: How the network is trained.
        dense: How the dense network is trained, if that is needed.
        dense_first: Whether the dense network is trained first.
        from_scratch: Whether the routed network is trained from scratch, without a teacher.
        seed: The seed of every random choice.
        notes: Decisions that may surprise, in sentences.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    model: str
    weights: str
    spec: ModelSpec
    data: DataSection
    method: str
    dense_cost: float
    target: float | None
    aim: Aim | None = None
    forms: list[Form] = []
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
        """The kinds of junctions, with a second look."""
        return [*self.junctions, *(["again"] if self.second_look else [])]

    @property
    def policy(self) -> str | None:
        """The policy by which exits decide, if there are any."""
        rules = [getattr(each, "rule", LEARNED) for each in self.junctions.values() if each.policies]
        return self.objective.policy.kind if LEARNED in rules else next(iter(rules), None)

    def as_dense(self, *, train: bool) -> "RunPlan":
        """The plan of the dense network with which this one begins; `train`: whether it is trained."""
        return self._static("dense", None, self.dense if train else replace(self.dense, epochs=0))

    def as_last(self, *, train: bool) -> "RunPlan":
        """The plan of the network behind the smaller ones: pruned, or dense; `train`: whether the dense is trained."""
        if self.pruned is None:
            return self.as_dense(train=train)
        return self._static(self.pruned.method, self.pruned.cost, self.training, dense_first=self.dense_first)

    def _static(
        self, method: str, target: float | None, training: TrainingConfig, *, dense_first: bool = False
    ) -> "RunPlan":
        made = {"method": method, "target": target, "training": training, "dense_first": dense_first}
        nothing: dict[str, Any] = {"junctions": {}, "pruned": None, "smaller": [], "prices": None, "notes": []}
        nothing |= {"aim": None, "forms": []}
        return self.model_copy(update=made | nothing | {"second_look": False, "from_scratch": False})

    def lines(self) -> list[str]:
        """The plan in a few lines of text."""
        target, pruned = "", self.pruned
        if self.target is not None:
            target = f"{describe(self.target)} = {100 * self.target / self.dense_cost:.1f}% of "
        said = [
            f"network    {self.model} for {_near(self.data.source)}, seed {self.seed}",
            f"cost       {target}{describe(self.dense_cost)}",
        ]
        if self.method != "routed":
            said.append(f"method     {self.method}")
        if self.aim is not None:
            said.append(f"aim        {self.aim.describe()}")
            shares = [f"{form.kind} to {100 * form.cost / self.dense_cost:.1f}%" for form in self.forms]
            said.append(f"forms      {', '.join([*shares, *map(_near, self.smaller), 'dense'])}")
        if pruned is not None:
            share = 100 * pruned.cost / self.dense_cost
            said.append(f"pruned     {pruned.method} to {describe(pruned.cost)}, {share:.1f}%")
        for kind, junction in self.junctions.items():
            values = TypeAdapter(type(junction)).dump_python(junction, mode="json")
            said.append(f"junction   {kind}: {', '.join(f'{name} {value}' for name, value in values.items()) or 'yes'}")
        if self.second_look:
            said.append("junction   again, if it pays on validation images")
        if self.smaller and self.aim is None:
            said.append(f"behind     {', '.join(map(_near, self.smaller))}, by {self.rule}")
        if self.dense_first:
            said.append(f"first      the dense network, {self.dense.epochs:g} epochs")
        frozen = ", its own weights as they are" if self.training.frozen else ""
        said.append(f"training   {self.training.epochs:g} epochs in batches of {self.training.batch_size}{frozen}")
        return [*said, *(f"note       {note}" for note in self.notes), f"convention {CONVENTION}"]
