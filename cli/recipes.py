"""`routekit recipes`: the settings that come with routekit, and one's own."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .output import result


def register(app: typer.Typer) -> None:
    """Add the command and its parts."""
    recipes = typer.Typer(help="List, show, copy and check recipes.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(recipes, name="recipes")

    @recipes.command("list")
    def list_(json: o.Json = False) -> None:
        """Say which recipes come with routekit, and what each is for."""
        from routekit.recipe import recipe_text, shipped_recipes

        purposes = {name: _purpose(recipe_text(name)) for name in shipped_recipes()}
        width = max(map(len, purposes))
        text = "\n".join(f"{name:<{width}}  {purpose}" for name, purpose in purposes.items())
        result({"recipes": purposes}, text, as_json=json)

    @recipes.command()
    def show(name: Annotated[str, typer.Argument(help="A shipped recipe's name, or a YAML file.")]) -> None:
        """Print a recipe: its purpose, its command, what was measured, and its settings."""
        from routekit.recipe import recipe_text

        typer.echo(recipe_text(name), nl=False)

    @recipes.command()
    def copy(
        name: Annotated[str, typer.Argument(help="A shipped recipe's name.")],
        file: Annotated[Path, typer.Argument(help="Where to write it: mine.yaml.")],
        force: o.Force = False,
    ) -> None:
        """Copy a recipe to FILE, to be changed and used with --recipe FILE."""
        from routekit.errors import InputError
        from routekit.recipe import recipe_text

        text = recipe_text(name)
        if file.suffix not in (".yaml", ".yml"):
            raise InputError(f"{file}: a recipe is a .yaml file")
        if file.exists() and not force:
            raise InputError(f"{file} exists: choose another name, or replace it with --force")
        try:
            file.write_text(text)
        except OSError as error:
            raise InputError(f"cannot write to {file}: {error.strerror}") from error
        typer.echo(f"{file}")

    @recipes.command()
    def validate(name: Annotated[str, typer.Argument(help="A shipped recipe's name, or a YAML file.")]) -> None:
        """Check a recipe: every fault at once, with its line and the nearest name that there is."""
        from routekit.recipe import load_recipe

        load_recipe(name)
        typer.echo(f"{name} is valid")


def _purpose(text: str) -> str:
    """The first sentence of a recipe's header."""
    header = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    return header.partition(". ")[0].rstrip(".") + "."
