"""The model card: figures worked by hand, what is left out and said, names and paths of others."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from routekit.errors import InputError
from routekit.evaluation.answers import pack
from routekit.report.card import card
from routekit.report.chance import mcnemar, wilson
from routekit.report.record import portable, read_record
from tests.records import WHOLE, whole

RIGHT = torch.tensor([True] * 8 + [False] * 12)
DENSE = torch.tensor([True] * 7 + [False] + [True] * 8 + [False] * 4)  # alone right 8 times, wrong once
PAIRED = {
    "images": 20, "accuracy": {"routed": 0.4, "dense": 0.75}, "right": pack(RIGHT), "dense_right": pack(DENSE),
    "by_class": {"class": ["cat", "dog"], "images": [8, 12], "right": [8, 0], "dense_right": [7, 8]},
}  # fmt: skip
TIMED = {
    "method": "ladder", "thresholds": [0.5], "average": False,
    "passes": [{"form": "0-l1-25pct", "precision": "int8"}, {"form": "dense", "precision": "fp32"}],
    "time": {"runtime": "onnx", "batch": 1, "threads": 2, "machine": "a CPU", "target_ms": None, "mean_ms": 2.0,
             "p50": 1.5, "p95": 3.0, "p99": 9.0, "dense_ms": 8.0},
}  # fmt: skip


def made(home: str | None = None, **more: Any) -> tuple[dict[str, Any], str]:
    """The data and the text of a card."""
    text = card(WHOLE | more, home)
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def section(body: str, heading: str) -> str:
    return body.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_the_interval_and_the_test_by_hand() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(10, 10)[1] == 1.0
    assert mcnemar(1, 8) == 2 * (1 + 9) / 2**9
    assert mcnemar(8, 1) == mcnemar(1, 8)
    assert (mcnemar(0, 0), mcnemar(5, 5)) == (1.0, 1.0)
    stats = pytest.importorskip("scipy.stats")
    assert mcnemar(460, 540) == pytest.approx(stats.binomtest(460, 1000).pvalue)


def test_the_dense_network_is_compared_image_by_image() -> None:
    data, body = made(**PAIRED)
    accuracy = section(body, "Accuracy")
    assert "| this network | 40.00% | 8 of 20 | 21.88% to 61.34% |" in accuracy
    assert "| the dense network | 75.00% | 15 of 20 | 53.13% to 88.81% |" in accuracy
    assert "difference is -35.00 points. The dense network alone answers 8 of the images rightly, this one alone 1" in (
        accuracy
    )
    assert "p = 0.039 by McNemar's exact test" in accuracy
    assert "| dog | 12 | 0 | 8 | -66.7 |" in section(body, "Classes that lost most")
    assert "cat" not in section(body, "Classes that lost most")
    (index,) = data["model-index"]
    metrics = {each["type"]: each["value"] for each in index["results"][0]["metrics"]}
    assert metrics == {"accuracy": 0.4, "macs": 50}


def test_what_the_record_does_not_hold_is_left_out_and_said() -> None:
    data, body = made()
    assert data["library_name"] == "routekit"
    assert not {"license", "datasets", "base_model"} & set(data)
    assert "## Time" not in body
    assert "## Classes" not in body
    assert "cannot be tested image by image" in section(body, "Accuracy")
    missing = section(body, "What was not measured")
    for said in ("Time: multiply-adds alone", "Which images the dense", "each class lost", "The seed", "command line"):
        assert said in missing
    assert "how it was trained is not in the record" in section(body, "Data and training")
    assert made(data="cifar10")[0]["datasets"] == ["cifar10"]
    _, body = made(accuracy={"dense": None, "routed": 0.85})
    assert "| the dense network |" not in body
    assert "The accuracy of the dense network on these images." in section(body, "What was not measured")
    _, body = made(method="dense", accuracy={"dense": 0.85, "routed": 0.85})
    assert "McNemar" not in body


def test_a_time_says_where_it_was_measured_and_of_what() -> None:
    data, body = made(**TIMED)
    said = section(body, "Time")
    assert "on a CPU, onnx, batch 1, 2 threads:" in said
    assert "| this network | 2.000 | 1.500 | 3.000 | 9.000 |" in said
    assert "The dense network takes 4.00 times as long." in said
    of = "(0-l1-25pct in int8, then dense in fp32, by onnx)"
    assert of in section(body, "Accuracy")  # who loads the checkpoint has another network
    assert f"These are figures {of}; the checkpoint holds float32 for torch" in body
    names = [each["name"] for each in data["model-index"][0]["results"][0]["metrics"]]
    assert names[0] == f"Accuracy {of}"
    assert names[2].endswith("onnx, batch 1, 2 threads, a CPU")
    here = [{"form": "dense", "precision": "fp32"}]
    assert (
        "checkpoint holds float32"
        not in made(**TIMED | {"passes": here, "time": TIMED["time"] | {"runtime": "torch"}})[1]
    )


def test_names_of_others_are_words() -> None:
    evil = "<script>|[x](y)\n# `b|c`"
    found = PAIRED | {"by_class": {"class": [evil, evil], "images": [8, 12], "right": [0, 0], "dense_right": [8, 8]}}
    data, body = made(**found, run=f"runs/{evil}", data="a: b\n---\nc")
    for line in body.splitlines():
        if "script" in line and not line.startswith("    "):
            assert r"\<script\>\|\[x\](y) # 'b\|c'" in line
    assert data["model-index"][0]["results"][0]["dataset"]["name"] == "a: b --- c"
    assert "runs" not in data["model-index"][0]["name"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/jane doe/runs/x", "x"),
        ("runs/x", "runs/x"),
        ("a --data '/home/jane doe/my photos/' --weights=/w/x.pt", "a --data 'my photos' --weights=x.pt"),
        ("a --set data.val=../../jane/val --weights ~jane/x.pt bb:/c/d", "a --set data.val=val --weights x.pt bb:d"),
        (r"C:\Users\jane\x", "x"),
        ("file:///home/jane/x.pth", "x.pth"),
        ("/home/jane/net.py:make", "net.py:make"),
        ("https://host/a/b hf://user/name", "https://host/a/b hf://user/name"),
        ("it's images/s and / or", "it's images/s and / or"),
    ],
)
def test_no_folder_of_a_machine_is_shown(text: str, shown: str) -> None:
    assert portable({"a": [text, 1.5, None]}) == {"a": [shown, 1.5, None]}
    assert portable({"right": "/3//", "dense_right": "/9//"}) == {"right": "/3//", "dense_right": "/9//"}


def test_the_card_shows_no_folder_of_a_machine() -> None:
    environment = WHOLE["environment"] | {"command": "routekit convert x --data /home/jane/photos --resume runs/x"}
    _, body = made(run="/home/jane/runs/x", environment=environment)
    assert "jane" not in body
    assert "    routekit convert x --data photos --resume runs/x\n\nThat went on with a run" in body
    assert 'routekit.load("x")' in body
    assert 'routekit.load("hf://user/y@v2")' in made("hf://user/y@v2")[1]
    assert "\n# y\n" in made("hf://user/y@v2")[1]


def test_classes_in_a_record_are_checked(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(whole({"by_class": {"class": ["a"], "images": ["<"], "right": [1]}}))
    with pytest.raises(InputError, match="by_class"):
        read_record(tmp_path)
