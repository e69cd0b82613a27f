"""What is compared: a method's name -> what it sets in a recipe.

A name is a static method ("firstk"), a pruning ("l1"), or what a routed network decides, joined by plus signs
("skip+exit", "branch"); after a pruning, the pruned network is routed ("l1+skip"). "confidence" is an exit that goes by
BranchyNet's rule, "drn" the recipe of Wang et al., "idk" a cascade of whole networks (`convert --smaller`), which after
a pruning ("l1+idk") ends with the pruned network, and "dense" the network itself, fine-tuned for as long as the others.
"""

from typing import Any

from routekit.baselines.depth import orders
from routekit.baselines.pruning import prunings
from routekit.errors import InputError
from routekit.junctions.kinds import junctions
from routekit.recipe import static
from routekit.registry import nearest
from routekit.routing.certainty import certainties

DENSE, IDK, DRN = "dense", "idk", "drn"
# What a run that is given by --smaller is called, with its place: "smaller0".
SMALLER = "smaller"
# How --stack calls pruning by L1.
STACKED = "prune"


def check_method(name: str) -> None:
    """Raise InputError for a name that is no method."""
    known = [DENSE, IDK, DRN, *orders, *prunings, *certainties]
    if name in known:
        return
    pruner, *_ = parts = name.split("+")
    if pruner == STACKED and len(parts) > 1:
        then = name.partition("+")[2]
        raise InputError(f"unknown method {name!r}: --stack {name} prunes before it routes, or --methods l1+{then}")
    decided = parts[1:] if pruner in prunings and len(parts) > 1 else parts
    if decided == [IDK]:
        return
    for part in decided:
        if part not in junctions and part not in certainties:
            raise InputError(
                f"unknown method {name!r}: {nearest(part, [*known, *junctions])}; several as skip+exit or l1+skip"
            )
    if len(set(decided)) < len(decided) or len({"exit", *certainties} & set(decided)) > 1:
        raise InputError(f"method {name!r} names one thing twice")


def check_stacked(name: str) -> str:
    """`prune+skip` -> the method that prunes, by L1 or as `name` says, and then routes.

    Raises InputError for what is not both.
    """
    pruner, plus, decided = name.partition("+")
    pruner = "l1" if pruner == STACKED else pruner
    if pruner not in prunings or not plus:
        raise InputError(f"--stack {name}: first prune, then route, as prune+skip or fpgm+exit")
    check_method(f"{pruner}+{decided}")
    return f"{pruner}+{decided}"


def settings(name: str, budget: str | None) -> dict[str, Any]:
    """What a method sets in a recipe, by dotted names. Raises InputError for a name that is no method."""
    check_method(name)
    if name == DENSE or name in orders or name in prunings:
        return static(name) | {"target": None if name == DENSE else budget}
    if name == DRN:
        return {"target": budget}
    pruner, *_ = parts = name.split("+")
    decided = [part for part in parts if part not in prunings]
    kinds: dict[str, dict[str, Any]] = {_junction(part): {} for part in decided}
    rule = next((part for part in decided if part in certainties), None)
    if rule is not None:
        kinds["exit"]["rule"] = rule
    pruning = {"method": pruner} if pruner in prunings else None
    return {"method": "routed", "target": budget, "junctions": kinds, "pruning": pruning}


def prunes(name: str) -> bool:
    """Whether a method prunes the network before it is routed."""
    return "+" in name and name.partition("+")[0] in prunings


def _junction(part: str) -> str:
    """What is decided: where to stop, by a rule, or whether a smaller network will do, or what `part` is called by."""
    if part in certainties:
        return "exit"
    return "cascade" if part == IDK else part
