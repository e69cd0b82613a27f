"""Nothing of a user's is lost, no code is run because a file holds it, and what is said is true."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from routekit.manifest import note
from routekit.training.state import save_state
from tests.cli.command import ENVIRONMENT, FAST, in_process, routekit
from tests.hostile.place import fingerprint

START = [sys.executable, "-m", "routekit_cli.start"]
QUICK = ["convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", "0"]


@pytest.fixture
def run(workplace: Path, tmp_path: Path) -> Path:
    """A finished run in a folder of its own, beside the images."""
    (tmp_path / "images").symlink_to(workplace / "images")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "dense").symlink_to(workplace / "runs" / "dense")
    done = in_process(*QUICK, "--junctions", "cascade", *FAST, "--name", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


def test_force_loses_nothing_of_the_users(run: Path) -> None:
    mine = run / "runs" / "mine"
    again = [*QUICK, "--junctions", "cascade", *FAST, "--name", "mine", "--force"]
    data = mine / "images" / "cat"
    data.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(data / "0.png")
    before = fingerprint(run)
    done = in_process(*again, cwd=run)
    assert done.returncode == 2
    assert "runs/mine holds files that routekit did not write (images" in done.stderr
    assert fingerprint(run) == before
    # What looks like a run, and the working folder itself.
    own = run / "own"
    own.mkdir()
    (own / "recipe.yaml").write_text("mine")
    (own / "run.yaml").write_text("mine, too")
    for where in (["--out", ".", "--name", "own"], ["--out", ".", "--name", "."]):
        done = in_process(*again, *where, cwd=run)
        assert done.returncode == 2
        assert "choose another folder" in done.stderr
    assert {**fingerprint(run), **before} == fingerprint(run)
    # What is inside of what would be removed is not an input.
    done = in_process(*QUICK, "--weights", "runs/mine", "--name", "mine", "--force", cwd=run)
    assert done.returncode == 2
    assert "would be made of" in done.stderr
    # With nothing else there, it is started over.
    (data / "0.png").unlink()
    done = in_process(*again, cwd=run)
    assert done.returncode == 0, done.stderr


def test_files_that_are_named_are_replaced_with_force_alone(run: Path) -> None:
    (run / "docs").mkdir()
    for name in ("report.md", "index.html", "page.html", "mine.yaml"):
        (run / "docs" / name).write_text("mine")
    for words in (
        ["report", "runs/mine", "--out", "docs"],
        ["bench", "runs/mine", "--html", "docs/page.html"],
        ["benchmark", "runs/mine", "--html", "docs/page.html"],
        ["recipes", "copy", "default", "docs/mine.yaml"],
    ):
        done = in_process(*words, cwd=run)
        assert done.returncode == 2, words
        assert "exists: choose another name, or replace it with --force" in done.stderr
    assert {(run / "docs" / name).read_text() for name in ("report.md", "index.html", "page.html", "mine.yaml")} == {
        "mine"
    }
    assert in_process("report", "runs/mine", "--out", "docs", "--force", cwd=run).returncode == 0
    # The report in the run's folder is ours, and written anew.
    for _ in range(2):
        assert in_process("report", "runs/mine", cwd=run).returncode == 0
    assert in_process("export", "runs/mine", "--out", "docs", "--force", cwd=run).returncode == 2


def test_a_planted_program_is_not_run(run: Path) -> None:
    harm = run / "harm"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (harm,))

    assert in_process("export", "runs/mine", "--out", "compact", cwd=run).returncode == 0
    (run / "alone").mkdir()
    photo = "images/test/class0/0.png"
    for place in ("compact", "runs/mine", "alone"):
        torch.save(Bomb(), run / place / "masked.pt2")
    for place in ("compact", "runs/mine"):
        done = in_process("predict", place, photo, cwd=run)
        assert done.returncode == 0, done.stderr
    for place in ("alone", "alone/masked.pt2"):
        done = in_process("predict", place, photo, cwd=run)
        assert done.returncode == 2
    assert "to open one is to run code" in done.stderr
    assert not harm.exists()


def test_a_flipped_bit_is_refused_and_can_be_insisted_on(run: Path) -> None:
    file = run / "runs" / "mine" / "network" / "network.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    done = routekit("evaluate", "runs/mine", cwd=run)
    assert done.returncode == 2
    assert "is not as routekit wrote it" in done.stderr
    assert routekit("evaluate", "runs/mine", "--no-verify", cwd=run).returncode == 0


def test_a_run_knows_its_images_from_anywhere(run: Path) -> None:
    elsewhere = run / "elsewhere"
    elsewhere.mkdir()
    done = in_process("evaluate", run / "runs" / "mine", "--json", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 36


def test_codes_for_the_terminal_are_not_printed(run: Path) -> None:
    evil = "\x1b[2Jred\x07"
    done = in_process("predict", "runs/mine", evil, cwd=run)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr
    assert "\\x1b[2Jred\\x07" in done.stderr
    done = in_process("recipes", "show", "x" * 10_000, cwd=run)
    assert done.returncode == 2
    assert len(done.stderr) < 6000


@pytest.mark.parametrize(
    "name", ["timm:convnext_tiny", "regnety_004", "torchvision:mobilenet_v2", "timm:vit_tiny_patch16_224"]
)
def test_another_family_is_told_so_with_two_ways_out(name: str, tmp_path: Path) -> None:
    done = in_process("convert", name, "--target-flops", "50%", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{name} is no ResNet that routekit knows: choose one of `routekit models`, or say where" in done.stderr
    assert "mark_units" in done.stderr


def test_epochs_are_those_of_the_dense_network_too(run: Path) -> None:
    words = [
        "convert",
        "resnet20",
        "--weights",
        "none",
        "--data",
        "images",
        "--target-flops",
        "60%",
        "--dry-run",
        "--json",
    ]
    for recipe, epochs, want in (
        ("default", "1", 1.0),
        ("drn", "1", 1.0),
        ("default", "50", 8.0),
        ("default", "0", 8.0),
    ):
        done = in_process(*words, "--recipe", recipe, "--epochs", epochs, cwd=run)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["plan"]["dense"]["epochs"] == want
    done = in_process(*words, "--epochs", "1", "--set", "dense.epochs=3", cwd=run)
    assert json.loads(done.stdout)["plan"]["dense"]["epochs"] == 3


def test_weights_for_other_classes_are_not_called_none(run: Path) -> None:
    from routekit.backbones.load import build, spec_of

    torch.save(build(spec_of("resnet20", num_classes=7)).model.state_dict(), run / "seven.pt")
    done = in_process(
        "convert", "resnet20", "--weights", "seven.pt", "--data", "images", "--target-flops", "60%", "--epochs", "1",
        *FAST, "--method", "firstk", "--name", "seven", cwd=run,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        "seven.pt was trained for other classes than those of images: training the dense network first" in done.stderr
    )
    assert "no weights" not in done.stderr
    assert "wanted" not in done.stderr  # nothing is decided, so no cost is steered
    report = in_process("report", "runs/seven", cwd=run)
    assert report.returncode == 0, report.stderr
    text = (run / "runs" / "seven" / "report" / "report.md").read_text()
    assert "bits" not in text
    assert "hard routing" not in text


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_one_line_at_any_moment(run: Path, sent: int, code: int) -> None:
    for words in (["--version"], [*QUICK, "--junctions", "cascade", "--name", f"ended{code}"]):
        process = subprocess.Popen(
            [*START, *words], cwd=run, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert process.stderr is not None
        if words[0] == "convert":  # once it is at work
            while process.poll() is None and not (run / "runs" / f"ended{code}" / "run.yaml").exists():
                os.sched_yield()
        process.send_signal(sent)
        errors = process.communicate(timeout=120)[1]
        if words[0] == "convert":
            assert process.returncode == code, errors
            assert f"go on with `routekit convert --resume runs/ended{code}`" in errors
        assert "Traceback" not in errors
    done = in_process("convert", "--resume", f"runs/ended{code}", cwd=run)
    assert done.returncode == 0, done.stderr


def test_stdout_that_takes_nothing_is_no_traceback(run: Path) -> None:
    for redirect in (">&-", "> /dev/full", "| head -c 1"):
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m routekit_cli.start recipes list {redirect}"],
            cwd=run, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


def test_a_recipe_runs_no_code(run: Path) -> None:
    (run / "evil.py").write_text("open('PWNED', 'w')\n\n\ndef make(num_classes):\n    return None\n")
    (run / "mine.yaml").write_text("base: default\nmodel:\n  name: evil.py:make\ntarget: 50%\n")
    (run / "above.yaml").write_text("base: mine.yaml\n")
    for recipe in ("mine.yaml", "above.yaml"):
        done = in_process("recipes", "validate", recipe, cwd=run)
        assert done.returncode == 2
        assert "is code, which no recipe runs" in done.stderr
    assert not (run / "PWNED").exists()
    # Who names the network is asked for its code, and that of the recipe is not.
    done = in_process("convert", "resnet20", "--recipe", "mine.yaml", *QUICK[2:6], "--dry-run", *FAST, cwd=run)
    assert done.returncode == 0, done.stderr
    assert not (run / "PWNED").exists()


def test_an_image_is_read_as_one_of_few_formats(run: Path) -> None:
    Image.new("RGB", (8, 8)).save(run / "page.eps")
    (run / "page.eps").rename(run / "page.png")  # for which Pillow would start Ghostscript
    done = in_process("predict", "runs/mine", "page.png", cwd=run)
    assert done.returncode == 2
    assert "cannot read the image page.png" in done.stderr


def test_a_checkpoint_names_no_network_elsewhere(run: Path) -> None:
    done = in_process("export", "runs/mine", "--out", "compact", cwd=run)
    assert done.returncode == 0, done.stderr
    file = run / "compact" / "network.json"
    spec = json.loads(file.read_text())
    spec["networks"][0]["model"] |= {"source": "timm", "name": "hf_hub:foo/bar"}
    file.write_text(json.dumps(spec))
    note(file)
    done = in_process("evaluate", "compact", "--data", "images", cwd=run)
    assert done.returncode == 2
    assert "unknown model" in done.stderr


def test_what_a_run_is_resumed_from_is_as_it_was_written(run: Path) -> None:
    plan = run / "runs" / "mine" / "run.yaml"
    plan.write_text(plan.read_text().replace("seed: 0", "seed: 7"))
    for words in (["evaluate", "runs/mine"], ["convert", "--resume", "runs/mine"]):
        done = in_process(*words, cwd=run)
        assert done.returncode == 2
        assert "run.yaml is not as routekit wrote it" in done.stderr
    note(plan)
    state = run / "runs" / "mine" / "state.pt"
    save_state(state, {"step": 0})
    with state.open("ab") as stream:
        stream.write(b"0")
    (run / "runs" / "mine" / "record.json").unlink()
    done = in_process("convert", "--resume", "runs/mine", cwd=run)
    assert done.returncode == 2
    assert "state.pt is not as routekit wrote it" in done.stderr


def test_a_copied_recipe_is_the_users(run: Path) -> None:
    copied = run / "runs" / "mine" / "own.yaml"
    done = in_process("recipes", "copy", "default", copied, cwd=run)
    assert done.returncode == 0, done.stderr
    done = in_process("recipes", "copy", "default", copied, cwd=run)
    assert done.returncode == 2
    done = in_process(*QUICK, "--recipe", copied, *FAST, "--name", "mine", "--force", cwd=run)
    assert done.returncode == 2
    assert copied.exists()
    # A path through another folder does no harm to that.
    done = in_process("recipes", "copy", "default", "runs/mine/../beside.yaml", cwd=run)
    assert done.returncode == 0, done.stderr
    done = in_process("flops", "runs/mine", cwd=run)
    assert done.returncode == 0, done.stderr
