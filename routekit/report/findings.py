"""What the record of one run says, in sentences: what was measured, and what to be wary of."""

from collections.abc import Mapping
from typing import Any

from routekit.junctions.kinds import junctions
from routekit.macs import CONVENTION, describe

# A unit that fewer images run, or fewer do not run, is as good as static.
RARE = 0.01
# Off target by more than this share of it, a budget is missed.
OFF = 0.02
# How columns are called that say whether an image goes on; and how, now and formerly, those that say where at a fork.
PAST, FORKS = "past ", ("first sink at ", "first way")


def facts(record: Mapping[str, Any]) -> list[str]:
    """What was measured, in sentences."""
    flops, accuracy, routes = record["flops"], record["accuracy"], record["routes"]
    asked = "" if flops["target"] is None else f", for a budget of {100 * flops['target'] / flops['dense']:.2f}%"
    before = "" if accuracy["dense"] is None else f", {100 * accuracy['dense']:.2f}% by the dense network"
    said = [
        f"{100 * accuracy['routed']:.2f}% of {record['images']} {record['split']} images of {record['data']} are "
        f"answered rightly{before}.",
        f"On average, one costs {describe(flops['realized'])}: {100 * flops['realized'] / flops['dense']:.2f}% of what "
        f"it costs in the dense network{asked}.",
        _routes(routes),
    ]
    if "shuffled_accuracy" in record and routes["unique"] > 1:
        said.append(f"With another image's route, {100 * record['shuffled_accuracy']:.2f}% would be right.")
    where = record["environment"]
    threads = _counted(where["threads"], "thread")
    # Where a network was set for another budget, nothing was trained for it.
    epochs = f"{record['epochs']:g} epochs, " if "epochs" in record else ""
    said.append(
        f"Costs are {CONVENTION}, routers and exits included. Seed {record.get('seed', 0)}, {epochs}"
        f"{record['seconds']:.0f} s on {where['device']}, {threads}, {where['date']}."
    )
    return said


def _routes(routes: Mapping[str, Any]) -> str:
    if routes["unique"] == 1:
        return f"All images take the same route: {routes['mean_units']:.0f} of {routes['units']} units run."
    return (
        f"They take {routes['unique']} routes ({routes['entropy_bits']:.2f} bits), on which {routes['mean_units']:.1f} "
        f"of {routes['units']} units run on average."
    )


def warnings(record: Mapping[str, Any]) -> list[str]:
    """What a user should know before this network is shipped, each with a way out. Code stands between backticks."""
    flops, routes = record["flops"], record["routes"]
    found: list[str] = []
    if record["method"] != "routed":
        return found
    decided = [junctions[kind] for kind in record.get("junctions", []) if kind in junctions]
    # What was recorded before it was said what is decided, is of units, and of exits.
    at_units = "junctions" not in record or any(kind.rank == 0 for kind in decided)
    # Exits alone make few routes: whether an image goes on is no more than a bit each.
    if routes["entropy_bits"] < 1 and at_units:
        found.append(
            f"Routing has collapsed: {_counted(routes['unique'], 'route')}, {routes['entropy_bits']:.2f} bits, hardly "
            "more than a static network: try `--set` with a larger `training.router_learning_rate` or "
            "`training.congestion`, or prune."
        )
    # Of a fork it is the share that goes on by the first sink: the others take the second.
    rates = {name: rate for name, rate in routes["run_rate"].items() if not name.startswith(FORKS)}
    exits = {name.removeprefix(PAST): rate for name, rate in rates.items() if name.startswith(PAST)}
    found += _of_units({name: rate for name, rate in rates.items() if not name.startswith(PAST)})
    found += _of_exits(exits, named="junctions" not in record or any(kind.policies for kind in decided))
    off, chance = flops["realized"] / flops["target"] - 1, flops.get("chance", 0.0) / flops["target"]
    if OFF < abs(off) <= 2 * chance:
        found.append(
            f"The cost is {100 * off:+.1f}% off its target, which may be chance: so few validation and test images "
            f"tell a mean cost within {100 * chance:.1f}% (one standard error). Give more of the former (`--val`)."
        )
    elif abs(off) > OFF:
        # Units are steered while they learn; a threshold can be set at any time.
        again = "" if at_units else ", or meet the budget again with `routekit evaluate --target-flops`"
        found.append(
            f"The cost is {100 * off:+.1f}% off its target: what decides was not trained, or test images differ from "
            f"the validation images on which it was set. Train it, give more of those (`--val`){again}."
        )
    return found


def _of_units(rates: Mapping[str, float]) -> list[str]:
    found = []
    units: dict[str, dict[str, float]] = {}
    for name, rate in rates.items():
        units.setdefault(name.partition(" branch ")[0], {})[name] = rate
    unused = [unit for unit, own in units.items() if not any(own.values())]
    if unused:
        found.append(f"No test image takes {', '.join(unused)}: `routekit export` leaves out what none does.")
    rare = [name for unit, own in units.items() if unit not in unused for name, rate in own.items() if rate < RARE]
    if rare:
        found.append(f"Hardly any image takes {', '.join(rare)}: with fewer choices, the rest might learn better.")
    always = [name for name, rate in rates.items() if rate > 1 - RARE]
    if always:
        found.append(f"All images, or nearly all, take {', '.join(always)}: nothing is decided there.")
    return found


def _of_exits(rates: Mapping[str, float], *, named: bool) -> list[str]:
    """`named` says whether there are exits that can be asked for one by one."""
    found = []
    fewer, leave_out = "for fewer exits (`--exits`)", "Leave it out (`--exits`)"
    if not named:
        fewer, leave_out = "for a narrower form (`--narrow`)", "Ask for a smaller budget, or for another `--narrow`"
    for said, exits in {
        "No image goes": [name for name, rate in rates.items() if not rate],
        "Hardly any image goes": [name for name, rate in rates.items() if 0 < rate < RARE],
    }.items():
        if exits:
            found.append(
                f"{said} on past {', '.join(exits)}: what lies behind is not used. Ask for a larger budget, or {fewer}."
            )
    all_go_on = [name for name, rate in rates.items() if rate > 1 - RARE]
    if all_go_on:
        found.append(
            f"All images, or nearly all, go on past {', '.join(all_go_on)}: the exit there costs something and answers "
            f"hardly any. {leave_out}."
        )
    return found


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
