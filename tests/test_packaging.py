"""The wheel and the source archive hold what they need, and nothing else."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel and a source archive, of a copy: building leaves files behind."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    named = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, named):
        if name.split("/")[0] in ("routekit", "cli", "recipes", "pyproject.toml", "README.md", "LICENSE"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    build = "from setuptools import build_meta as b; print(b.build_wheel(OUT), b.build_sdist(OUT))"
    subprocess.run(
        [sys.executable, "-c", build.replace("OUT", repr(str(out)))], cwd=copy, capture_output=True, check=True
    )
    return out


def test_the_wheel_holds_all_modules_recipes_and_pages(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "routekit").rglob("*.py")}
    wanted |= {f"routekit_cli/{path.name}" for path in (ROOT / "cli").glob("*.py")}
    wanted |= {f"routekit/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")}
    assert found >= wanted | {"routekit/py.typed", "routekit/report/page.css", "routekit/report/page.js"}
    assert {name.split("/")[0] for name in found} == {"routekit", "routekit_cli"}


def test_the_archive_can_be_built_from(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert names >= {"pyproject.toml", "README.md", "cli/main.py", "recipes/default.yaml", "routekit/report/page.css"}


def test_what_is_installed_from_the_wheel_runs(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    for words, says in (
        (["--version"], "routekit "),
        (["recipes", "list"], "default"),
        (["flops", "resnet20"], "4.09e7"),
    ):
        program = (
            f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r}); sys.argv = {['routekit', *words]!r}\n"
            "import routekit_cli.main as m; assert 'installed' in m.__file__; m.run()"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert says in done.stdout
