"""The parts that pages share: the frame of an HTML page, prose, drawings and tables. A page loads nothing."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources


def shell(title: str, body: str) -> str:
    """Make a whole HTML document, which holds the style and the script of all pages.

    Args:
        title: The title, as plain text.
        body: What stands below the title, as HTML.

    Returns:
        The document.
    """
    parts = resources.files("routekit.report")
    css, script = ((parts / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{css}</style></head>\n<body><main><h1>{escape(title)}</h1>\n{body}\n</main>"
        f"<script>{script}</script></body></html>\n"
    )


def prose(text: str) -> str:
    """Turn a sentence into HTML: text between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def in_markdown(text: str) -> str:
    """Turn a sentence into Markdown: names of others in it are words, and neither links nor HTML nor a new line."""
    # Two or more backticks in a row begin no code of ours.
    parts = re.split(r"((?<!`)`[^`]+`(?!`))", " ".join(text.split()))
    return "".join(part if place % 2 else MARKS.sub(r"\\\g<0>", part) for place, part in enumerate(parts))


# What would be markup. Signs inside of words, such as _, are none.
MARKS = re.compile(r"[<>\[\]|\\]|(?<!\w)[*_](?=\S)|`")


def drawn(svg: str, heading: str, caption: str) -> str:
    """Put a drawing into a page.

    Args:
        svg: The drawing, an SVG document.
        heading: What it shows. This stands above it.
        caption: How to read it. This stands below it.

    Returns:
        The figure, as HTML.
    """
    picture = f"<svg role=img aria-label='{escape(heading, quote=True)}'{svg[svg.index('<svg') + 4 :]}"
    return f"<figure><h2>{escape(heading)}</h2>{picture}<figcaption>{prose(caption)}</figcaption></figure>"


def html_line(entries: Iterable[str], attributes: str = "") -> str:
    """Make a line of an HTML table.

    Args:
        entries: The cells, as HTML.
        attributes: The attributes of the line, with a space before each.

    Returns:
        The line.
    """
    return f"<tr{attributes}>{''.join(f'<td>{entry}' for entry in entries)}</tr>"


def html_table(head: Iterable[str], lines: Iterable[str], attributes: str = "", label: str = "Table") -> str:
    """Make an HTML table, which scrolls where the page is too narrow for it, by the keyboard as well.

    Args:
        head: The titles of the columns, as plain text.
        lines: The lines below them, by `html_line`.
        attributes: The attributes of the table, with a space before each.
        label: What the table shows, for people who hear the page.

    Returns:
        The table.
    """
    titles = "".join(f"<th>{escape(title)}" for title in head)
    body = f"<thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody>"
    box = f"class=wide role=region tabindex=0 aria-label='{escape(label, quote=True)}'"
    return f"<div {box}><table{attributes}>{body}</table></div>"


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Make a Markdown table.

    Args:
        head: The titles of the columns.
        lines: The entries of each line below them.

    Returns:
        The table, without a line break at its end.
    """
    first, *more = (f"| {' | '.join(entries)} |" for entries in (head, *lines))
    return "\n".join([first, "|---" * len(head) + "|", *more])
