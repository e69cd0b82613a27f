"""The routed network: a program, and the modules that its steps call."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from routekit.backbones.narrow import stand_alone
from routekit.backbones.unit import Backbone, Fold, ModelSpec, ResidualUnit, Sink, evaluating
from routekit.errors import InputError
from routekit.network.deciders import Decider
from routekit.network.execution import Execution, sparse
from routekit.network.forward import forward
from routekit.network.paths import first_path
from routekit.network.pricing import PriceConditioning
from routekit.network.program import (
    Classify,
    Head,
    Stem,
    Step,
    Stop,
    Units,
    View,
    columns_of,
    forms_of,
    layout_of,
    mark_kept,
    passes_of,
    units_run,
)
from routekit.network.state import ForwardState
from routekit.routing.decision import Layout, RouteTrace
from routekit.routing.gate import Gate, hard
from routekit.routing.router import RouterBank


class RoutedNetwork(nn.Module):
    """A network in which each image runs only through what its decisions choose.

    It is a program, and all that asks what the network is reads the program. A gate turns scores into weights, an
    execution turns weights into features.

    Attributes:
        steps: The program.
        blueprint: How the network was made, for a file: see `routekit.junctions.blueprint`.
        pricing: What lets it decide at several prices of computing. None for one budget.
        stands_alone: Whether narrow branches and forms have weights of their own.
        folded: The batch norms that are in the convolutions before them, by their paths in this module.
    """

    def __init__(
        self, steps: Sequence[Step], *, blueprint: Any = None, pricing: PriceConditioning | None = None
    ) -> None:
        super().__init__()
        self.steps, self.blueprint, self.stands_alone = list(steps), blueprint, False
        self.folded: list[Fold] = []
        self.pricing: PriceConditioning | None = pricing
        self.register()
        # A model that came in eval mode stays in it.
        self.train(self.view.model.training)

    def register(self) -> None:
        """Register what the steps call as parts of this module; again, whenever the program has changed."""
        self._models = nn.ModuleList(form.model for form in self.forms)
        self._routers = nn.ModuleList(self.banks)
        branches = {
            f"{place}-{unit.name.replace('.', '-')}": nn.ModuleList(unit.branches)
            for place, step in enumerate(self._of(Units))
            for unit in step.units
            if unit.branches
        }
        self._branches = nn.ModuleDict(branches)
        self._heads = nn.ModuleList(step.head for step in self._of(Classify))
        self._deciders = nn.ModuleList(self.deciders)
        mark_kept(self.steps)

    def _of(self, kind: type) -> list[Any]:
        return [step for step in self.steps if isinstance(step, kind)]

    @property
    def forms(self) -> list[Backbone]:
        """The networks, and forms of networks, that the program runs, each once, in order."""
        return forms_of(self.steps)

    @property
    def passes(self) -> list[list[Step]]:
        """The passes, each with its steps."""
        return list(passes_of(self.steps))

    @property
    def view(self) -> Backbone:
        """The network that answers last."""
        return cast(Backbone, self._of(Head)[-1].form)

    @property
    def spec(self) -> ModelSpec:
        """What images have to look like: as the first pass wants them."""
        return cast(ModelSpec, self._of(View)[0].spec)

    @property
    def name(self) -> str:
        """The architecture's name; of several networks, their names in a row."""
        return " -> ".join(view.spec.label for view in self._of(View) if not view.mirrored)

    @property
    def backbone(self) -> nn.Module:
        """The original model of `view`, with its own parameter names."""
        return self.view.model

    @property
    def banks(self) -> list[RouterBank]:
        """The banks of routers, each once, in order."""
        banks = [step.routers for step in self._of(Units) if step.routers is not None]
        return list({id(bank): bank for bank in banks}.values())

    @property
    def routers(self) -> RouterBank:
        """The only bank of routers. Raises InputError where there is not one."""
        if len(self.banks) != 1:
            raise InputError(f"{self.name} has {len(self.banks)} banks of routers, not one")
        return self.banks[0]

    @property
    def stops(self) -> list[Stop]:
        """The stops, in order."""
        return self._of(Stop)

    @property
    def deciders(self) -> list[Decider]:
        """What decides at the stops, in order."""
        return [step.decider for step in self.stops]

    @property
    def junctions(self) -> list[ResidualUnit]:
        """The units about which something is decided, in order."""
        return [unit for step in self._of(Units) for unit in step.deciding]

    @property
    def columns(self) -> list[str]:
        """What the columns of a route decide, by name."""
        return columns_of(self.steps)

    @property
    def layout(self) -> Layout:
        """What the columns of a route are."""
        return layout_of(self.steps)

    @property
    def is_static(self) -> bool:
        """Whether nothing is decided."""
        return not (self.junctions or self.stops)

    @property
    def decides_at_units(self) -> bool:
        """Whether routers of units learn what running these is worth; forks learn as exits do."""
        return bool(self.junctions) and not self.layout.forks

    @property
    def stops_learn(self) -> bool:
        """Whether a stop, or a fork, learns by a policy."""
        return any(decider.learns for decider in self.deciders)

    @property
    def units(self) -> int:
        """The number of units that there are in all passes."""
        return sum(unit.computes for step in self._of(Units) for unit in step.units)

    def units_run(self, routes: Tensor) -> Tensor:
        """Count the units that routes `[B, columns]`, bool, execute: `[B]`, int64."""
        return units_run(self.steps, routes)

    @property
    def answerers(self) -> list[str]:
        """Who may answer an image, in order: what lies before each stop, and the end."""
        return [*(step.name for step in self.stops), "again" if self.looks_again else "end"]

    @property
    def looks_again(self) -> bool:
        """Whether the last pass is on the mirrored image."""
        return bool(self._of(View)[-1].mirrored)

    @property
    def bias(self) -> Tensor:
        """`[columns]`, added to the scores of all sinks but the defaults."""
        parts = [bias[columns] for bias, columns in self._biases()]
        return torch.cat(parts) if parts else next(self.parameters()).new_zeros(0)

    @torch.no_grad()
    def set_bias(self, bias: Tensor) -> None:
        """Set what is added to the scores, `[columns]`."""
        at = 0
        for own, columns in self._biases():
            count = len(own[columns])
            own[columns] = bias[at : at + count].to(own)
            at += count

    def _biases(self) -> Iterator[tuple[Tensor, slice]]:
        """The biases of the junctions and stops, in order: a vector, and which part of it."""
        for step in self.steps:
            if isinstance(step, Stop):
                yield step.decider.bias.view(1), slice(0, 1)
            elif isinstance(step, Units) and step.routers is not None:
                yield step.routers.bias, step.routers.columns(step.junctions)

    @torch.no_grad()
    def set_price(self, k_cpt: float) -> None:
        """Decide at another price of computing.

        Args:
            k_cpt: In units of the loss per ten million multiply-adds.

        Raises:
            InputError: The network was trained for one budget, or not at this price.
        """
        if self.pricing is None:
            raise InputError(
                f"this {self.name} was trained for one budget: train with adaptive_cost to choose the budget later"
            )
        prices = [*(bank.price for bank in self.banks), *(decider.price for decider in self.deciders)]
        self.pricing.set(k_cpt, [bank.bias for bank in self.banks], [price for price in prices if price is not None])

    def stand_alone(self) -> None:
        """Give narrow branches and forms weights of their own: for inference, where nothing is learned."""
        for part in (self._branches, *(model for model in self._models if model is not self.backbone)):
            stand_alone(part)
        self.stands_alone = True

    def without_routing(self) -> "RoutedNetwork":
        """The network that answers last, alone: each of its units runs, nothing is decided. It shares the modules."""
        form = first_path(self.view)
        units = [unit if unit.dropped else replace(unit, sinks=(Sink.RUN,)) for unit in form.units]
        form = replace(form, units=units)
        view = View(form.spec, resolution=form.resolution)
        return RoutedNetwork([view, Stem(form), Units(form, form.units), Head(form)])

    def routing_parameters(self) -> list[nn.Parameter]:
        """The parameters that decide."""
        return [*self._routers.parameters(), *self._deciders.parameters()]

    def computing_parameters(self) -> list[nn.Parameter]:
        """The parameters that compute: those of all forms, of branches, and of the exits' classifiers."""
        parts = [self.backbone, *(model for model in self._models if model is not self.backbone)]
        return [p for part in (*parts, self._branches, self._heads) for p in part.parameters()]

    def forward(
        self,
        x: Tensor,
        *,
        gate: Gate = hard,
        execution: Execution = sparse,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        routes: Tensor | None = None,
        keep_features: bool = False,
        k_cpt: Tensor | None = None,
    ) -> RouteTrace:
        """Run a batch through the program.

        Under sparse execution, in eval mode, an image that stops leaves the batch. Else all images go on to the end,
        and only the answer is that at the stop.

        Args:
            x: Images `[B, C, H, W]`, normalised as `spec` says.
            gate: Turns scores into weights.
            execution: Turns weights into features.
            temperature: Of the gate.
            generator: For gates that sample.
            routes: `[B, columns]`, bool, in the place of all decisions, whose scores are kept.
            keep_features: Keep what leaves each stage in the trace, for distillation.
            k_cpt: `[B]`, other prices of computing than the one in force.

        Returns:
            The trace of the batch; its logits `[B, classes]` are float32.
        """
        state = ForwardState(
            images=x,
            spec=self.spec,
            layout=self.layout,
            gate=gate,
            execution=execution,
            exits=execution is sparse and not self.training,
            temperature=temperature,
            generator=generator,
            routes=routes,
            prices=k_cpt,
            pricing=self.pricing,
            keep_features=keep_features,
        )
        forward(self.steps, state)
        if not state.active.empty:
            state.conclude()
        return state.trace()

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Images `[B, C, H, W]`, normalised -> logits `[B, classes]`, under hard routing in eval mode."""
        with evaluating(self):
            return cast(Tensor, self(x).logits)
