"""The routed network: the original model, seen as stem, units and head, and a bank of routers that decides."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from routekit.backbones.narrow import stand_alone
from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit
from routekit.errors import InputError
from routekit.network.branches import BranchConfig
from routekit.network.dial import Dial
from routekit.network.executor import Execution, sparse
from routekit.network.exits import Exit
from routekit.network.remaining import Remaining
from routekit.routing.decision import GO, SKIP, Decision, Layout, RouteTrace
from routekit.routing.gate import Gate, hard
from routekit.routing.router import RouterBank


class RoutedNetwork(nn.Module):
    """A network in which each image runs through only the units that its routers choose.

    `backbone` is the original module with its own parameter names; `view` says where its units are; `routers`
    scores one skip junction before each skippable unit; `exits` are classifiers after some of the units, in order, each
    of which decides whether an image goes on. With a `dial`, they decide at the price of computing that is set, so that
    one network serves every budget. One forward serves training and inference: a gate turns logits into
    weights, an execution turns weights into features.
    """

    def __init__(
        self,
        view: Backbone,
        routers: RouterBank,
        exits: Sequence[Exit] = (),
        dial: Dial | None = None,
        branches: BranchConfig | None = None,
    ) -> None:
        super().__init__()
        self.backbone = view.model
        self.view = view
        self.routers = routers
        self.register_branches()
        self._exits = nn.ModuleList(exits)
        self.dial = dial
        self.branches = branches
        self.stands_alone = False
        # A model that came in eval mode stays in it.
        self.train(view.model.training)

    def register_branches(self) -> None:
        """Make the units' branches parts of this module; again, whenever they have changed."""
        found = {unit.name.replace(".", "-"): nn.ModuleList(unit.branches) for unit in self.view.units if unit.branches}
        self._branches = nn.ModuleDict(found)

    @property
    def spec(self) -> ModelSpec:
        """The architecture, and what its images have to look like."""
        return self.view.spec

    @property
    def name(self) -> str:
        """The architecture's name."""
        return self.spec.full_name

    @property
    def columns(self) -> list[str]:
        """What the columns of a route decide: whether these units run, and whether an image goes on past an exit."""
        of_units = [
            unit.name if sink == 0 else f"{unit.name} branch {sink}"
            for unit in self.junctions
            for sink in range(unit.sinks - 1)
        ]
        return of_units + [f"past {each.after}" for each in self.exits]

    @property
    def junctions(self) -> list[ResidualUnit]:
        """The units about which something is decided, in order; each has `layout.width` columns of a route."""
        return [unit for unit in self.view.units if unit.skippable]

    @property
    def units(self) -> int:
        """How many units the network has, whether or not they can be skipped."""
        return sum(unit.computes for unit in self.view.units)

    @property
    def skips(self) -> bool:
        """Whether there is a unit that some images do not run at all."""
        return any((unit.skippable or unit.dropped) and not unit.always for unit in self.view.units)

    @property
    def exits(self) -> list[Exit]:
        """The exits, in order; their columns of a route are the last ones."""
        return [each for each in self._exits if isinstance(each, Exit)]

    @property
    def exits_learn(self) -> bool:
        """Whether an exit decides by a router, and not by a rule."""
        return any(each.certainty is None for each in self.exits)

    def exit_after(self, unit: ResidualUnit) -> Exit | None:
        """The exit that lies after `unit`, if there is one."""
        return next((each for each in self.exits if each.after == unit.name), None)

    @property
    def layout(self) -> Layout:
        """What the columns of a route are."""
        sections: list[int] = []
        passed, width = 0, self.routers.width
        for unit in self.view.units:
            if unit.skippable:
                sections += [passed] * width
            passed += self.exit_after(unit) is not None
        return Layout(tuple(sections), passed, width)

    @property
    def offset(self) -> Tensor:
        """[columns] what speaks for running each unit, and for going on past each exit."""
        return torch.cat([self.routers.offset, *(each.offset.view(1) for each in self.exits)])

    @torch.no_grad()
    def set_offset(self, offset: Tensor) -> None:
        """Set what speaks for running and going on, [columns]."""
        units = len(self.routers.offset)
        self.routers.offset.copy_(offset[:units])
        for each, value in zip(self.exits, offset[units:], strict=True):
            each.offset.copy_(value)

    @property
    def groups(self) -> list[range]:
        """Runs of junctions that see the same features as long as the units before them in the group are skipped.

        One survey scores what is left of a group. A bank that must be asked one by one has groups of one, and what lies
        behind an exit is asked only there.
        """
        groups: list[range] = []
        fresh, index = True, 0
        for unit in self.view.units:
            if unit.skippable:
                if fresh or not self.routers.surveys:
                    groups.append(range(index, index))
                groups[-1] = range(groups[-1].start, index + 1)
                fresh, index = False, index + 1
            fresh = fresh or not unit.keeps or not (unit.skippable or unit.dropped)
            fresh = fresh or self.exit_after(unit) is not None
        return groups

    def remove(self, unit: ResidualUnit) -> bool:
        """Take away the junction of `unit`; False if the routers need it. What it does then is yet to be said."""
        index = self.junctions.index(unit)
        if not self.routers.forget(index):
            return False
        if self.dial is not None:
            self.dial.forget(self.routers.columns(range(index, index + 1)))
        return True

    def stand_alone(self) -> None:
        """Give narrow branches, and narrow exits, weights of their own: for inference, where nothing is learned."""
        for part in (self._branches, *self.exits):
            stand_alone(part)
        self.stands_alone = True

    @torch.no_grad()
    def set_dial(self, k_cpt: float) -> None:
        """Decide at another price of computing, in units of the loss per ten million multiply-adds.

        Raises InputError for a network that was not trained with several, or not with this one.
        """
        if self.dial is None:
            raise InputError(f"this {self.name} was trained for one budget: train with --adaptive-cost to choose later")
        self.dial.check(k_cpt)
        self.dial.k_cpt.fill_(k_cpt)
        self.routers.offset.copy_(-k_cpt * self.dial.surplus)
        for told in (self.routers.price, *(each.price for each in self.exits)):
            if told is not None:
                told.fill_(self.dial.told(k_cpt))

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
        """Images [B, C, H, W], normalised -> the trace of the batch, class logits [B, classes] in float32.

        `routes` [B, n] bool takes the place of the routers' decisions: to ask what another route would have given.
        `k_cpt` [B] are other prices of computing than the one that the dial is set to. `keep_features` keeps what left
        each stage in the trace, for distillation. Under sparse execution an image that takes an exit leaves the batch;
        else, and in training, all go on to the end, and only the answer is the exit's.
        """
        layout, left = self.layout, Remaining(x.shape[0])
        leave = execution is sparse and not self.training
        units: list[Decision] = []
        ends: list[Decision] = []
        leaves: list[Tensor] = []
        features: dict[int, Tensor] = {}
        hints: list[tuple[Tensor, ...]] = []
        answers = state = None

        def decide(logits: Tensor, columns: slice, gate: Gate, offset: Tensor | None = None) -> Decision:
            if offset is not None:
                logits = torch.cat([logits[:, :SKIP] + offset, logits[:, SKIP:]], dim=1)
            if routes is not None:
                taken = left.pick(routes)[:, columns].to(logits)
                logits = torch.cat([taken, 1 - taken.sum(dim=1, keepdim=True)], dim=1)
            weights = gate(logits, temperature=temperature, generator=generator, offset=offset)
            return Decision(logits=logits, weights=weights, choice=logits.argmax(dim=1))

        x = self.view.stem(x)
        for unit in self.view.units:
            leaving = self.exit_after(unit)
            if left.nobody:  # a classifier need not know what to do with nothing
                units += [left.nothing(x, unit.sinks)] if unit.skippable else []
                ends += [left.nothing(x)] if leaving is not None else []
                continue
            at = None if k_cpt is None else left.pick(k_cpt)
            prices = None if at is None or self.dial is None else self.dial.told(at)
            if unit.skippable:
                logits, state = self.routers(len(units), x, state, prices)
                columns = self.routers.columns(range(len(units), len(units) + 1))
                decision = decide(logits, columns, gate, self._offset(columns, at))
                x = execution(unit, x, decision)
                units.append(left.spread(decision))
            else:
                x = unit.run(x)
            if keep_features:
                features[unit.stage] = x
            if leaving is not None:
                kept: dict[int, Tensor] | None = {} if keep_features else None
                said, scores = leaving(x, prices, kept)
                hints += [tuple(kept.values())] if kept else []
                # Exits learn from their scores, by a policy; a gate that relaxes or teaches is for units.
                column = len(layout.sections) + len(ends)
                decision = decide(scores, slice(column, column + 1), hard)
                ends.append(left.spread(decision))
                leaves.append(said)
                if leave:
                    answers = left.answered(answers, said)
                    on = left.leave(decision.weights[:, GO] > 0.5)
                    x, state = x[on], None if state is None else tuple(part[on] for part in state)
        if not left.nobody:
            leaves.append(self.view.head(x).float())
            answers = left.answered(answers, leaves[-1])
        assert answers is not None  # somebody was asked, at an exit or in the end
        return RouteTrace(
            logits=answers if leave else _answers(leaves, ends),
            decisions=(*units, *ends),
            layout=layout,
            leaves=tuple(leaves) if left.rows is None else (),
            features=tuple(features.values()),
            hints=tuple(hints),
        )

    def _offset(self, columns: slice, prices: Tensor | None) -> Tensor:
        """What speaks for a unit's sinks: [width], or [B, width] at prices [B] other than the one that is set."""
        offset = self.routers.offset[columns]
        if prices is None or self.dial is None:
            return offset
        return offset - (prices - self.dial.k_cpt).unsqueeze(1) * self.dial.surplus[columns]

    def units_run(self, routes: Tensor) -> Tensor:
        """Routes [B, n] bool -> [B] how many units each executes, those included about which nothing is decided.

        What a unit computes by default is not counted.
        """
        layout, section = self.layout, 0
        always = torch.zeros(layout.exits + 1, dtype=torch.int64)
        for unit in self.view.units:
            always[section] += unit.computes and not (unit.skippable or unit.dropped)
            section += self.exit_after(unit) is not None
        there = layout.reach(routes.cpu().double())
        run: Tensor = (there @ always.double()).long() + routes[:, : len(layout.sections)].cpu().sum(dim=1)
        return run

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W], normalised -> class logits [B, classes], under hard routing in eval mode."""
        was_training = self.training
        self.eval()
        logits: Tensor = self(x).logits
        self.train(was_training)
        return logits

    def routing_parameters(self) -> list[nn.Parameter]:
        """The parameters that decide."""
        return [*self.routers.parameters(), *(p for each in self.exits for p in each.deciding_parameters())]

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The parameters that compute: the original's, those of branches, and the exits' classifiers."""
        of_exits = (parameter for each in self.exits for parameter in each.head.parameters())
        return [*self.backbone.parameters(), *self._branches.parameters(), *of_exits]


def _answers(leaves: list[Tensor], ends: list[Decision]) -> Tensor:
    """[B, classes] what each image is answered: by the first exit that it takes, else by the last classifier."""
    answers = leaves[-1]
    for leaf, end in zip(reversed(leaves[:-1]), reversed(ends), strict=True):
        answers = torch.where((end.weights[:, GO] > 0.5).unsqueeze(1), answers, leaf)
    return answers
