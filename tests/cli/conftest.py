from pathlib import Path

import pytest

from tests.cli.command import FAST, in_process, write_tree


@pytest.fixture(autouse=True)
def _without_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed here is looked at for what is said of it, and not for how long it takes."""
    monkeypatch.setattr("routekit.execution.timing.REST", 0.0)
    monkeypatch.setattr("routekit.execution.timing.WARM_UP", 1)
    monkeypatch.setattr("routekit.runtime.drive.SECONDS", 0.0)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a fine-tuned dense network, and a routed one made from it."""
    folder = tmp_path_factory.mktemp("work")
    write_tree(folder / "images")
    done = in_process(
        "finetune", "resnet20", "--weights", "none", "--data", "images", "--epochs", 1, "--name", "dense", *FAST,
        "--json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = in_process(
        "convert", "resnet20", "--weights", "runs/dense", "--data", "images", "--target-flops", "60%", "--epochs", 4,
        "--junctions", "skip", "--name", "routed", *FAST, "--json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "routed.json").write_text(done.stdout)
    return folder
