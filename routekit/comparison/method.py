"""What is compared: a method's name -> what it sets in a recipe.

A name is a static method ("firstk"), a pruning ("l1"), or the junctions of a routed network, joined by plus signs
("skip+exit", "branch"). After a pruning, the pruned network is routed ("l1+skip"). "confidence" is an exit by
a threshold. "drn", "skipnet", "blockdrop", "act" and "sact" are the recipes of these names. "idk" is a cascade of whole
networks (`convert --smaller`). After a pruning ("l1+idk"), its last network is the pruned one. "ladder" chooses a
sequence from several forms of the network. "dense" is the network itself, fine-tuned for as long as the others.
"""

from typing import Any

from routekit.baselines.depth import orders
from routekit.baselines.pruning import prunings
from routekit.errors import InputError
from routekit.junctions.kinds import junctions
from routekit.recipe import static
from routekit.registry import nearest
from routekit.routing.certainty import certainties

DENSE, IDK, LADDER = "dense", "idk", "ladder"
# The systems of papers: each is a recipe of its name, with training of its own.
SYSTEMS = ("drn", "skipnet", "blockdrop", "act", "sact")
# A run that --smaller gives is called this, with its place: "smaller0".
SMALLER = "smaller"
# How --stack names pruning by L1.
STACKED = "prune"


def check_method(name: str) -> None:
    """Raise InputError if this is no method."""
    known = [DENSE, IDK, LADDER, *SYSTEMS, *orders, *prunings, *certainties]
    if name in known:
        return
    pruner, *rest = parts = name.split("+")
    if pruner == STACKED and rest:
        then = "+".join(rest)
        raise InputError(f"unknown method {name!r}: --stack {name} prunes before it routes, or --methods l1+{then}")
    decided = rest if pruner in prunings and rest else parts
    if decided == [IDK]:
        return
    for part in decided:
        if part not in junctions and part not in certainties:
            near = nearest(part, [*known, *junctions])
            raise InputError(f"unknown method {name!r}: {near}; several as skip+exit or l1+skip")
    if len(set(decided)) < len(decided) or len({"exit", *certainties} & set(decided)) > 1:
        raise InputError(f"method {name!r} names one thing twice")


def check_stacked(name: str) -> str:
    """Find the method that --stack names: `prune+skip` (pruned by L1) -> `l1+skip`.

    Raises InputError if it does not first prune and then route.
    """
    pruner, plus, decided = name.partition("+")
    pruner = "l1" if pruner == STACKED else pruner
    if pruner not in prunings or not plus:
        raise InputError(f"--stack {name}: first prune, then route, as prune+skip or fpgm+exit")
    check_method(f"{pruner}+{decided}")
    return f"{pruner}+{decided}"


def settings(name: str, budget: str | None) -> dict[str, Any]:
    """List what a method sets in a recipe.

    Args:
        name: The method.
        budget: Its mean cost, for example `60%` or `150M`.

    Returns:
        The settings, by dotted names.

    Raises:
        InputError: There is no such method.
    """
    check_method(name)
    if name in (DENSE, LADDER) or name in orders or name in prunings:
        return static(name) | {"target": None if name == DENSE else budget}
    if name in SYSTEMS:
        return {"target": budget}
    pruner, *rest = parts = name.split("+")
    prunes = pruner in prunings
    kinds: dict[str, dict[str, Any]] = {}
    for part in rest if prunes else parts:
        if part in certainties:
            kinds["exit"] = {"rule": part}
        else:
            kinds["cascade" if part == IDK else part] = {}
    pruning = {"method": pruner} if prunes else None
    return {"method": "routed", "target": budget, "junctions": kinds, "pruning": pruning}
