"""The source archive and the wheel hold what they need, and nothing else; what is installed from them runs."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("routekit", "cli", "recipes", "tests")
FILES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
# No tool of the test's environment is installed anew, and nothing is fetched.
ALONE = ["--no-build-isolation", "--no-deps", "--no-index", "--quiet"]


def pip(*words: object, cwd: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", *map(str, words)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source archive of a copy, for building leaves files behind, and the wheel that pip makes of it."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "pinned"))
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, check=True)
    (archive,) = out.glob("*.tar.gz")
    pip("wheel", archive, "--wheel-dir", out, *ALONE, cwd=out)
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip installs from the wheel, in a folder of its own."""
    place = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    pip("install", wheel, "--target", place, *ALONE, cwd=place)
    return place


def test_the_archive_holds_the_sources_and_no_tests(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert names >= {"pyproject.toml", "README.md", "LICENSE", "cli/main.py", "recipes/default.yaml"}
    assert not {name for name in names if name.startswith(("tests", "reports"))}


def test_the_wheel_holds_all_modules_recipes_and_pages_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "routekit").rglob("*.py")}
    wanted |= {f"routekit_cli/{path.name}" for path in (ROOT / "cli").glob("*.py")}
    wanted |= {f"routekit/recipes/{path.name}" for path in (ROOT / "recipes").iterdir() if path.is_file()}
    wanted |= {f"routekit/{name}" for name in ("py.typed", "report/page.css", "report/page.js")}
    assert found == wanted


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--version"], "routekit "),
        (["recipes", "list"], "default"),
        (["flops", "resnet20"], "4.09e7"),
    ],
)
def test_the_command_that_is_installed_runs(words: list[str], says: str, installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [installed / "bin" / "routekit", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


def test_what_runs_is_what_is_installed_and_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import routekit, routekit_cli.main, routekit.recipes as r; print(routekit.__file__, r.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(routekit_cli.main.__file__)"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert [*map(Path, done.stdout.split())] == [
        installed / name for name in ("routekit/__init__.py", "routekit/recipes/__init__.py", "routekit_cli/main.py")
    ]
