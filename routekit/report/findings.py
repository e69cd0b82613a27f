"""The record of one run in sentences: what was measured, and the warnings."""

import math
from collections.abc import Mapping
from typing import Any

from routekit.junctions.kinds import junctions
from routekit.macs import CONVENTION, describe
from routekit.report.settings import spoken

# A unit is as good as static if fewer images run it, or fewer do not run it, than this share.
RARE = 0.01
# A budget is missed if the cost is off by more than this share of it.
OFF = 0.02
# Where validation images come from, as a record says it.
MET_ON = {
    "train": "images that were carved out of the training images",
    "test": "images that were carved out of the test images, and are not among these",
}
# The names of columns for deferrals and stops, and, now and in former versions, for forks begin with these words.
# A loss of so much accuracy is no price for multiply-adds.
FELL = 0.1
PAST, FORKS = "past ", ("first sink at ", "first way")


def facts(record: Mapping[str, Any]) -> list[str]:
    """List what was measured, in sentences."""
    flops, accuracy, routes, where = record["flops"], record["accuracy"], record["routes"], record["environment"]
    budget = ""
    if flops["target"] is not None:
        on = MET_ON.get(record.get("validation", ""), "validation images")
        budget = f", for a budget of {100 * flops['target'] / flops['dense']:.2f}%, which was met on {on}"
    before = "" if accuracy["dense"] is None else f", {100 * accuracy['dense']:.2f}% by the dense network"
    taken = (
        f"They take {routes['unique']} different routes ({routes['entropy_bits']:.2f} bits of entropy: 0 would be one "
        f"route for all), on which {routes['mean_units']:.1f} of {routes['units']} units run on average."
    )
    decides = bool(routes["run_rate"])
    if routes["unique"] == 1:
        taken = f"All images take the same route: {routes['mean_units']:.0f} of {routes['units']} units run."
    right, images = accuracy["routed"], record["images"]
    error = 100 * math.sqrt(right * (1 - right) / images)
    sampled = record.get("inference", "hard") != "hard"
    how = f", under {'sampled routing' if sampled else 'hard routing: each decision is yes or no'}" if decides else ""
    found = [
        f"{100 * right:.2f}% (± {error:.2f}, one standard error) of {images} {record['split']} images of "
        f"{record['data']} are answered rightly{before}{how}.",
        f"On average, one costs {describe(flops['realized'])}: {100 * flops['realized'] / flops['dense']:.2f}% of what "
        f"it costs in the dense network{budget}.",
        *([taken] if decides else []),
    ]
    found += _of_ladder(record) if "passes" in record else []
    if any(junctions[kind].by_position for kind in record.get("junctions", []) if kind in junctions):
        found.append(
            "Cost is counted at the positions of features that are computed. Dense kernels compute the others, too: "
            "this network saves no time."
        )
    if "shuffled_accuracy" in record and routes["unique"] > 1:
        found.append(f"With another image's route, {100 * record['shuffled_accuracy']:.2f}% would be right.")
    # A network that was only set to another budget was not trained for it.
    epochs = f"{record['epochs']:g} epochs, " if "epochs" in record else ""
    found.append(
        f"Costs are {CONVENTION}, routers and exits included. Seed {record.get('seed', 0)}, {epochs}"
        f"{record['seconds']:.0f} s on {where['device']}, {_counted(where['threads'], 'thread')}, {where['date']}."
    )
    if command := where.get("command", record.get("command")):
        found.append(f"Command: `{command}`")
    return found


def _of_ladder(record: Mapping[str, Any]) -> list[str]:
    """What was chosen from a ladder, how, and how long it takes, in sentences."""
    taken, chosen = record["time"], record["chosen"]
    names = " > ".join(f"{each['form']} in {each['precision']}" for each in record["passes"])
    target = "" if taken["target_ms"] is None else f", for a target of {taken['target_ms']:.3f} ms"
    return [
        f"An image takes {taken['mean_ms']:.3f} ms on average{target} ({taken['runtime']}, batch {taken['batch']}, "
        f"{_counted(taken['threads'], 'thread')}; half of the calls {taken['p50']:.3f}, 99% {taken['p99']:.3f} ms an "
        f"image or less), test images as they come, in a process of its own. The dense network in float32 takes "
        f"{taken['dense_ms']:.3f} ms there: {taken['speedup']:.2f} times as long.",
        f"The passes are {names}{', and the mean of their answers counts' if record['average'] else ''}, "
        f"{record['size']['bytes']:,} bytes. They were chosen on {chosen['images']} validation images, of which "
        f"{100 * chosen['accuracy']:.2f}% are answered rightly, and {100 * chosen['dense_accuracy']:.2f}% by the dense "
        f"network (± {chosen['standard_error']:.2f} points, one standard error of the difference). These images chose, "
        "so that their own figure flatters it.",
    ]


def warnings(record: Mapping[str, Any]) -> list[str]:
    """List what a user should know before the network is shipped, each with a remedy.

    Code stands between backticks.
    """
    flops, routes = record["flops"], record["routes"]
    found: list[str] = []
    before, right = record["accuracy"]["dense"], record["accuracy"]["routed"]
    if before is not None and record["method"] != "dense" and before - right > FELL:
        found.append(
            f"Accuracy fell apart: {100 * right:.1f}% of the test images are answered rightly, {100 * before:.1f}% by "
            "the dense network. Train for longer (`training.epochs`), ask for a larger budget, or let `routekit "
            "compare` find a method that keeps more of it."
        )
    if record["method"] != "routed":
        return found
    decided = [junctions[kind] for kind in record.get("junctions", []) if kind in junctions]
    # Old records do not name their junctions: those were at units and at exits.
    at_units = "junctions" not in record or any(kind.rank == 0 for kind in decided)
    # Exits alone make few routes: each adds no more than a bit.
    if routes["entropy_bits"] < 1 and at_units:
        found.append(
            f"Routing has collapsed: {_counted(routes['unique'], 'route')}, {routes['entropy_bits']:.2f} bits, hardly "
            "more than a static network: try a larger `training.router_learning_rate` or "
            "`training.congestion`, or prune."
        )
    found += _of_rates(routes["run_rate"], exits="junctions" not in record or any(kind.policies for kind in decided))
    off, chance = flops["realized"] / flops["target"] - 1, flops.get("chance", 0.0) / flops["target"]
    if OFF < abs(off) <= 2 * chance:
        found.append(
            f"The cost is {100 * off:+.1f}% off its target, which may be chance: so few validation and test images "
            f"tell a mean cost within {100 * chance:.1f}% (one standard error). Give more of the former (`data.val`)."
        )
    elif abs(off) > OFF:
        # Units are steered only while they are trained; a threshold can be set at any time.
        again = "" if at_units else ", or meet the budget again with `routekit evaluate --target-flops`"
        found.append(
            f"The cost is {100 * off:+.1f}% off its target: what decides was not trained, or test images differ from "
            f"the validation images on which it was set. Train it, give more of those (`data.val`){again}."
        )
    return found


def _of_rates(run_rate: Mapping[str, float], *, exits: bool) -> list[str]:
    """The warnings about shares of the images, by column; `exits` is whether the user can name exits one by one."""
    units, past = dict[str, float](), dict[str, float]()
    for name, rate in run_rate.items():
        if name.startswith(PAST):
            past[spoken(name.removeprefix(PAST))] = rate
        elif not name.startswith(FORKS):  # the share that takes the first sink: the others take the second
            units[name] = rate
    unit_of = {name: name.partition(" branch ")[0] for name in units}
    used = {unit_of[name] for name, rate in units.items() if rate}
    fewer, leave_out = "for fewer exits (`junctions.exit.at`)", "Leave it out (`junctions.exit.at`)"
    if not exits:
        fewer, leave_out = (
            "for a narrower form (`junctions.cascade.width`)",
            "Ask for a smaller budget, or for another `junctions.cascade.width`",
        )
    behind = f"on past {{}}: what lies behind is not used. Ask for a larger budget, or {fewer}."
    found = {
        "No test image runs {}: `routekit export` leaves out what no validation image runs, either.": [
            unit for unit in dict.fromkeys(unit_of.values()) if unit not in used
        ],
        "Hardly any image runs {}: with fewer choices, the rest might learn better.": [
            name for name, rate in units.items() if rate < RARE and unit_of[name] in used
        ],
        "All images, or nearly all, run {}: nothing is decided there.": [
            name for name, rate in units.items() if rate > 1 - RARE
        ],
        f"No image goes {behind}": [name for name, rate in past.items() if not rate],
        f"Hardly any image goes {behind}": [name for name, rate in past.items() if 0 < rate < RARE],
        f"All images, or nearly all, go on past {{}}: the exit there costs something and answers hardly any. "
        f"{leave_out}.": [name for name, rate in past.items() if rate > 1 - RARE],
    }
    return [sentence.format(", ".join(names)) for sentence, names in found.items() if names]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
