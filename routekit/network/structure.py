"""What a routed network is made of, and which decision each column of a route is."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from routekit.backbones.narrow import stand_alone
from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit, Sink
from routekit.network.branches import BranchConfig
from routekit.network.dial import Dial
from routekit.network.exits import END, Exit
from routekit.routing.decision import Layout
from routekit.routing.router import RouterBank


class Structure(nn.Module):
    """The parts of a routed network: the original model, its routers, its branches, its exits.

    `backbone` is the original module with its own parameter names; `view` says where its units are; `routers` scores
    one junction before each unit about which something is decided; `exits` are classifiers after some of the units, in
    order, each of which decides whether an image goes on. With a `dial`, they decide at the price of computing that is
    set, so that one network serves every budget.
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
            for sink in range(len(unit.sinks) - 1)
        ]
        if self.is_tree:
            of_units = [f"first way at {name}" for name in of_units]
        return of_units + [f"past {END if each.ends else each.after}" for each in self.exits]

    @property
    def junctions(self) -> list[ResidualUnit]:
        """The units about which something is decided, in order; each has `layout.width` columns of a route."""
        return [unit for unit in self.view.units if unit.decides]

    @property
    def units(self) -> int:
        """How many units the network has, whether or not they can be skipped."""
        return sum(unit.computes for unit in self.view.units)

    @property
    def skips(self) -> bool:
        """Whether there is a unit that some images do not run at all."""
        return any(Sink.SKIP in unit.sinks for unit in self.view.units)

    @property
    def is_tree(self) -> bool:
        """Whether the junctions are forks, behind which paths never meet again (`network/paths.py`)."""
        return self.routers.is_tree

    @property
    def exits(self) -> list[Exit]:
        """The exits, in order; their columns of a route are the last ones."""
        return [each for each in self._exits if isinstance(each, Exit)]

    def add_exit(self, leaving: Exit) -> None:
        """Add an exit behind all that there are."""
        self._exits.append(leaving.train(self.training))

    def look_once(self) -> None:
        """Answer images that get to the end by one look, if it was by two."""
        self._exits = nn.ModuleList(each for each in self.exits if not each.ends)

    @property
    def looks_again(self) -> bool:
        """Whether images that its answer is not certain enough for are looked at again, mirrored, by all of it."""
        return any(each.ends for each in self.exits)

    @property
    def answerers(self) -> list[str]:
        """Who may answer an image, in order: the classifier after some unit, the network at its end, both its looks."""
        exits = [each.after for each in self.exits if not each.ends]
        return [*exits, END, *(["again"] if self.looks_again else [])]

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
            if unit.decides:
                sections += [passed] * width
            passed += self.exit_after(unit) is not None
        return Layout(tuple(sections), passed, width, self.is_tree)

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
            if unit.decides:
                if fresh or not self.routers.surveys:
                    groups.append(range(index, index))
                groups[-1] = range(groups[-1].start, index + 1)
                fresh, index = False, index + 1
            fresh = fresh or not unit.keeps or self.exit_after(unit) is not None
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

    def units_run(self, routes: Tensor) -> Tensor:
        """Routes [B, n] bool -> [B] how many units each executes, those included about which nothing is decided.

        What a unit computes by default is not counted.
        """
        layout, section = self.layout, 0
        always = torch.zeros(layout.exits + 1, dtype=torch.int64)
        for unit in self.view.units:
            decided = unit.decides and not layout.is_tree
            always[section] += unit.computes and not (decided or unit.dropped)
            section += self.exit_after(unit) is not None
        always[section] += self.units if self.looks_again else 0
        there = layout.reach(routes.cpu().double())
        run: Tensor = (there @ always.double()).long()
        return run if layout.is_tree else run + routes[:, : len(layout.sections)].cpu().sum(dim=1)

    def routing_parameters(self) -> list[nn.Parameter]:
        """The parameters that decide."""
        return [*self.routers.parameters(), *(p for each in self.exits for p in each.deciding_parameters())]

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The parameters that compute: the original's, those of branches, and the exits' classifiers."""
        of_exits = (
            parameter for leaving in self.exits for each in leaving.each for parameter in each.head.parameters()
        )
        return [*self.backbone.parameters(), *self._branches.parameters(), *of_exits]
