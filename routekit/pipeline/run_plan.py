"""The plan of a run: all that it does, with nothing left open. It lies in the run's folder, and resuming reads it."""

from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from routekit.backbones.unit import ModelSpec
from routekit.macs import CONVENTION, describe
from routekit.network.deciders import LEARNED
from routekit.network.pricing import PriceRange
from routekit.objective.objective import ObjectiveWeights
from routekit.recipe import DataSection, Junctions
from routekit.routing.router import RouterConfig
from routekit.training.schedule import TrainingConfig


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
