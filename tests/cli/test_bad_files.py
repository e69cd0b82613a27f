"""Files that are damaged, foreign, or of another version: one clear line, exit code 2, and nothing lost."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.command import in_process, write_tree


def test_damaged_and_foreign_files(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.th").write_bytes(b"\x80\x02torn")
    torn = ["convert", "resnet20", "--target-flops", "50%", "--data", workplace / "images", "--weights", "torn.th"]
    done = in_process(*torn, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "torn.th" in done.stderr
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.yaml").write_text("# routekit run, version 0\nmethod: routed\n")
    done = in_process("convert", "--resume", "old", cwd=tmp_path)
    assert done.returncode == 2
    assert "another version" in done.stderr
    # A torn file is not of another version: --force would delete the run that it belongs to.
    (tmp_path / "old" / "run.yaml").write_text("")
    done = in_process("convert", "--resume", "old", cwd=tmp_path)
    assert (done.returncode, "damaged" in done.stderr, "--force" in done.stderr) == (2, True, False)
    for text, says in (("{}", "it holds no record"), ("[]", "it holds no record"), ("{", "is damaged")):
        (tmp_path / "old" / "record.json").write_text(text)
        done = in_process("report", "old", cwd=tmp_path)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr


NETWORK = json.dumps({"format": "routekit", "version": 2, "model": {"name": "resnet20"}})


@pytest.mark.parametrize(
    "files",
    [
        {"recipe.yaml": "", "record.json": "{}", "network/network.json": NETWORK},
        {"recipe.yaml": "", "record.json": "{}", "network/cascade.json": "{}"},
        {"recipe.yaml": ""},
        {"network.json": NETWORK},
        {"cascade.json": "{}"},
    ],
    ids=["a run", "a run of a cascade", "a run that was stopped", "a checkpoint", "a checkpoint of a cascade"],
)
def test_what_a_former_version_made_is_refused_with_a_way_out(files: dict[str, str], workplace: Path) -> None:
    old = workplace / "runs" / "old"
    shutil.rmtree(old, ignore_errors=True)
    for name, text in files.items():
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text(text)
    convert = ["convert", "resnet20", "--data", "images", "--target-flops", "60%"]
    commands: list[list[str]] = [
        ["evaluate", "runs/old"],
        ["evaluate", "runs/old", "--data", "images"],
        ["export", "runs/old", "--out", "x", "--format", "onnx"],
        ["predict", "runs/old", "images/test/class1/0.png"],
        ["bench", "runs/old"],
        ["flops", "runs/old"],
        ["cascade", "runs/dense", "runs/old", "--target-flops", "90%"],
        [*convert, "--weights", "runs/old", "--name", "x"],
        [*convert, "--weights", "runs/dense", "--smaller", "runs/old", "--name", "x"],
    ]
    if "recipe.yaml" in files:  # it is replaced by nothing, whatever is asked for
        commands += [["convert", "--resume", "runs/old"], ["export", "runs/old", "--out", "x"]]
        commands += [[*convert, "--weights", "runs/dense", "--name", "old", *force] for force in ([], ["--force"])]
    for command in commands:
        done = in_process(*command, cwd=workplace)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), (command, done.stderr)
        assert "routekit 0.1" in done.stderr, command
        assert "make it again" in done.stderr or "choose another folder, or delete it" in done.stderr
        assert not (workplace / "x").exists()
        assert not (workplace / "runs" / "x").exists()
    assert {str(file.relative_to(old)) for file in old.rglob("*") if file.is_file()} == files.keys()


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path / "images", train=2)
    (tmp_path / "images" / "test" / "class1" / "3.png").write_bytes(b"no image")
    done = in_process("finetune", "resnet20", "--weights", "none", "--data", "images", "--epochs", 0, cwd=tmp_path)
    assert done.returncode == 2
    assert str(Path("test", "class1", "3.png")) in done.stderr


def test_a_network_of_other_classes_is_refused(workplace: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "four", classes=4, train=2)
    done = in_process(
        "convert",
        "resnet20",
        "--weights",
        workplace / "runs" / "dense",
        "--data",
        "four",
        "--target-flops",
        "60%",
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "3 classes, the data has 4" in done.stderr
    done = in_process(
        *("convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%"),
        *("--set", "data.input_size=16"),
        cwd=workplace,
    )
    assert done.returncode == 2
    assert "takes images of (3, 32, 32), not of (3, 16, 16): add --set data.input_size=32" in done.stderr
    write_tree(tmp_path / "others", train=2)
    for split in ("train", "val", "test"):
        (tmp_path / "others" / split / "class1").rename(tmp_path / "others" / split / "other")
    convert = ["convert", "resnet20", "--weights", workplace / "runs" / "dense", "--target-flops", "60%"]
    for command in (convert, ["evaluate", workplace / "compact-others"]):
        if command[0] == "evaluate":
            exported = in_process("export", "runs/routed", "--out", "compact-others", cwd=workplace)
            assert exported.returncode == 0, exported.stderr
        done = in_process(*command, "--data", "others", cwd=tmp_path)
        assert done.returncode == 2
        assert "other classes: 'class1' is where the data has 'class2'" in done.stderr
