"""Branching networks: trees of units, in which paths that part never meet again (McGill and Perona, section 5.4).

From the first fork on, each path has units of its own, and exits and a classifier at the end. Features say which path
they are on, in a last channel, so that nothing that handles the features of several images needs to know of paths.
"""

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routekit.backbones.unit import Backbone, ResidualUnit, Sink
from routekit.errors import InputError
from routekit.network.exits import Exit, ExitConfig
from routekit.network.heads import Place, called_by_head
from routekit.routing.router import RouterBank, RouterConfig, open_head

# A fork has two ways on: the first is that of the network which the tree grew from.
WAYS = 2
# Every fork doubles what there is behind it.
MOST_FORKS = 6


def unmark(features: Tensor) -> tuple[Tensor, Tensor]:
    """Features on their paths [B, C + 1, H, W] -> the features [B, C, H, W], and the paths' numbers [B] int64."""
    return features[:, :-1], features[:, -1, 0, 0].round().long()


def mark(features: Tensor, paths: Tensor) -> Tensor:
    """Features [B, C, H, W] and the paths' numbers [B] -> features on their paths [B, C + 1, H, W]."""
    marked = F.pad(features, (0, 0, 0, 0, 0, 1))  # which keeps the memory format; torch.cat does not
    marked[:, -1] = paths.to(features.dtype).view(-1, 1, 1)
    return marked


def arrive(features: Tensor, paths: int) -> tuple[Tensor, Tensor]:
    """Do as `unmark` does where there are several `paths`; features do not say so where there is one, number 0."""
    return unmark(features) if paths > 1 else (features, features.new_zeros(len(features), dtype=torch.int64))


def follow(ways: Sequence[Callable[[Tensor], Tensor]], x: Tensor, paths: Tensor) -> Tensor:
    """Inputs [B, ...] on `paths` [B] -> what the way of each path makes of its own, in the order of the inputs."""
    counts = paths.bincount(minlength=len(ways)).tolist()
    sorted_already = bool((paths.diff() >= 0).all())  # as in training; moving features takes as long as using them
    order = None if sorted_already else paths.argsort(stable=True)
    parts = torch.split(x if order is None else x[order], counts)
    made = torch.cat([way(own) for way, own in zip(ways, parts, strict=True) if len(own)])
    return made if order is None else made[order.argsort()]


class Paths(nn.Module):
    """One module of a kind for each path that arrives, and an image goes through its own path's: a unit, a head.

    turn: behind this an image is on path WAYS * path + turn; None where it stays on its own
    marks: whether what comes out is features, on their paths
    """

    def __init__(self, each: Sequence[nn.Module], *, turn: int | None = None, marks: bool = True) -> None:
        super().__init__()
        self.each = nn.ModuleList(each)
        self.turn, self.marks = turn, marks

    def forward(self, x: Tensor) -> Tensor:
        """Features on their paths -> features on theirs, or what the modules make of them."""
        x, paths = arrive(x, len(self.each))
        made: Tensor = follow(list(self.each), x, paths)
        if not self.marks:
            return made
        return mark(made, paths if self.turn is None else WAYS * paths + self.turn)


class PathExit(Exit):
    """An exit for each path: classifiers and routers of their own, at one place in a tree. They share the offset."""

    def __init__(self, place: Place, config: ExitConfig, paths: int) -> None:
        nn.Module.__init__(self)  # of what an exit has, this has one for each path
        self.after, self.config, self.certainty = place.after, config, None
        self.register_buffer("offset", torch.tensor(0.0))
        self.register_buffer("price", None)
        self.own = nn.ModuleList(Exit(place, config) for _ in range(paths))

    @property
    def each(self) -> list[Exit]:
        """The exits of the paths."""
        return [own for own in self.own if isinstance(own, Exit)]

    def forward(
        self, x: Tensor, prices: Tensor | None = None, kept: dict[int, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features on their paths -> logits [B, classes] and scores [B, 2], as of an `Exit`."""
        del prices, kept
        x, paths = arrive(x, len(self.own))
        logits, go, stop = follow([own.says for own in self.each], x, paths).tensor_split([-2, -1], dim=1)
        return logits, torch.cat([go + self.offset, stop], dim=1)

    def fold(self) -> None:
        """Fold the exits of all paths."""
        for own in self.each:
            own.fold()

    def deciding_parameters(self) -> list[nn.Parameter]:
        """The parameters of what decides, on all paths."""
        return [parameter for own in self.each for parameter in own.deciding_parameters()]


class ForkRouters(RouterBank):
    """Chooses at each fork: a router for each path that arrives, which is told what exits are told of the features.

    Of a RouterConfig, it goes by `hidden` and `detach`; no way is ahead in the beginning.
    """

    separate = False
    is_tree = True

    def __init__(self, places: Sequence[Place], config: RouterConfig) -> None:
        super().__init__(len(places), config)
        self.summaries = [place.summarize for place in places]
        self.routers = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(
                    nn.BatchNorm1d(place.features, affine=False),
                    nn.Linear(place.features, config.hidden),
                    nn.ReLU(),
                    # No way is ahead in the beginning; of two equal scores, inference takes the first.
                    open_head(config.hidden, 0.0, WAYS),
                )
                for _ in range(WAYS**fork)
            )
            for fork, place in enumerate(places)
        )

    def score(self, index: int, features: Tensor, state: Any, prices: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score the ways on at fork `index`; there is no state."""
        del prices
        ways = list(self.routers[index])  # type: ignore[call-overload]
        features, paths = arrive(features, len(ways))
        return follow(ways, self.summaries[index](features), paths), state


def every_way(module: nn.Module, features: Tensor) -> Tensor:
    """Call `module` on features; where it is one for each path, call those of all paths. What it gives."""
    if isinstance(module, Paths):
        seen = arrive(features, len(module.each))[0]
        for way in module.each:
            way(seen)
    made: Tensor = module(features)
    return made


def on_paths(unit: ResidualUnit) -> list[nn.Module]:
    """The blocks of `unit` on each path that leads out of it, or the one that it has."""
    ways = [list(way.each) for way in (unit.block, *unit.branches) if isinstance(way, Paths)]
    return [block for nodes in zip(*ways, strict=True) for block in nodes] or [unit.block]


def forks(view: Backbone, at: str) -> list[str]:
    """The units at which paths part: "stages" (the first of each stage but the first), or names with commas between.

    Raises InputError for names of no units, for none or too many of them, and for units that are no modules.
    """
    units = [unit for unit in view.units if unit.computes]
    known = [unit.name for unit in units]
    wanted = [name.strip() for name in at.split(",")]
    if at == "stages":
        wanted = [after.name for before, after in itertools.pairwise(units) if before.stage != after.stage]
    for name in wanted:
        if name not in known:
            raise InputError(f"no fork can lie at {name!r}: known: stages, {', '.join(known)}")
    found = sorted(set(wanted), key=known.index)
    if not 0 < len(found) <= MOST_FORKS:
        raise InputError(f"a tree has 1 to {MOST_FORKS} forks, here {len(found)}: name units in branches.forks")
    if not {name for name, _ in view.model.named_modules()}.issuperset(known):
        raise InputError(f"the units of {view.spec.full_name} are no modules of its own: no tree can grow from it")
    return found


def paths_behind(view: Backbone, at: Sequence[str]) -> dict[str, int]:
    """How many paths there are behind each unit, where they part `at` these units."""
    found, paths = {}, 1
    for unit in view.units:
        paths *= WAYS if unit.name in at else 1
        found[unit.name] = paths
    return found


def grow(view: Backbone, at: Sequence[str], spread: float) -> None:
    """Make a tree of the chain `view`: paths part `at` these units, and each has units and a classifier of its own.

    Path 0 is the chain that was. The others begin as copies of it, each weight with noise of `spread` of its layer's
    standard deviation: what is quite alike would learn alike.
    """
    chain = copy.deepcopy(view)
    paths = 1
    for unit in view.units:
        if not unit.computes or (paths == 1 and unit.name not in at):
            continue
        paths *= WAYS if unit.name in at else 1
        unit.shortcut = None  # nothing is skipped in a tree
        blocks = [unit.block, *(_varied(unit.block, spread) for _ in range(paths - 1))]
        if unit.name in at:
            first, second = (Paths(blocks[turn::WAYS], turn=turn) for turn in range(WAYS))
            unit.block, unit.sinks = first, (Sink.RUN, second)
        else:
            unit.block = Paths(blocks)
        view.model.set_submodule(unit.name, unit.block)
    heads = Paths([_Head(view), *(_copied_head(chain, spread) for _ in range(paths - 1))], marks=False)
    view.model.add_module("path_heads", heads)
    view.head = heads.forward


class _Head(nn.Module):
    """The end of a chain as a module; of a copied chain, it owns `model`, of which nothing but the end is left."""

    def __init__(self, view: Backbone, model: nn.Module | None = None) -> None:
        super().__init__()
        self.call = view.head
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


def _copied_head(chain: Backbone, spread: float) -> _Head:
    twin = copy.deepcopy(chain)
    called = {id(module) for module in called_by_head(twin)}
    gone: list[str] = []
    for name, module in list(twin.model.named_modules()):
        # What has no weights stays: a head may ask the model whether it is training.
        owns = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        inside = any(name.startswith(f"{each}.") for each in gone)
        if name and owns and not inside and id(module) not in called:
            twin.model.set_submodule(name, nn.Identity())
            gone.append(name)
    _vary(twin.model, spread)
    return _Head(twin, twin.model)


def _varied(module: nn.Module, spread: float) -> nn.Module:
    copied = copy.deepcopy(module)
    _vary(copied, spread)
    return copied


@torch.no_grad()
def _vary(module: nn.Module, spread: float) -> None:
    for parameter in module.parameters():
        if parameter.ndim > 1:
            parameter.add_(spread * parameter.std() * torch.randn_like(parameter))
