"""The report of one run, in Markdown and as an HTML page: the facts, the warnings, the pictures and the routes."""

from collections.abc import Mapping
from html import escape
from itertools import groupby
from typing import Any

from routekit.report.findings import facts, warnings
from routekit.report.page import drawn, in_markdown, markdown_table, prose, shell
from routekit.report.run_pictures import stage_of

# The heading of each picture, and how to read it.
PICTURES = {
    "training": (
        "How it learned",
        "From step to step. Accuracy and the cost's dots are measured on validation images, the loss on training "
        "batches. What is wanted falls to the budget; costs are shares of the dense network's.",
    ),
    "dataflow-over-training": (
        "Where images were answered while it learned",
        "One line for each look at the validation images: the share of them that each classifier answers.",
    ),
    "routes": ("Images that share a route", "The commonest routes: filled is what runs. Beside them, some images."),
    "units": (
        "Who runs what",
        "The share of all test images, and of those of each class, that run a unit, or go on past an exit. A row of "
        "one colour decides nothing; one that differs from class to class knows something of the classes.",
    ),
    "lengths": (
        "Short routes and long ones",
        "By how many units run: how many test images there are, how many of them are answered rightly, and how long "
        "one of them takes alone, in torch, where this report was made.",
    ),
    "dataflow": (
        "Where images are answered",
        "A circle for each classifier, from the first to the last; its area is the share of the test images that are "
        "answered there.",
    ),
    "accuracy-against-cost": (
        "Accuracy against cost",
        "The error rate on test images against the mean cost of one: to the lower left is better. The star is the "
        "dense network.",
    ),
}


def name_of(record: Mapping[str, Any]) -> str:
    """The name of a run: the last part of its path."""
    return str(record["run"]).rstrip("/").rpartition("/")[2]


def markdown(
    record: Mapping[str, Any], analysis: Mapping[str, Any] | None, pictures: Mapping[str, str], note: str = ""
) -> str:
    """Write the report in Markdown.

    Args:
        record: The record of the run.
        analysis: What its network does with the test images. None: this is not known.
        pictures: The file names of the pictures, which lie beside the report.
        note: What is left out, if anything is.

    Returns:
        The text.
    """
    lines = [f"# {in_markdown(name_of(record))}", ""]
    for fact in [*facts(record), *([note] if note else [])]:
        lines += [in_markdown(fact), ""]
    if found := warnings(record):
        lines += [*(f"- **{in_markdown(warning)}**" for warning in found), ""]
    explained = {} if analysis is None else {"lengths": _lengths(analysis), "routes": _kept(analysis)}
    for name, file in pictures.items():
        heading, caption = PICTURES[name]
        lines += [f"## {heading}", "", f"![{heading.lower()}]({file})", "", caption, ""]
        if name in explained:
            lines += [explained[name], ""]
    return "\n".join(lines)


def html(
    record: Mapping[str, Any], analysis: Mapping[str, Any] | None, drawings: Mapping[str, str], note: str = ""
) -> str:
    """Write the report as a page that loads nothing. A click on a route shows its images.

    Args:
        record: The record of the run.
        analysis: What its network does with the test images. None: this is not known.
        drawings: The pictures, as SVG documents.
        note: What is left out, if anything is.

    Returns:
        The HTML document.
    """
    text = "".join(f"<p>{prose(sentence)}</p>" for sentence in facts(record))
    text += f"<p class=note>{prose(note)}</p>" if note else ""
    found = "".join(f"<li>{prose(warning)}</li>" for warning in warnings(record))
    text += f"<ul class=warnings>{found}</ul>" if found else ""
    pictures = "".join(drawn(drawing, *PICTURES[name]) for name, drawing in drawings.items())
    routes = "" if analysis is None else _routes(analysis)
    return shell(name_of(record), f"{text}<div class=figures>{pictures}</div>{routes}")


def _lengths(analysis: Mapping[str, Any]) -> str:
    lines = [
        [f"{row['units']}", f"{row['images']}", f"{100 * row['accuracy']:.2f}", f"{row['milliseconds']:.2f}"]
        for row in analysis["lengths"]
    ]
    return markdown_table(["units run", "images", "accuracy, %", "ms, one image alone"], lines)


def _routes(analysis: Mapping[str, Any]) -> str:
    """The commonest routes, which answer to clicks."""
    stages = [(stage, len(list(names))) for stage, names in groupby(analysis["columns"], stage_of)]
    boxes = ", ".join(f"{count} of {stage}" for stage, count in stages)
    routes = "".join(_route(place, route, analysis) for place, route in enumerate(analysis["shared"]))
    return (
        "<h2>Images that share a route</h2><p>The commonest routes; click one to see some of its images. Its boxes "
        f"are, from left to right, {escape(boxes)}; filled is what runs.</p>{routes}<p>{escape(_kept(analysis))}</p>"
    )


def _route(place: int, route: Mapping[str, Any], analysis: Mapping[str, Any]) -> str:
    """A route, with its boxes by stage, its commonest classes, and examples, each with whether it was right."""
    taken = ""
    for _, stage in groupby(zip(analysis["columns"], route["runs"], strict=True), lambda column: stage_of(column[0])):
        boxes = (f"<i class={'on' if on else 'off'} title='{escape(name, quote=True)}'></i>" for name, on in stage)
        taken += f"<span>{''.join(boxes)}</span>"
    ranked = sorted(zip(route["classes"], analysis["classes"], strict=True), reverse=True)[:4]
    # A class whose name is a number is called a class.
    mostly = ", ".join(f"{'class ' if name.isdigit() else ''}{name}: {count}" for count, name in ranked if count)
    marks = ""
    if route["right"] is not None:  # analyses of former versions do not hold it
        right = (f"<b class={'right' if right else 'wrong'}>{'✓' if right else '✗'}</b>" for right in route["right"])
        marks = f"<div class=marks title='✓ answered rightly, ✗ wrongly'>{''.join(right)}</div>"
    examples = escape(route["examples"], quote=True)
    return (
        f"<details class=route{' open' if place == 0 else ''}><summary><span class=units>{taken}</span> "
        f"<span>{route['images']} images, {100 * route['accuracy']:.1f}% right</span></summary>"
        f"<p>{escape(mostly)}</p><div class=strip>"
        f"<img alt='examples' src='data:image/png;base64,{examples}'>{marks}</div></details>"
    )


def _kept(analysis: Mapping[str, Any]) -> str:
    kept = ", ".join(f"{100 * share:.1f}% if {name}" for name, share in analysis["kept"].items())
    return f"Images that keep their route: {kept}."
