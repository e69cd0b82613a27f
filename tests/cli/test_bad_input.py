"""Whatever is wrong: one clear line, exit code 2, and nothing lost."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.command import in_process, routekit, write_tree

EXITS = ["convert", "resnet20", "--target-flops", "50%", "--junctions", "exit"]
TREE = ["convert", "resnet20", "--target-flops", "50%", "--junctions"]
BAD = [
    (["convert", "resnet65", "--target-flops", "50%"], "did you mean"),
    (["convert", "resnet20"], "--target-flops"),
    (["convert", "--target-flops", "50%"], "which network"),
    (["convert", "resnet20", "--target-flops", "1%"], "l1 cannot prune resnet20"),
    (["convert", "resnet20", "--target-flops", "1%", "--junctions", "skip"], "can cost from"),
    (["convert", "torchvision:resnext50_32x4d", "--target-flops", "50%"], "other --junctions need none: skip, exit"),
    (["convert", "resnet20", "--target-flops", "120%"], "can cost from"),
    (["convert", "resnet20", "--target-flops", "0.5%", "--junctions", "branch"], "can cost from"),
    (["convert", "resnet20", "--target-flops", "170%", "--junctions", "branch"], "can cost from"),
    (["convert", "resnet20", "--target-flops", "0", "--junctions", "cascade"], "can cost from"),
    (["convert", "resnet20", "--target-flops", "much"], "is no cost"),
    (["convert", "resnet20", "--target-flops", "50%", "--data", "nowhere"], "nowhere"),
    (["convert", "resnet20", "--target-flops", "50%", "--data", "images", "--weights", "no.th"], "no.th"),
    (["convert", "resnet20", "--target-flops", "50%", "--epochs", "-1"], "epochs"),
    (["convert", "resnet20", "--target-flops", "50%", "--method", "fristk"], "method"),
    (["convert", "resnet20", "--target-flops", "50%", "--gate", "sft"], "gate"),
    (["convert", "resnet20", "--target-flops", "50%", "--recipe", "drm"], "did you mean drn"),
    (["convert", "resnet20", "--target-flops", "50%", "--set", "training.lr=1"], "training"),
    (["convert", "resnet20", "--target-flops", "50%", "--set", "oops"], "key=value"),
    (["convert", "resnet20", "--target-flops", "50%", "--device", "tpu"], "device"),
    (["convert", "resnet20", "--target-flops", "50%", "--val-from-test", "140%"], "140%"),
    (["convert", "resnet20", "--target-flop", "50%"], "--target-flop"),
    (["convert", "resnet20", "--target-flops", "50%", "--junctions", "exits"], "did you mean exit?"),
    (["convert", "resnet20", "--target-flops", "50%", "--exits", "stages"], "add --junctions exit"),
    (
        ["convert", "resnet20", "--target-flops", "50%", "--junctions", "skip,again"],
        "joins what is decided by certainty",
    ),
    (["convert", "resnet20", "--target-flops", "50%", "--junctions", "exit,again"], "with --policy confidence"),
    (["convert", "resnet20", "--target-flops", "50%", "--junctions", "branch,again"], "with --policy confidence"),
    (["convert", "resnet20", "--target-flops", "50%", "--junctions", "again"], "with --policy confidence"),
    # Settings of the former version, and what is a pass now.
    ([*EXITS, "--set", "exits.head=own"], "exits: no such setting"),
    ([*EXITS, "--set", "junctions.exit.head=own"], "unknown exit head 'own'"),
    ([*EXITS, "--policy", "entropy", "--set", "junctions.exit.head=narrow"], "unknown exit head 'narrow'"),
    ([*EXITS, "--policy", "entropy", "--exits", "end"], "no exit can lie after 'end'"),
    ([*EXITS, "--exits", "layer3.2"], "no exit can lie after 'layer3.2'"),
    ([*EXITS, "--set", "junctions.exit.keep=0.3"], "junctions.exit.keep: no such setting"),
    ([*EXITS, "--set", "junctions.exit.rule=idk"], "idk is for cascades of networks that are done"),
    ([*EXITS, "--set", "junctions.exit.count=0"], "junctions.exit.count"),
    ([*EXITS, "--set", "junctions.exits.at=stages"], "unknown junction 'exits': did you mean exit?"),
    ([*EXITS, "--set", "junctions=3"], "name the kinds: [skip, exit]"),
    (["convert", "resnet20", "--target-flops", "50%", "--set", "cascade.keep=0.3"], "cascade: no such setting"),
    (["convert", "resnet20", "--target-flops", "50%", "--set", "branches.keep=[0.3]"], "branches: no such setting"),
    (
        ["convert", "resnet20", "--target-flops", "50%", "--set", "junctions.cascade.width=[0.5,0.2]"],
        "from the narrowest to the widest",
    ),
    (
        ["convert", "resnet20", "--target-flops", "50%", "--recipe", "pruning", "--router", "conv"],
        "--router is for units",
    ),
    (["convert", "resnet20", "--target-flops", "50%", "--policy", "actor"], "--policy is for exits"),
    (
        ["convert", "resnet20", "--target-flops", "50%", "--junctions", "exit", "--policy", "acter"],
        "did you mean actor",
    ),
    (
        ["convert", "resnet20", "--target-flops", "50%", "--junctions", "exit", "--exits", "layer9.9"],
        "known: auto, stages, first, all, layer1.0, layer1.1",
    ),
    (["convert", "resnet20", "--target-flops", "2%", "--junctions", "skip,exit"], "can cost from"),
    (
        ["convert", "resnet20", "--target-flops", "50%", "--junctions", "skip", "--narrow", "40%"],
        "add --junctions branch",
    ),
    (["convert", "resnet20", "--target-flops", "50%", "--junctions", "branch", "--narrow", "4"], "'4' is no share"),
    (["convert", "resnet20", "--target-flops", "20%", "--junctions", "branch", "--narrow", "40%"], "can cost from"),
    (["convert", "torchvision:resnext50_32x4d", "--target-flops", "50%", "--junctions", "branch"], "no narrow form"),
    (
        ["convert", "resnet20", "--target-flops", "50%", "--junctions", "cascade", "--adaptive-cost"],
        "decisions that learn",
    ),
    (["convert", "resnet20", "--target-flops", "50%", "--junctions", "branch", "--method", "firstk"], "static network"),
    ([*EXITS, "--adaptive-cost", "--policy", "entropy"], "--adaptive-cost needs exits that learn"),
    (
        [*TREE, "tree,exit", "--set", "junctions.tree.forks=layer9"],
        "no fork can lie at 'layer9': known: stages, layer1.0",
    ),
    ([*TREE, "tree,exit", "--prune", "l1"], "a tree grows from a whole network"),
    ([*TREE, "tree,exit", "--set", "training.frozen=true"], "a tree grows from a whole network"),
    ([*TREE, "tree,exit", "--adaptive-cost"], "a tree takes no --adaptive-cost"),
    ([*TREE, "tree,exit", "--policy", "confidence"], "a tree needs exits that learn"),
    ([*TREE, "tree"], "a tree needs exits that learn: --junctions tree,exit"),
    ([*TREE, "tree,skip,exit"], "a tree takes exits alone beside it"),
    ([*TREE, "tree,exit", "--set", "branches.forks=stages"], "branches: no such setting"),
    (["bench", "resnet20", "--run-rate", "30%", "--clients", "2"], "--clients"),
    (["convert", "resnet20", "--target-flops", "50%", "--adaptive-cost", "--gate", "soft"], "--gate benefit"),
    (["convert", "resnet20", "--target-flops", "50%", "--adaptive-cost", "--method", "firstk"], "static network"),
    (["convert", "resnet20", "--target-flops", "50%", "--prune", "l1:"], "a method and a cost, l1:70%"),
    (["convert", "resnet20", "--target-flops", "50%", "--prune", "l2:70%"], "pruning.method"),
    (["convert", "resnet20", "--target-flops", "80%", "--prune", "l1:70%"], "can cost from"),
    (["convert", "resnet20", "--target-flops", "80%", "--prune", "l1:150%"], "l1:150% leaves the network whole"),
    (["convert", "resnet20", "--target-flops", "50%", "--data", "digits[3]"], "has one class, '3'"),
    (["convert", "resnet20", "--target-flops", "50%", "--method", "l1", "--prune", "l1:70%"], "static network"),
    (["convert", "resnet20", "--target-flops", "1%", "--method", "fpgm"], "fpgm cannot prune resnet20"),
    (["convert", "resnet20", "--target-flops", "50%", "--method", "l1", "--narrow", "30%"], "--narrow is for"),
    (["convert", "resnet20", "--target-flops", "60%", "--method", "dense"], "meets no budget: `routekit finetune`"),
    (["convert", "resnet20", "--target-flops", "60%", "--method", "cascade"], "is what `routekit cascade` makes"),
    (["convert", "resnet20", "--target-flops", "60%", "--set", "method=cascade"], "is what `routekit cascade` makes"),
    (["convert", "nowhere.py:make_net", "--target-flops", "50%"], "nowhere.py"),
    (["convert", "resnet20", "--target-flops", "50%", "--set", "training.temperature=[1"], "is no YAML value"),
    (["convert", "resnet20", "--target-flops", "50%", "--set", "training.temperature=[0,1]"], "greater than 0"),
    (["convert", "resnet20", "--target-flops", "50%", "--set", "routers.hidden=0"], "routers.hidden"),
    (
        ["convert", "resnet20", "--target-flops", "50%", "--set", "objective.distillation=1.5"],
        "less than or equal to 1",
    ),
    (["compare", "resnet20", "--budgets", ","], "which budgets?"),
    (
        ["convert", "resnet20", "--target-flops", "50%", "--method", "rooted", "--junctions", "skip"],
        "did you mean routed",
    ),
    (["convert", "resnet20", "--target-flops", "50%", "--method", "l1", "--junctions", "skip"], "static network"),
    ([*EXITS, "--gate", "soft"], "--gate is for units"),
    (
        ["convert", "resnet20", "--target-flops", "50%", "--recipe", "pruning", "--method", "routed"],
        "decides something",
    ),
    (["convert", "--resume", "nowhere"], "no run of routekit"),
    (["convert", "resnet20", "--resume", "runs/x", "--target-flops", "40%"], "give no MODEL, --target-flops"),
    (["finetune", "--resume", "runs/x", "--set", "training.batch_size=8", "--force"], "give no --set, --force"),
    (["convert", "resnet20", "--target-flops", "50%", "--out", "file.txt/x", "--data", "images"], "file.txt"),
    (["finetune"], "which network"),
    (["evaluate", "nowhere"], "does not exist"),
    (["evaluate", "images"], "images"),
    (["export", "nowhere", "--out", "x"], "nowhere"),
    (["export", "images", "--out", "x", "--format", "exe"], "unknown format"),
    (["export", "images", "--out", "x", "--dtype", "int3"], "unknown dtype"),
    (["flops", "resnet65"], "did you mean"),
    (["compare", "--budgets", "50%"], "which network"),
    (["compare", "resnet20"], "which budgets"),
    (["compare", "resnet20", "--budgets", "50%", "--methods", "skipp"], "did you mean skip?"),
    (["compare", "resnet20", "--budgets", "50%", "--stack", "skip+l1"], "first prune, then route"),
    (["compare", "resnet20", "--budgets", "50%,1%", "--methods", "skip"], "skip at 1%"),
    (["compare", "resnet20", "--budgets", "50%", "--launcher", "raye"], "did you mean ray?"),
    (["compare", "resnet20", "--budgets", "50%", "--runtime", "onyx"], "did you mean onnx?"),
    (["compare", "resnet20", "--budgets", "50%", "--runtime", ","], "at least one runtime"),
    (["compare", "--resume", "images"], "is no comparison"),
    (["compare", "resnet20", "--resume", "images"], "give no MODEL"),
    (["compare", "--resume", "images", "--epochs", "3", "--jobs", "2"], "give no --epochs"),
    (["compare", "resnet20", "--budgets", "50%", "--cell", "skip-50pct-seed0"], "add --resume"),
    (["convrt"], "convrt"),
    (["report", "nowhere"], "not a finished run"),
    (["convert", "pyramid8", "--target-flops", "50%"], "other --junctions need none: skip, exit"),
    (
        ["convert", "pyramid8", "--target-flops", "50%", "--junctions", "skip"],
        "no unit that can be skipped: add --junctions exit",
    ),
    (["convert", "resnet20", "--target-flops", "50%", "--data", "digits[0,ten]"], "digits has no class 'ten'"),
    (["convert", "resnet20", "--target-flops", "50%", "--data", "digits+digits"], "is in two of these sets"),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("data") / "images", train=2)


@pytest.mark.parametrize(
    ("arguments", "says"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    says: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    from routekit_cli.main import call

    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").symlink_to(images)
    (tmp_path / "file.txt").write_text("a file")
    assert call(arguments) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if not line.startswith("warning:")]
    assert len(errors) == 1, captured.err
    assert errors[0].startswith("error: ")
    assert says in errors[0]
    assert "Traceback" not in captured.err
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "runs/routed", "--format", "tflite", "--out", "x"], "compact, onnx, openvino, torch"),
        (["export", "runs/routed", "--format", "onnx", "--out", "images"], "--force"),
        (
            ["export", "runs/routed", "--format", "onnx", "--out", "x", "--dtype", "float16"],
            "--dtype is for the compact",
        ),
        (["export", "runs/routed", "--out", "x", "--native"], "--native is for --format onnx"),
        (["export", "runs/routed", "--out", "x", "--verify", "images"], "--verify is for the other formats"),
        (["export", "runs/routed", "--format", "onnx", "--out", "x", "--verify", "empty"], "has no images"),
        (["predict", "runs/routed", "empty"], "has no images"),
        (["predict", "runs/routed", "broken.png"], "broken.png"),
        (["predict", "runs/routed", "absent.png"], "absent.png"),
        (["predict", "broken.png", "images"], "neither a run, a checkpoint nor an exported file"),
        (["bench", "runs/routed", "--batch", "0"], "'0' is no batch size"),
        (["bench", "runs/routed", "--batch", ","], "at least one runtime and one batch size"),
        (["bench", "runs/routed", "--threads", "4096"], "this machine has"),
        (["bench", "runs/routed", "--runtime", "tensort"], "tensort"),
        (["bench", "runs/routed", "--run-rate", "30%"], "a run has its own routes"),
        (["bench", "resnet20"], "--run-rate 30%"),
        (["bench", "runs/routed", "--picture", "chart.gif", "--batch", "1", "--seconds", "0"], ".png or .svg"),
    ],
)
def test_bad_input_to_export_predict_and_bench(workplace: Path, arguments: list[str], says: str) -> None:
    (workplace / "empty").mkdir(exist_ok=True)
    (workplace / "broken.png").write_bytes(b"no picture")
    done = in_process(*arguments, cwd=workplace)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (workplace / "x").exists()


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
        assert "make it again" in done.stderr or "choose another --name, or delete it" in done.stderr
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


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = routekit("evaluate", "nowhere", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: nowhere")
