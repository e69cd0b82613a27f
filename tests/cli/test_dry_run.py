"""`--dry-run`: the plan, and nothing else."""

import json
from pathlib import Path

import pytest

from tests.cli.command import in_process

CONVERT = ["convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--dry-run"]
FINETUNE = ["finetune", "resnet20", "--weights", "none", "--data", "images"]
COMPARE = ["compare", "resnet20", "--weights", "runs/dense", "--data", "images", "--budgets", "60%", "--dry-run"]


def tree(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            [*CONVERT, "--target-flops", "45%", "--seed", "7"],
            [
                "network    resnet20 for images, seed 7",
                "45.0% of ",
                "pruned     l1 to ",
                "junction   cascade: ",
                "width 0.",
                "note       does not look again: not for budgets under 50%",
                "folder     runs/resnet20-images-l1+cascade-45pct-seed7",
            ],
        ),
        (
            [*CONVERT, "--target-flops", "60%", "--junctions", "skip,exit", "--exits", "stages", "--name", "new"],
            ["junction   skip: yes", "junction   exit: ", "at layer1.2,layer2.2", "folder     runs/new"],
        ),
        (
            # No gate relaxes what scores decide: none has to be given.
            [*CONVERT, "--target-flops", "60%", "--junctions", "act"],
            ["junction   act"],
        ),
        (
            ["convert", "resnet20", "--weights", "none", *CONVERT[4:], "--target-flops", "60%", "--seed", "7"],
            ["first      the dense network, ", "junction   again, if it pays", "training   6 epochs in batches of 128"],
        ),
        ([*CONVERT, "--target-flops", "60%", "--method", "firstk", "--seed", "7"], ["method     firstk"]),
        (
            [*CONVERT, "--target-flops", "90%", "--smaller", "runs/routed", "--seed", "7"],
            [
                "behind     runs/routed, by confidence",
                "pruned     l1 to ",
                "folder     runs/resnet20-images-routed+l1+cascade-90pct-seed7",
            ],
        ),
        (
            [*FINETUNE, "--epochs", "3", "--seed", "7", "--dry-run"],
            ["method     dense", "training   3 epochs", "folder     runs/resnet20-images-dense-seed7"],
        ),
        ([*COMPARE, "--methods", "dense,skip"], ["2 cells, 2 to do, about ", "skip-60pct-seed0: to do"]),
    ],
    ids=["default", "junctions", "act", "untrained", "static", "smaller", "finetune", "compare"],
)
def test_a_dry_run_prints_the_plan_and_writes_nothing(arguments: list[str], says: list[str], workplace: Path) -> None:
    before = tree(workplace)
    done = in_process(*arguments, cwd=workplace)
    assert done.returncode == 0, done.stderr
    for said in says:
        assert said in done.stdout, done.stdout
    assert "fvcore: 1 multiply-add = 1 FLOP" in done.stdout or arguments[0] == "compare"
    document = json.loads(in_process(*arguments, "--json", cwd=workplace).stdout)
    assert document.keys() == ({"cells", "seconds"} if arguments[0] == "compare" else {"run", "plan"})
    assert tree(workplace) == before


def test_what_is_planned_is_what_is_done(workplace: Path) -> None:
    run = ["convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%"]
    run += ["--epochs", "0", "--junctions", "cascade", "--name", "planned"]
    planned = json.loads(in_process(*run, "--dry-run", "--json", cwd=workplace).stdout)
    done = in_process(*run, "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["run"] == planned["run"] == "runs/planned"
    assert record["flops"]["target"] == planned["plan"]["target"]
    assert record["flops"]["dense"] == planned["plan"]["dense_cost"]
    kept = (workplace / "runs" / "planned" / "run.yaml").read_text()
    assert f"width: {planned['plan']['junctions']['cascade']['width']}" in kept


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*CONVERT, "--target-flops", "60%", "--name", "routed"], "runs/routed holds a run: go on with --resume"),
        ([*CONVERT, "--target-flops", "60%", "--name", "dense", "--force"], "runs/dense, which is in it"),
        ([*CONVERT, "--target-flops", "1%", "--junctions", "skip"], "can cost from"),
        (["convert", "resnet20", "--data", "nowhere", "--target-flops", "60%", "--dry-run"], "nowhere"),
        ([*COMPARE, "--methods", "skipp"], "did you mean skip or skipnet?"),
    ],
)
def test_a_dry_run_refuses_what_a_run_would(arguments: list[str], says: str, workplace: Path) -> None:
    done = in_process(*arguments, cwd=workplace)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert says in done.stderr
