"""`routekit recipes`: the settings that come with routekit, and one's own."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .output import result

recipes = typer.Typer(help="List, show, copy and validate recipes.", no_args_is_help=True, rich_markup_mode=None)

Shipped = Annotated[str, typer.Argument(help="The name of a recipe of routekit, or a YAML file.")]


@recipes.command("list")
def list_(json: o.Json = False) -> None:
    """List the recipes that come with routekit, and the purpose of each."""
    from routekit.recipe import recipe_text, shipped_recipes

    purposes = {name: _purpose(recipe_text(name)) for name in shipped_recipes()}
    width = max(map(len, purposes))
    text = "\n".join(f"{name:<{width}}  {purpose}" for name, purpose in purposes.items())
    result({"recipes": purposes}, text, as_json=json)


@recipes.command()
def show(name: Shipped, json: o.Json = False) -> None:
    """Print a recipe: its purpose, its command, its measured result, and its settings."""
    from routekit.recipe import recipe_text

    text = recipe_text(name)
    result({"recipe": name, "text": text}, text.rstrip("\n"), as_json=json)


@recipes.command()
def copy(
    name: Shipped,
    file: Annotated[Path, typer.Argument(help="The file to write: mine.yaml.")],
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Copy a recipe to FILE, to change it and use it with --recipe FILE."""
    from routekit.errors import InputError
    from routekit.files import check_file
    from routekit.manifest import replace_file
    from routekit.recipe import recipe_text

    text = recipe_text(name)
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(f"{file}: a recipe is a .yaml file")
    check_file(file, force=force)
    replace_file(file, lambda stream: stream.write(text.encode()))  # it is the user's, wherever it lies
    result({"recipe": name, "file": str(file)}, f"{file}", as_json=json)


@recipes.command()
def validate(name: Shipped, json: o.Json = False) -> None:
    """Check a recipe, all but its images: what `convert` would refuse. Faults have their line and the nearest name."""
    from routekit.pipeline.plan import check_recipe
    from routekit.recipe import check_no_code, load_recipe

    check_no_code(name)
    check_recipe(load_recipe(name))
    result({"recipe": name, "valid": True}, f"{name} is valid", as_json=json)


def _purpose(text: str) -> str:
    """The first sentence of a recipe's header."""
    header = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    return header.partition(". ")[0].rstrip(".") + "."
