"""What all HTML pages have around them. A page loads nothing from elsewhere."""

import re
from html import escape
from importlib import resources


def shell(title: str, body: str) -> str:
    """A whole HTML document, with the style and the script of all pages in it."""
    parts = resources.files("routekit.report")
    css, script = ((parts / name).read_text() for name in ("page.css", "page.js"))
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{css}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n"
        f"<script>{script}</script></body></html>\n"
    )


def prose(text: str) -> str:
    """A sentence as HTML: what stands between backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def drawn(svg: str, heading: str, caption: str) -> str:
    """A drawing, as an SVG document, in a page, with what it shows above and how to read it below."""
    picture = f"<svg role=img aria-label='{escape(heading, quote=True)}'{svg[svg.index('<svg') + 4 :]}"
    return f"<figure><h2>{escape(heading)}</h2>{picture}<figcaption>{prose(caption)}</figcaption></figure>"
