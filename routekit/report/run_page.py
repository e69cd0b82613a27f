"""The report of one run, in Markdown and as an HTML page: the facts, the warnings, the pictures and the routes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any

from routekit.report import by_class
from routekit.report.curve import Curve
from routekit.report.findings import facts, warnings
from routekit.report.page import drawn, in_markdown, markdown_table, prose, shell
from routekit.report.run_pictures import stage_of
from routekit.report.settings import Setting

# The picture of the curve, and the heading of the facts.
CURVE, MEASURED = "accuracy-against-cost", "What was measured"
# The heading of each picture, and how to read it.
PICTURES = {
    "training": (
        "How it learned",
        "From step to step. Accuracy and the cost's dots are measured on validation images, the loss on training "
        "batches. Where the cost is steered, the dashed line is what is wanted of it.",
    ),
    "dataflow-over-training": (
        "Where images were answered while it learned",
        "One line for each look at the validation images: the share of them that each classifier answers.",
    ),
    "routes": (
        "Images that share a route",
        "The commonest routes: filled is what runs, or goes on. Beside them, some images.",
    ),
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
}


def name_of(record: Mapping[str, Any]) -> str:
    """The name of a run: the last part of its path."""
    return str(record["run"]).rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class Contents:
    """What is reported of a run.

    Attributes:
        record: Its record.
        analysis: What its network does with the test images. None: this is not known.
        settings: What it does at other thresholds, where these can be moved; the chosen setting among them.
        changes: The images that it answers otherwise than the dense network. None: this is not known.
        note: What is left out, if anything is.
    """

    record: Mapping[str, Any]
    analysis: Mapping[str, Any] | None = None
    settings: Sequence[Setting] = ()
    changes: Mapping[str, Any] | None = None
    note: str = ""

    @property
    def curve(self) -> Curve:
        """Accuracy against cost."""
        return Curve.of(self.record, self.settings)


def markdown(contents: Contents, pictures: Mapping[str, str]) -> str:
    """Write the report in Markdown.

    Args:
        contents: What is reported.
        pictures: The file names of the pictures, which lie beside the report; the curve's is the first.

    Returns:
        The text.
    """
    record, analysis = contents.record, contents.analysis
    lines = [f"# {in_markdown(name_of(record))}", ""]
    if found := warnings(record):
        lines += [*(f"- **{in_markdown(warning)}**" for warning in found), ""]
    lines += contents.curve.markdown(pictures[CURVE]) if CURVE in pictures else []
    lines += [*by_class.markdown(record, contents.changes), f"## {MEASURED}", ""]
    for fact in [*facts(record), *([contents.note] if contents.note else [])]:
        lines += [in_markdown(fact), ""]
    explained = {} if analysis is None else {"lengths": _lengths(analysis), "routes": _kept(analysis)}
    for name, file in pictures.items():
        if name == CURVE:
            continue
        heading, caption = PICTURES[name]
        lines += [f"## {heading}", "", f"![{heading.lower()}]({file})", "", caption, ""]
        if name in explained:
            lines += [explained[name], ""]
    return "\n".join(lines)


def html(contents: Contents, drawings: Mapping[str, str], places: Sequence[tuple[float, float]] = ()) -> str:
    """Write the report as a page that loads nothing. A slider moves the threshold; a click on a route shows its images.

    Args:
        contents: What is reported.
        drawings: The pictures, as SVG documents.
        places: Where each setting lies in the picture of the curve.

    Returns:
        The HTML document.
    """
    record, analysis = contents.record, contents.analysis
    found = [f"<li>{prose(warning)}</li>" for warning in warnings(record)]
    several = "is a warning" if len(found) == 1 else f"are {len(found)} warnings"
    body = f"<p>There {several} about this network: <a href=#warnings>read on below</a>.</p>" if found else ""
    body += contents.curve.html(drawings[CURVE], places) if CURVE in drawings else ""
    body += by_class.html(record, contents.changes)
    body += f"<h2 id=warnings>Warnings</h2><ul class=warnings>{''.join(found)}</ul>" if found else ""
    body += f"<h2>{MEASURED}</h2>" + "".join(f"<p>{prose(sentence)}</p>" for sentence in facts(record))
    body += f"<p class=note>{prose(contents.note)}</p>" if contents.note else ""
    pictures = "".join(drawn(drawing, *PICTURES[name]) for name, drawing in drawings.items() if name != CURVE)
    body += f"<div class=figures>{pictures}</div>{'' if analysis is None else _routes(analysis)}"
    return shell(name_of(record), body)


def _lengths(analysis: Mapping[str, Any]) -> str:
    lines = [
        [f"{row['units']}", f"{row['images']}", f"{100 * row['accuracy']:.2f}", f"{row['milliseconds']:.2f}"]
        for row in analysis["lengths"]
    ]
    return markdown_table(["units run", "images", "accuracy, %", "ms, one image alone"], lines)


def _routes(analysis: Mapping[str, Any]) -> str:
    """The commonest routes, which answer to clicks."""
    stages = [(stage, len(list(names))) for stage, names in groupby(analysis["columns"], stage_of)]
    boxes = ", ".join(
        f"{count} {'where images can stop' if stage == 'exits' else 'of ' + stage}" for stage, count in stages
    )
    routes = "".join(_route(place, route, analysis) for place, route in enumerate(analysis["shared"]))
    return (
        "<h2>Images that share a route</h2><p>The commonest routes; click one to see some of its images. Its boxes "
        f"are, from left to right, {escape(boxes)}; filled is what runs, or goes on.</p>{routes}"
        f"<p>{escape(_kept(analysis))}</p>"
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
        f"<img alt='some images that take this route' src='data:image/png;base64,{examples}'>{marks}</div></details>"
    )


def _kept(analysis: Mapping[str, Any]) -> str:
    kept = ", ".join(f"{100 * share:.1f}% if {name}" for name, share in analysis["kept"].items())
    return f"Images that keep their route: {kept}."
