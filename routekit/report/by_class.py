"""The second section of a run's report: what changed for each class, and which images changed their answer."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from routekit.evaluation.answers import unpack
from routekit.report.chance import mcnemar
from routekit.report.page import html_line, html_table, in_markdown, markdown_table

HEADING = "What changed for each class"
# So many classes are seen at once; the others are unfolded.
SEEN = 20
LOST, GAINED = "Right before, wrong now", "Wrong before, right now"


def rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """List the classes, those that lost most first.

    Args:
        found: The entry "by_class" of a record.

    Returns:
        The titles of the columns, and a line for each class.
    """
    dense = found.get("dense_right")
    title = ["class", "test images", *([] if dense is None else ["dense network, %"]), "this network, %"]
    title += [] if dense is None else ["difference, points"]
    lines = []
    counted = zip(found["class"], found["images"], found["right"], dense or found["right"], strict=True)
    for name, images, right, before in counted:
        if images:
            share, was = 100 * right / images, 100 * before / images
            cells = [f"{share:.1f}"] if dense is None else [f"{was:.1f}", f"{share:.1f}", f"{share - was:+.1f}"]
            lines.append((share - was, [name, str(images), *cells]))
    return title, [line for _, line in sorted(lines, key=lambda each: each[0])]


def counts(record: Mapping[str, Any], changes: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """How many test images only the dense network answers rightly, and how many only this one; None: not known."""
    if "right" in record and "dense_right" in record:
        right, dense = (unpack(record[each], record["images"]) for each in ("right", "dense_right"))
        return int((dense & ~right).sum()), int((right & ~dense).sum())
    return None if changes is None else (changes["lost"], changes["gained"])


def said(record: Mapping[str, Any], found: tuple[int, int]) -> str:
    """What changed in all, in words, and whether that may be chance."""
    lost, gained = found
    chance = mcnemar(lost, gained)
    told = "So large a difference would hardly be chance" if chance < 0.05 else "The difference may be chance"
    return (
        f"Of {record['images']} test images, {lost} were answered rightly by the dense network and are answered "
        f"wrongly now. {gained} were answered wrongly and are answered rightly now. {told} (McNemar's exact test: p = "
        f"{chance:.2g})."
    )


def markdown(record: Mapping[str, Any], changes: Mapping[str, Any] | None) -> list[str]:
    """Write the section in Markdown.

    Args:
        record: The record of the run.
        changes: The images that changed their answer, if these were looked at.

    Returns:
        Its lines; none where nothing is known of the classes.
    """
    classes = record.get("by_class") or (changes or {}).get("by_class")
    if not classes:
        return []
    title, lines = rows(classes)
    lines = [[in_markdown(cell) for cell in line] for line in lines[:SEEN]]
    found = counts(record, changes)
    more = [in_markdown(said(record, found)), ""] if found else []
    rest = [f"These are the {SEEN} classes that lost most.", ""] if len(classes["class"]) > SEEN else []
    return [f"## {HEADING}", "", *more, markdown_table(title, lines), "", *rest]


def html(record: Mapping[str, Any], changes: Mapping[str, Any] | None) -> str:
    """Write the section as HTML, with images that changed their answer where they are known.

    Args:
        record: The record of the run.
        changes: The images that changed their answer, if these were looked at.

    Returns:
        The HTML; empty where nothing is known of the classes.
    """
    classes = record.get("by_class") or (changes or {}).get("by_class")
    if not classes:
        return ""
    title, lines = rows(classes)
    cells = [html_line(map(escape, line)) for line in lines]
    note = "" if "dense_right" in classes else "What the dense network answers of each class is not in the record. "
    fewest = min(filter(None, classes["images"]), default=0)
    note += f"Where a class has {fewest} images, one image is {100 / fewest:.1f} points." if fewest else ""
    text = f"<h2>{HEADING}</h2>{html_table(title, cells[:SEEN], label=HEADING)}"
    if len(cells) > SEEN:
        rest = html_table(title, cells[SEEN:], label="The other classes")
        text += f"<details><summary>The other {len(cells) - SEEN} classes</summary>{rest}</details>"
    text += f"<p class=note>{note}</p>"
    if found := counts(record, changes):
        text += f"<p>{escape(said(record, found))}</p>"
    if changes is not None:
        text += _examples(LOST, changes["lost"], changes["lost_examples"])
        text += _examples(GAINED, changes["gained"], changes["gained_examples"])
    return text


def _examples(heading: str, count: int, examples: Sequence[Mapping[str, str]]) -> str:
    """Some images, each with the name of its class."""
    if not examples:
        return ""
    shown = "".join(
        f"<li><img alt='an image of {escape(each['name'], quote=True)}' src='data:image/jpeg;base64,{each['image']}'>"
        f"<span>{escape(each['name'])}</span></li>"
        for each in examples
    )
    some = f" ({len(examples)} of {count})" if count > len(examples) else f" ({count})"
    return f"<h3>{heading}{some}</h3><ul class=examples>{shown}</ul>"
