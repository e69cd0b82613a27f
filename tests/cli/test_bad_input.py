"""Options and values that are wrong: one clear line, exit code 2, and nothing lost."""

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
    (
        ["convert", "torchvision:resnext50_32x4d", "--target-flops", "50%"],
        "--junctions skip and --junctions exit need none",
    ),
    (["convert", "resnet20", "--target-flops", "120%"], "can cost from"),
    (["convert", "resnet20", "--target-flops", "0.5%", "--junctions", "branch"], "can cost from"),
    (["convert", "resnet20", "--target-flops", "170%", "--junctions", "branch"], "can cost from"),
    (["convert", "resnet20", "--target-flops", "0", "--junctions", "cascade"], "is no cost: write"),
    (["convert", "resnet20", "--target-flops", "much"], "is no cost"),
    (["convert", "resnet20", "--target-flops", "0%"], "is no cost"),
    (["convert", "resnet20", "--target-flops", "50"], "write 50%"),
    (["convert", "resnet20", "--target-flops", "50%", "--prune", "l1:0%"], "is no cost"),
    (["convert", "resnet20", "--target-flops", "50%", "--epochs", "inf"], "training.epochs"),
    (["convert", "resnet20", "--target-flops", "50%", "--seed", "99999999999999999999"], "seed"),
    (["models", "resnet999"], "no network contains"),
    (["flops", "runs/nothere"], "runs/nothere does not exist"),
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
    (["compare", "resnet20", "--budgets", "50%", "--methods", "skipp"], "did you mean skip or skipnet?"),
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
    (["finetune", "resnet20", "--input-size", "96"], "; it is a setting: --set data.input_size=..."),
    (["convert", "resnet20", "--batch-size", "8"], "; it is a setting: --set training.batch_size=..."),
    (["convert", "resnet20", "--nothing", "8"], "No such option: --nothing"),
    (["report", "nowhere"], "not a finished run"),
    (["convert", "pyramid8", "--target-flops", "50%"], "--junctions skip and --junctions exit need none"),
    (
        ["convert", "pyramid8", "--target-flops", "50%", "--junctions", "skip"],
        "no unit that can be skipped: take --junctions exit alone",
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
        (
            ["export", "runs/routed", "--format", "tflite", "--out", "x"],
            "compact, onnx, passes, triton, openvino, torch",
        ),
        (["export", "runs/routed", "--format", "onnx", "--out", "images"], "images holds other files"),
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
        (["predict", "images/test", "runs/routed"], "runs/routed is a run, and stands where images do"),
        (
            ["convert", "runs/dense", "--data", "images", "--target-flops", "50%"],
            "runs/dense is a run: name its network here, and give --weights runs/dense",
        ),
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


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = routekit("evaluate", "nowhere", "--debug", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: nowhere")
