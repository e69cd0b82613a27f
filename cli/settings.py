"""From the options of a command to settings of a recipe."""

import re
from typing import TYPE_CHECKING, Any

from .options import share

if TYPE_CHECKING:
    from routekit.recipe import Recipe


# What only a ladder can be asked for.
WANTS = {"aim.ms", "aim.speedup", "aim.max_drop", "aim.max_size"}


def default_recipe(data: str | None) -> str:
    """The recipe for the data: the digits that come with routekit are few, and need a schedule of their own."""
    return "digits" if data is None or re.fullmatch(r"digits(\[[^\]+]*\])?", data) else "default"


def subject(
    model: str,
    weights: str | None,
    data: str | None,
    data_root: str | None,
    download: bool,
    val: str | None,
    val_from_test: float | None,
) -> dict[str, Any]:
    """The settings for the network and the images.

    Args:
        model: The name of the network.
        weights: The value of --weights.
        data: The value of --data.
        data_root: The value of --data-root.
        download: Whether data may be downloaded.
        val: The value of --val.
        val_from_test: The value of --val-from-test.

    Returns:
        The settings.
    """
    return given(
        {
            "model.name": model,
            "model.weights": weights,
            "data.source": data,
            "data.root": data_root,
            "data.download": download or None,
            "data.val": val,
            "data.val_from_test": val_from_test,
        }
    )


def aim(
    ms: float | None,
    speedup: float | None,
    max_drop: float | None,
    max_size: str | None,
    runtime: str | None,
    precision: str | None,
    batch: int | None,
    threads: int | None,
) -> dict[str, Any]:
    """The settings for what a ladder is aimed at.

    Args:
        ms: The value of --target-ms.
        speedup: The value of --target-speedup.
        max_drop: The value of --max-drop.
        max_size: The value of --max-size.
        runtime: The value of --runtime.
        precision: The value of --precision.
        batch: The value of --batch.
        threads: The value of --threads.

    Returns:
        The settings.
    """
    values = {"ms": ms, "speedup": speedup, "max_drop": max_drop, "max_size": max_size}
    values |= {"runtime": runtime, "precision": precision, "batch": batch, "threads": threads}
    return {f"aim.{name}": value for name, value in given(values).items()}


def overrides(pairs: list[str] | None) -> dict[str, Any]:
    """`--set a.b=value` -> {"a.b": value}, the value read as YAML. Raises InputError for anything else."""
    import yaml

    from routekit.documents import parse_yaml
    from routekit.errors import InputError

    values: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes key=value, not {pair!r}")
        try:
            values[key], _ = parse_yaml(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {pair}: {value!r} is no YAML value") from error
    return values


def lengths(epochs: float | None, dense: float) -> dict[str, Any]:
    """The settings of --epochs: a dense network that has to be trained first is not trained for longer than that.

    Args:
        epochs: The value of --epochs.
        dense: The epochs of the dense network in the recipe.

    Returns:
        The settings.
    """
    shorter = {"dense.epochs": epochs} if epochs and epochs < dense else {}
    return given({"training.epochs": epochs}) | shorter


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given: an option that was not is None."""
    return {name: value for name, value in values.items() if value is not None}


def junctions(kinds: str | None) -> list[str] | None:
    """`--junctions skip,exit` -> [skip, exit]. Raises InputError for an unknown kind."""
    from routekit.errors import InputError
    from routekit.junctions.kinds import junctions as known
    from routekit.registry import nearest

    wanted = [] if kinds is None else [kind.strip() for kind in kinds.split(",")]
    for kind in wanted:
        if kind not in known:
            raise InputError(f"unknown junction {kind!r}: {nearest(kind, known)}; several as skip,exit")
    return list(dict.fromkeys(wanted)) or None


def made(planned: "Recipe", method: str | None, wanted: list[str] | None, prune: str | None) -> dict[str, Any]:
    """The settings for what is made of the network. Those of the command line replace all of the recipe's.

    Args:
        planned: The recipe. A junction that it also has keeps its settings.
        method: The value of --method.
        wanted: The kinds of --junctions.
        prune: The value of --prune.

    Returns:
        The settings.

    Raises:
        InputError: A static method, or a ladder, with --junctions or --prune.
    """
    from routekit.baselines.depth import orders
    from routekit.baselines.pruning import prunings
    from routekit.errors import InputError
    from routekit.recipe import static

    if method is not None and (method in orders or method in prunings or method == "ladder"):
        if wanted is not None or prune is not None:
            kind = "a ladder of static forms" if method == "ladder" else "a static network"
            raise InputError(f"--method {method} is {kind}: it takes no --junctions and no --prune")
        return static(method)
    pruned = {} if prune is None else {"pruning": pruning(prune)}
    if wanted is None:
        return given({"method": method}) | pruned
    kinds: dict[str, Any] = {kind: planned.junctions.get(kind, {}) for kind in wanted}
    return {"method": method or "routed", "junctions": kinds, "pruning": None} | pruned


def pruning(text: str) -> dict[str, str] | None:
    """`l1:70%`, or `l1`, or `none` -> settings. Raises InputError for text that is not a method and a cost."""
    from routekit.errors import InputError

    if text == "none":
        return None
    method, colon, target = text.partition(":")
    if not method or (colon and not target):
        raise InputError(f"--prune takes a method and a cost, l1:70%, or a method alone, not {text!r}")
    return {"method": method, **({"target": target} if target else {})}


def decided(
    wanted: list[str], at: str | None, policy: str | None, narrow: str | None, router: str | None, gate: str | None
) -> dict[str, Any]:
    """`--exits stages --policy actor --narrow 30%` -> settings.

    Args:
        wanted: The kinds of junctions.
        at: The value of --exits.
        policy: The value of --policy.
        narrow: The value of --narrow.
        router: The value of --router.
        gate: The value of --gate.

    Returns:
        The settings.

    Raises:
        InputError: No junction has such a setting, or a value is wrong.
    """
    from routekit.errors import InputError
    from routekit.junctions.kinds import junctions as known
    from routekit.registry import nearest
    from routekit.routing.certainty import certainties
    from routekit.routing.policy import critics

    exits = [kind for kind in wanted if known[kind].policies]
    units = [kind for kind in wanted if known[kind].rank == 0]
    narrowed = [kind for kind in wanted if "width" in known.settings_of(kind) and kind not in exits]
    for flag, value, kinds, way_out in (
        ("--exits", at, exits, "exits: add --junctions exit, or skip,exit"),
        ("--policy", policy, exits, "exits: add --junctions exit, or skip,exit"),
        ("--narrow", narrow, narrowed, "narrow branches and cascades: add --junctions branch or cascade"),
        ("--router", router, units, "units: add --junctions skip or branch"),
        ("--gate", gate, units, "units: add --junctions skip or branch"),
    ):
        if value is not None and not kinds:
            raise InputError(f"{flag} is for {way_out}")
    widths = sorted({share(text) for text in narrow.split(",")}) if narrow else []
    learned = ["actor", *critics]
    if policy is not None and policy not in learned and policy not in certainties:
        raise InputError(f"unknown policy {policy!r}: {nearest(policy, [*learned, *certainties])}")
    settings: dict[str, Any] = {
        "routers.kind": router,
        # Where scores decide, no gate relaxes them.
        "training.gate": gate or ("hard" if any(known[kind].halts for kind in units) else None),
        "objective.policy.kind": policy if policy in learned else None,
    }
    for kind in narrowed:  # the branches of a unit from the widest on, the forms of a network from the narrowest
        settings[f"junctions.{kind}.width"] = (widths[::-1] if kind in units else widths) or None
    for kind in exits:
        settings[f"junctions.{kind}.at"] = at
        settings[f"junctions.{kind}.rule"] = "learned" if policy in learned else policy
    return given(settings)
