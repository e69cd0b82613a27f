"""The documentation: the site is built without a warning, commands parse, programs run, and figures have records."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from tests.cli.command import in_process

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "AGENTS.md", ROOT / "SKILL.md"])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(page.read_text()) if found == language]


def runnable(page: str, name: str) -> str:
    """The block behind `<!-- runnable: NAME -->`, as it stands."""
    _, found, rest = (ROOT / "docs" / page).read_text().partition(f"<!-- runnable: {name} -->\n")
    assert found
    match = BLOCK.match(rest)
    assert match
    return match[2]


def command_lines() -> Iterator[tuple[Path, list[str]]]:
    """All calls of routekit in the blocks of the pages."""
    for page in PAGES:
        for block in blocks(page, "console"):
            for line in block.splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words and Path(words[0]).name == "routekit":
                    yield page, words[1:]


def every_option() -> set[str]:
    from routekit_cli.main import app

    def of(command: object) -> Iterator[str]:
        for parameter in command.params:  # type: ignore[attr-defined]
            yield from (*parameter.opts, *parameter.secondary_opts)
        for each in getattr(command, "commands", {}).values():
            yield from of(each)

    return {*of(typer.main.get_command(app))}


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """In strict mode: every page of `nav`, link and anchor is there, every name of the API has a docstring to show."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'routekit[docs]'")
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install 'routekit[docs]'")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed: pip install 'routekit[docs]'")
    site = tmp_path / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    done = subprocess.run(
        build, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # What is taken from elsewhere is there.
    commands = (site / "commands/index.html").read_text()
    assert all(f'id="routekit-{name}"' in commands for name in ("convert", "aim", "compare"))
    assert "--target-speedup" in commands
    api = (site / "api/index.html").read_text()
    import routekit

    assert [name for name in routekit.__all__ if f'id="routekit.{name}"' not in api] == []
    assert "0-depgraph-6pct int8" in (site / "which/index.html").read_text()
    assert (site / "repository/reports/resnet20-comparison/routes.png").stat().st_size > 10_000
    assert not (site / "hooks.py").exists()


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    """Strictness is what the test above hangs on."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'routekit[docs]'")
    from mkdocs.config import load_config

    links = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path)).validation.links
    assert {links.not_found, links.anchors, links.unrecognized_links} == {30}  # logging.WARNING


@pytest.mark.parametrize(("page", "words"), [*command_lines()], ids=lambda value: getattr(value, "stem", None))
def test_a_command_line_parses(page: Path, words: list[str]) -> None:
    """Every command, option and value of the pages is taken by the command line."""
    from routekit_cli.main import app

    command = typer.main.get_command(app)
    if words == ["--help"] or words == ["--version"]:
        return
    name, *rest = words
    chosen = command.commands.get(name)  # type: ignore[attr-defined]
    assert chosen is not None, f"{page.name}: there is no `routekit {name}`"
    if hasattr(chosen, "commands"):
        chosen, rest = chosen.commands[rest[0]], rest[1:]
    # It raises for what it does not know. What is on the Hub would be fetched.
    chosen.make_context(name, [word.removeprefix("hf://") for word in rest])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_in_sentences_exist(page: Path) -> None:
    code = " ".join(re.findall(r"`([^`\n]+)`", BLOCK.sub("", page.read_text())))
    others = {"--help", "--strict", "--check"}  # the last two are of mkdocs and ruff
    assert {*re.findall(r"(?<!\S)--[a-z][a-z-]*", code)} - every_option() - others == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cascade as passes and as one file, and images of which some go on."""
    import torch

    import routekit

    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    view = routekit.load_backbone("resnet20", weights="none", num_classes=3, input_size=(3, 24, 24))
    network = routekit.convert(view, [routekit.Cascade(width=0.5)]).eval()
    random = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(12):  # of other shapes than the network's
        pixels = random.integers(0, 40 + 18 * number, (40, 30 + number, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{number:02}.png")
    images = torch.randint(0, 256, (64, 3, 24, 24), dtype=torch.uint8)
    routekit.evaluate(network, (images, torch.arange(64) % 3), target="80%")
    names = ["cat", "dog", "owl"]
    routekit.export(network, folder / "passes", kind="passes", classes=names)
    routekit.export(network, folder / "onnx", classes=names)
    return folder


@pytest.mark.parametrize(("program", "files"), [("serve.py", "passes"), ("single.py", "onnx")])
def test_the_serving_program_answers_as_predict_does(program: str, files: str, exported: Path) -> None:
    text = runnable("serving.md", program)
    assert "routekit import" not in text
    assert "import routekit" not in text
    (exported / program).write_text(text)
    images = sorted((exported / "images").glob("*.png"))
    place = [files] if program == "serve.py" else []  # the other one names its file
    run = [sys.executable, program, *place, *(str(image) for image in images)]
    done = subprocess.run(run, cwd=exported, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    expected = in_process("predict", files, "images", "--json", cwd=exported)
    predicted = json.loads(expected.stdout)["images"]
    assert len(answers) == len(predicted) == 12
    for (file, name, probability, passed), each in zip(answers, predicted, strict=True):
        assert Path(file).name == Path(each["image"]).name
        assert name == each["top"][0]["class"]
        assert float(probability) == pytest.approx(each["top"][0]["probability"], abs=1e-4)
        assert int(passed) == len(each["route"])
    assert len({passed for *_, passed in answers}) == 2  # some images went on, and some did not


def test_the_page_of_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(runnable("python.md", "python"), "python.md", "exec"), {})
    assert "torch.Size([8, 2])" in capsys.readouterr().out
    assert (tmp_path / "mine/network.json").exists()


def test_the_network_of_the_page_is_one_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "my_net.py").write_text(runnable("own-network.md", "my_net.py"))
    done = in_process("flops", "my_net.py:make_net", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    parts = json.loads(done.stdout)["parts"]
    assert [part["name"] for part in parts if part["skippable"]] == ["body.0", "body.1", "body.2"]


def test_the_example_of_an_output_is_a_record() -> None:
    from routekit_cli.summary import summary

    text = (ROOT / "docs/index.md").read_text()
    (found,) = re.findall(r"<!-- summary: (\S+) -->\n```text\n(.*?)```", text, re.DOTALL)
    record = json.loads((ROOT / found[0] / "record.json").read_text())
    assert found[1].strip() == summary(record)


def test_figures_have_records() -> None:
    """Each time and each per cent with decimals that a page names is in a README, whose figures have records."""
    recorded = (ROOT / "README.md").read_text() + (ROOT / "reports/README.md").read_text()
    known = {*re.findall(r"\d+\.\d+", recorded)}
    for page in PAGES:
        text = BLOCK.sub("", page.read_text())
        for figure in re.findall(r"(\d+\.\d+)(?:%| ms| times| ±)", text):
            assert figure in known, f"{page.name}: {figure} is in no report"


def test_files_of_papers_name_the_equations() -> None:
    def numbers(text: str) -> set[int]:
        found = set()
        for part in re.findall(r"Eq\.\s+(\d+(?:(?:,| to| and| or) (?:Eq\. )?\d+)*)", text):
            listed = [*map(int, re.findall(r"\d+", part))]
            found |= {*range(listed[0], listed[-1] + 1)} if " to " in part else {*listed}
        return found

    rows = [line for line in (ROOT / "docs/papers.md").read_text().splitlines() if "`routekit/" in line]
    assert len(rows) > 30
    for row in rows:
        for file in re.findall(r"`(routekit/\S+\.py)`", row):
            missing = numbers(row) - numbers((ROOT / file).read_text())
            assert not missing, f"{file} does not name Eq. {missing}"


def test_the_errors_that_pages_explain_are_said() -> None:
    sources = "".join(file.read_text() for folder in ("routekit", "cli") for file in (ROOT / folder).rglob("*.py"))
    for page in (ROOT / "SKILL.md", ROOT / "docs/time.md"):
        _, _, table = page.read_text().partition("| stderr says |")
        rows = [row for row in table.partition("\n\n")[0].splitlines()[2:] if row]
        assert rows
        for row in rows:
            (error, *_) = re.findall(r"`([^`]+)`", row)
            assert error in sources, f"{page.name}: {error!r}"


def test_keys_of_json_that_pages_read_are_written() -> None:
    sources = "".join(file.read_text() for folder in ("routekit", "cli") for file in (ROOT / folder).rglob("*.py"))
    keys = set()
    for page in (ROOT / "SKILL.md", ROOT / "docs/time.md"):
        for code in re.findall(
            r"`([a-z_]+(?:\[\])?(?:\.[a-z_\[\]0-9]+)+|[a-z]+_[a-z_]+)`", BLOCK.sub("", page.read_text())
        ):
            if not code.endswith((".json", ".md", ".py", ".yaml")):
                keys |= {re.sub(r"\[\d*\]", "", part) for part in code.split(".")}
    assert {"lost_points", "speedup", "dense_ms", "skippable", "probability", "chance"} <= keys
    for key in keys - {"data", "learning_rate"}:  # settings
        assert re.search(rf"[\"']{key}[\"']|\b{key}: ", sources), key


def test_the_skill_has_its_front_matter() -> None:
    import yaml

    _, head, body = (ROOT / "SKILL.md").read_text().split("---\n", 2)
    about = yaml.safe_load(head)
    assert {*about} == {"name", "description"}
    assert about["name"] == "routekit"
    assert 100 < len(about["description"]) <= 1024
    assert len(re.findall(r"^## Task [abc]:", body, re.MULTILINE)) == 3
