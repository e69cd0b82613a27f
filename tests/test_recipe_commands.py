"""Commands in recipes' headers can be typed: their options, methods and settings are there, and fit together."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import routekit.comparison.estimate
import routekit.pipeline.measure
import routekit.pipeline.train
from routekit.pipeline.plan import resolve
from routekit.pipeline.run_folder import RunFolder
from routekit.recipe import Recipe, load_recipe, recipe_text, shipped_recipes
from tests.cli.command import in_process


def commands(name: str) -> list[str]:
    """The command lines of a recipe's header; a line of options goes on with the one before."""
    found: list[str] = []
    for line in recipe_text(name).splitlines():
        text = re.fullmatch(r"# {3,}((?:routekit |--).*)", line)
        if text is not None and text[1].startswith("routekit "):
            found.append(text[1])
        elif text is not None and text[1].startswith("--"):
            found[-1] += f" {text[1]}"
    return found


EVERY = [pytest.param(name, line, id=f"{name}: {line}") for name in shipped_recipes() for line in commands(name)]


def test_every_recipe_has_a_command() -> None:
    assert [name for name in shipped_recipes() if not commands(name)] == []


@pytest.mark.parametrize(("name", "line"), EVERY)
def test_a_recipes_command_can_be_typed(name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Recipe] = []

    def checked(recipe: Recipe, *_: Any, **__: Any) -> dict[str, Any]:
        resolve(recipe)
        seen.append(recipe)
        return {}

    monkeypatch.setattr(routekit.pipeline.train, "run", checked)
    monkeypatch.setattr(routekit.pipeline.measure, "evaluate_curve", lambda *_, **__: [])
    monkeypatch.setattr(routekit.comparison.estimate, "estimate", lambda *_: 0.0)
    (tmp_path / "WEIGHTS").touch()
    RunFolder.create(tmp_path / "runs" / "RUN", resolve(load_recipe(name, {"target": "70%"})), force=False)
    _, command, *arguments = shlex.split(line)
    dry = ["--dry-run"] if command == "compare" else []
    done = in_process(command, *arguments, *dry, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    if command == "convert":
        (recipe,) = seen
        # What the header is about is what its command makes: all else of the recipe is as in its file.
        own = load_recipe(name)
        assert (recipe.objective, recipe.routers) == (own.objective, own.routers)
