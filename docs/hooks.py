"""What the site takes from the repository when it is built, so that no page can be out of date.

The commands come from the command line itself, tables of measurements from the READMEs (a test compares those with the
records), notebooks become pages, and what the repository says elsewhere is a part of the site.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

import typer
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click

ROOT = Path(__file__).parent.parent
# What is in the site under `repository/`, where it lies in the repository.
PAGES = ["*.md", "routekit/README.md", "reports/README.md", "reports/*/report.md"]
PICTURES = ["reports/*/*.svg", "reports/*/*.png"]
# `<!-- table: KIND NAME -->` stands for what lies between `<!-- begin KIND NAME -->` and its end.
TABLE = re.compile(r"<!-- table: (.+?) -->")
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)")
BLOCK = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and pictures that do not lie in `docs/`."""
    made = {"commands.md": commands()}
    for notebook in Path(__file__).parent.glob("*.ipynb"):
        made[f"{notebook.stem}.md"] = from_notebook(notebook)
    for path in found(PAGES):
        made[f"repository/{path}"] = (ROOT / path).read_text()
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    for path in found(PICTURES):
        files.append(File.generated(config, f"repository/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put tables in, and lead links to where things are in the site. Code stays as it is."""
    del config
    here = page.file.src_uri
    markdown = TABLE.sub(lambda match: table(match[1]), markdown)
    parts = BLOCK.split(markdown)
    parts[::2] = [LINK.sub(lambda match: link(match, here, files), part) for part in parts[::2]]
    return "".join(parts)


def found(patterns: list[str]) -> list[str]:
    """The files of the repository that patterns name."""
    return sorted(path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern))


def commands() -> str:
    """All commands and their options, as `typer routekit_cli.main utils docs` writes them."""
    from routekit_cli.main import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="routekit"), name="routekit")
    # The first title is that of the page. Examples are lines of code.
    text = re.sub(r"^(routekit .*)\n", r"    \1\n", text, flags=re.MULTILINE)
    return text.replace("# `routekit`", "# Commands", 1)


def from_notebook(path: Path) -> str:
    """The cells of a notebook as a page."""
    cells = json.loads(path.read_text())["cells"]
    texts = [("".join(cell["source"]), cell["cell_type"] == "code") for cell in cells]
    return "\n\n".join(f"```python\n{text}\n```" if code else text for text, code in texts)


def table(name: str) -> str:
    """A table of the READMEs, without its marks."""
    for readme in ("README.md", "reports/README.md"):
        _, begun, rest = (ROOT / readme).read_text().partition(f"<!-- begin {name} -->\n")
        if begun:
            return rest.partition(f"<!-- end {name} -->")[0]
    raise PluginError(f"no README has a table {name!r}")


def link(match: re.Match[str], here: str, files: Files) -> str:
    """Lead a link of a page to a page of the site; where there is none, only its text is left."""
    text, target, anchor = match[1], match[2], match[3] or ""
    lies = here if here.startswith("repository/") else f"repository/docs/{here}"
    path = posixpath.normpath(posixpath.join(posixpath.dirname(lies), target))
    path = path.removeprefix("repository/docs/").replace(".ipynb", ".md")
    if (file := files.get_file_from_path(path)) is None:
        own = not here.startswith("repository/")
        if own and not (ROOT / path.removeprefix("repository/")).exists():
            raise PluginError(f"{here}: there is no {target}")
        return text
    return f"[{text}]({posixpath.relpath(file.src_uri, posixpath.dirname(here) or '.')}{anchor})"
