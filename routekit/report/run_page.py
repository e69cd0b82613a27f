"""The report of one run: what it learned, what its routes are, and what to be wary of."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from routekit.macs import CONVENTION, describe
from routekit.report.page import drawn, shell

# A unit that fewer images run, or fewer do not run, is as good as static.
RARE = 0.01
# Off target by more than this share of it, a budget is missed.
OFF = 0.02


def warnings(record: Mapping[str, Any]) -> list[str]:
    """What a user should know before this network is shipped, each with a way out."""
    flops, routes = record["flops"], record["routes"]
    found: list[str] = []
    if record["method"] != "routed":
        return found
    # Exits alone make few routes: whether an image goes on is no more than a bit each.
    if routes["entropy_bits"] < 1 and {"skip", "branch"} & set(record.get("junctions", ["skip"])):
        found.append(
            f"Routing has collapsed: {routes['unique']} routes, {routes['entropy_bits']:.2f} bits, hardly more "
            "than a static network: try --set with a larger training.router_learning_rate or training.congestion, or "
            "prune."
        )
    # Of a fork it is the share of the first way: the others take the second.
    rates = {name: rate for name, rate in routes["run_rate"].items() if not name.startswith("first way")}
    dead = [name for name, rate in rates.items() if rate < RARE]
    if dead:
        found.append(f"No image, or hardly any, takes {', '.join(dead)}: `routekit export` leaves out what none does.")
    always = [name for name, rate in rates.items() if rate > 1 - RARE]
    if always:
        found.append(f"All images, or nearly all, take {', '.join(always)}: nothing is decided there.")
    off = flops["realized"] / flops["target"] - 1
    if abs(off) > OFF:
        found.append(
            f"The cost is {100 * off:+.1f}% off its target: test images differ from the validation images on which it "
            "was set. Give more of those (--val), or meet the budget again with evaluate --target-flops."
        )
    return found


def facts(record: Mapping[str, Any]) -> list[str]:
    """What was measured, in sentences."""
    flops, accuracy, routes = record["flops"], record["accuracy"], record["routes"]
    share = 100 * flops["realized"] / flops["dense"]
    said = [
        f"{100 * accuracy['routed']:.2f}% of {record['images']} {record['split']} images of {record['data']}, at "
        f"{describe(flops['realized'])}: {share:.2f}% of the dense network, which has {100 * accuracy['dense']:.2f}%.",
        f"{routes['unique']} routes, {routes['entropy_bits']:.2f} bits; {routes['mean_units']:.1f} of "
        f"{routes['units']} units on average.",
    ]
    if "shuffled_accuracy" in record:
        said.append(f"With another image's route: {100 * record['shuffled_accuracy']:.2f}%.")
    where = record["environment"]
    said.append(
        f"Costs are {CONVENTION}, routers and exits included. Seed {record.get('seed', 0)}, "
        f"{record.get('epochs', 0):g} epochs, {record['seconds']:.0f} s on {where['device']}, "
        f"{where['threads']} threads, {where['date']}."
    )
    return said


def markdown(record: Mapping[str, Any], analysis: Mapping[str, Any], pictures: Sequence[str]) -> str:
    """The report in Markdown; `pictures` are files beside it."""
    lines = [f"# {record['run']}", "", *facts(record), ""]
    lines += [f"- **{warning}**" for warning in warnings(record)] + [""]
    lines += [f"![{picture}]({picture})\n" for picture in pictures]
    lines += ["| units run | images | accuracy, % | ms, one image alone |", "|---|---|---|---|"]
    lines += [
        f"| {row['units']} | {row['images']} | {100 * row['accuracy']:.2f} | {row['milliseconds']:.2f} |"
        for row in analysis["lengths"]
    ]
    lines += ["", _kept(analysis), ""]
    return "\n".join(lines)


def html(record: Mapping[str, Any], analysis: Mapping[str, Any], drawings: Sequence[str]) -> str:
    """The report as one self-contained page; `drawings` are SVG documents. A click on a route shows its images."""
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in facts(record))
    wary = "".join(f"<li>{escape(warning)}</li>" for warning in warnings(record))
    pictures = "".join(map(drawn, drawings))
    routes = "".join(_route(place, route, analysis) for place, route in enumerate(analysis["shared"]))
    return shell(
        record["run"],
        f"{said}<ul>{wary}</ul>{pictures}<h2>Images that share a route</h2>"
        f"<p>The commonest routes; click one to see some of its images. {escape(_kept(analysis))}</p>{routes}",
    )


def _route(place: int, route: Mapping[str, Any], analysis: Mapping[str, Any]) -> str:
    taken = "".join(
        f"<i class={'on' if runs else 'off'} title='{escape(name, quote=True)}'></i>"
        for name, runs in zip(analysis["columns"], route["runs"], strict=True)
    )
    ranked = sorted(zip(route["classes"], analysis["classes"], strict=True), reverse=True)[:4]
    mostly = ", ".join(f"{name} {count}" for count, name in ranked if count)
    return (
        f"<details class=route{' open' if place == 0 else ''}><summary><span class=units>{taken}</span> "
        f"{route['images']} images, {100 * route['accuracy']:.1f}% right</summary><p>{escape(mostly)}</p>"
        f"<img alt='examples' src='data:image/png;base64,{route['examples']}'></details>"
    )


def _kept(analysis: Mapping[str, Any]) -> str:
    kept = ", ".join(f"{100 * share:.1f}% if {name}" for name, share in analysis["kept"].items())
    return f"Images that keep their route: {kept}."
