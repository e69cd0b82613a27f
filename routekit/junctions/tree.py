"""Fork junctions: trees of units, in which paths that part never meet again (McGill and Perona, section 5.4).

From the first fork on, each path has units of its own, and exits and a classifier at the end (`network/paths.py`). A
tree grows from a whole chain. It takes no other decisions than forks and exits that learn.
"""

import copy
import itertools
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from routekit.backbones.unit import Backbone, Sink, evaluating
from routekit.backbones.walk import walk_through
from routekit.errors import InputError
from routekit.junctions.junction import Draft, Junction, junctions
from routekit.network.deciders import LEARNED, build_router
from routekit.network.forms import keep_called
from routekit.network.heads import Place
from routekit.network.paths import SINKS, Paths, arrive, follow
from routekit.routing.router import RouterBank, RouterConfig

# Every fork doubles what there is behind it.
MOST_FORKS = 6


@junctions.register("tree")
@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Tree(Junction):
    """Paths that part at forks never meet again; each image takes one.

    Attributes:
        forks: The units at which paths part: "stages" (the first unit of each stage but the first), or names separated
            by commas.
        spread: How much the paths behind a fork differ in the beginning: the share of noise in the standard deviation
            of their weights. With 1, it is all noise: a path begins anew, at the scale at which the network began.
        layers: How many hidden layers the router of a fork has. Their width is `routers.hidden`.
        normalize: Whether they are batch-normalised before their rectification.
    """

    about: ClassVar[str] = "which path of a tree an image takes"
    cheapest: ClassVar[str] = "the cheapest path alone"
    learns: ClassVar[str] = "all"

    forks: str = "stages"
    spread: Annotated[float, Field(ge=0)] = 0.1
    layers: Annotated[int, Field(ge=1, le=4)] = 1
    normalize: bool = False

    def check(self, others: Sequence[Junction]) -> None:
        """Raise InputError unless beside it there are exits that learn, and nothing else."""
        kinds = {other.kind for other in others} - {self.kind}
        if kinds - {"exit"}:
            raise InputError("a tree takes exits alone beside it: junctions=tree,exit")
        exits = [other for other in others if other.kind == "exit"]
        if not exits or any(getattr(other, "rule", "") != LEARNED for other in exits):
            raise InputError("a tree needs exits that learn: junctions=tree,exit")

    def attach(self, draft: Draft) -> None:
        """Note where paths part. The tree grows once the exits are attached.

        Raises InputError for other routers than "fc", a price that is an input, and a pruned network.
        """
        view = draft.view
        if draft.priced or draft.routers.kind != "fc":
            raise InputError("a tree takes no adaptive_cost, and routers.kind=fc")
        if view.pruned:
            raise InputError(f"{view.spec.full_name} was pruned: a tree grows from a whole network")
        at = find_forks(view, self.forks)
        draft.paths = paths_behind(view, at)
        places = draft.places
        before = dict(zip((unit.name for unit in view.units), places, strict=False))

        def finish() -> None:
            draft.bank = ForkRouters([before[name] for name in at], draft.routers, self)
            grow(view, at, self.spread)

        draft.finishers.append(finish)


class ForkRouters(RouterBank):
    """Chooses at each fork: a router for each path that arrives, built and begun as those of exits (`build_router`).

    Of a RouterConfig, it goes by `hidden`, `normalize` and `detach`. No sink is ahead in the beginning; of two equal
    scores, inference takes the first.
    """

    forks = True

    def __init__(self, places: Sequence[Place], config: RouterConfig, tree: Tree) -> None:
        super().__init__(len(places), config)
        self.summaries = [place.summarize for place in places]
        self.routers = nn.ModuleList(
            nn.ModuleList(
                nn.Sequential(
                    nn.BatchNorm1d(place.features, affine=False) if config.normalize else nn.Identity(),
                    *build_router(place.features, config.hidden, tree.layers, normalize=tree.normalize, sinks=SINKS),
                )
                for _ in range(SINKS**fork)
            )
            for fork, place in enumerate(places)
        )

    def each(self, index: int) -> list[nn.Module]:
        """The routers of fork `index`, by the path that arrives there."""
        routers: Any = self.routers[index]
        return list(routers)

    def score(self, index: int, features: Tensor, state: Any, prices: Tensor | None = None) -> tuple[Tensor, Any]:
        """Score the sinks of fork `index`. The state is passed on as it is."""
        del prices
        routers = self.each(index)
        features, paths = arrive(features, len(routers))
        return follow(routers, paths, self.summaries[index](features)), state


def find_forks(view: Backbone, at: str) -> list[str]:
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
        raise InputError(f"a tree has 1 to {MOST_FORKS} forks, here {len(found)}: name units in junctions.tree.forks")
    if not {name for name, _ in view.model.named_modules()}.issuperset(known):
        raise InputError(f"the units of {view.spec.full_name} are no modules of its own: no tree can grow from it")
    return found


def paths_behind(view: Backbone, at: Sequence[str]) -> dict[str, int]:
    """Count the paths behind each unit.

    Args:
        view: The network.
        at: The units at which paths part.

    Returns:
        The number of paths by the unit's name.
    """
    found, paths = {}, 1
    for unit in view.units:
        paths *= SINKS if unit.name in at else 1
        found[unit.name] = paths
    return found


def grow(view: Backbone, at: Sequence[str], spread: float) -> None:
    """Make a tree of a chain of units, in which each path has units and a classifier of its own.

    Path 0 is the chain as it was. The others begin as copies of it with some noise: equal paths would learn the same.

    Args:
        view: The network, which is changed in place.
        at: The units at which paths part.
        spread: The standard deviation of the noise, as a share of that of each layer's weights, which keep theirs.
    """
    chain = copy.deepcopy(view)
    paths = 1
    for unit in view.units:
        if not unit.computes or (paths == 1 and unit.name not in at):
            continue
        paths *= SINKS if unit.name in at else 1
        unit.shortcut = None  # nothing is skipped in a tree
        blocks = [unit.block, *(_varied(unit.block, spread) for _ in range(paths - 1))]
        if unit.name in at:
            first, second = (Paths(blocks[turn::SINKS], turn=turn) for turn in range(SINKS))
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
    with torch.no_grad(), evaluating(twin.model):
        *_, (_, _, x) = walk_through(twin)
    keep_called(twin.model, lambda: twin.head(x))
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
            noise = spread * parameter.std() * torch.randn_like(parameter)
            parameter.mul_(max(0.0, 1 - spread**2) ** 0.5).add_(noise)
