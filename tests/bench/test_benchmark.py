"""A benchmark of all runtimes: who is advised, what is said, and the process in which networks run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from routekit.bench.advice import Advice, Measured, advise
from routekit.bench.contest import Contender, Contest
from routekit.bench.rows import MIXED, Own, Row, answer_rows, time_rows, write_rows
from routekit.bench.shipped import RUNTIMES, Shipped, size_of
from routekit.data.augment import normalize
from routekit.errors import InputError, RoutekitError
from routekit.formats.checkpoint import save_network
from routekit.formats.onnx.piece import Exporter
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.report.benchmark import benchmark_html, benchmark_text
from routekit.runtime import pass_packages
from routekit.runtime.drive import Passes
from routekit.runtime.passes import PassesRuntime
from tests.formats.test_passes import NETWORKS
from tests.runtime.parity import ABOUT
from tests.toy import small_view, toy_images, toy_view


def of(name: str, wrong: int, ms: float, *, reference: bool = False) -> Measured:
    """Of 400 images, the first few are answered wrongly."""
    return Measured(name, np.arange(400) >= wrong, ms, reference)


DENSE = of("dense", 40, 10.0, reference=True)


def test_the_fastest_within_one_standard_error_of_the_best() -> None:
    # One image more is 0.0025, of which the standard error is sqrt(0.0025 * 0.9975) / 20 = 0.002497.
    assert advise([DENSE, of("one more", 41, 1.0)]) == Advice("dense", "dense", "noise")
    # Wrong on 45 others: 5 images are 0.0125, and the error of 85 differences sqrt(0.2125 - 0.0125**2) / 20 = 0.023.
    assert advise([DENSE, Measured("other", np.arange(400) < 355, 2.0)]) == Advice("other", "dense", "noise")
    assert advise([DENSE, of("alike", 40, 6.0)]) == Advice("alike", "alike", "noise")
    assert advise([of("alone", 400, 3.0)]) == Advice("alone", "alone", "noise")


def test_what_a_run_may_lose_is_counted_against_the_dense_network_in_float32() -> None:
    rows = [DENSE, of("less", 42, 5.0), of("lesser", 43, 3.0), of("least", 44, 1.0), of("better", 30, 20.0)]
    # 0.75 points of 400 images are three.
    assert advise(rows, most_drop=0.75) == Advice("lesser", "dense", "drop")
    assert advise(rows, most_drop=0.0).ship == "dense"


def test_a_time_is_met_by_the_most_accurate_that_meets_it() -> None:
    rows = [DENSE, of("slow", 41, 2.05), of("quick", 60, 1.0), of("alike", 60, 1.5)]
    assert advise(rows, most_ms=2.01) == Advice("slow", "slow", "time")  # 2% are no difference
    assert advise(rows, most_ms=2.0) == Advice("quick", "quick", "time")
    assert advise(rows, most_ms=0.5) == Advice("dense", "dense", "noise", met=False)


def row(name: str, accuracy: float, ms: float) -> dict[str, Any]:
    runtime, precision, network = name.split()
    times = {"1": {"ms": ms, "p95": 2 * ms}, "64": {"ms": ms / 2, "p95": ms}}
    about = {"runtime": runtime, "precision": precision, "network": network}
    return about | {"accuracy": accuracy, "agreement": 0.995, "bytes": 11_240_000, "times": times}


GONE = {"runtime": "aot", "network": "dense", "reason": "no <compiler>"}
REPORT = {
    "run": "runs/<one>",
    "network": "resnet18",
    "data": "photos",
    "images": 2725,
    "batches": [1, 64],
    "rows": [
        row("onnx fp32 dense", 0.9, 100.0),
        row("onnx fp32 routed", 0.89, 40.0),
        row("openvino int8 routed", 0.88, 8.0),
        row("onnx int8 dense", 0.9, 25.0),
        *(GONE | {"precision": precision} for precision in ("fp32", "bf16")),
    ],
    "advice": [
        {"batch": 1, "ship": "onnx int8 dense", "best": "onnx fp32 dense", "why": "noise", "met": False},
        {
            "batch": 64,
            "ship": "openvino int8 routed",
            "best": "openvino int8 routed",
            "why": "time",
            "met": True,
            "most_ms": 4.5,
        },
    ],
    "notes": ["a note"],
    "versions": {"torch": "2.8.0", "onnx": "1.20.0", "compile": "2.8.0"},
    "environment": {"device": "a CPU", "threads": 2, "date": "2026-01-02"},
}


def test_the_text_is_a_table_of_80_columns_and_says_what_to_ship() -> None:
    text = benchmark_text(REPORT)
    table = text.split("\n\n")[1].splitlines()
    assert max(map(len, table)) <= 80
    assert [line.split() for line in table[2:]] == [
        ["onnx", "fp32", "dense", "90.00", "99.5", "11.24", "100.00", "200.00", "1.00", "50.00", "100.00", "1.00"],
        ["onnx", "fp32", "routed", "89.00", "99.5", "11.24", "40.00", "80.00", "2.50", "20.00", "40.00", "2.50"],
        # No dense network in float32 was timed in this runtime.
        ["openvino", "int8", "routed", "88.00", "99.5", "11.24", "8.00", "16.00", "4.00", "8.00"],
        ["onnx", "int8", "dense", "90.00", "99.5", "11.24", "25.00", "50.00", "4.00", "12.50", "25.00", "4.00"],
    ]
    assert "a CPU, threads: 2, torch 2.8.0, onnxruntime 1.20.0, 2026-01-02" in text
    assert (
        "at batch 1, ship onnx int8 dense: 25.00 ms an image, 90.00% of the test images right, 11.24 MB; on "
        "validation images, it is the fastest"
    ) in text
    assert "of the best, onnx fp32 dense. Nothing here meets the aim of the run." in text
    assert "at batch 1, the dense network is the better choice, in int8." in text
    assert "at batch 64, ship openvino int8 routed: 4.00 ms" in text
    assert "within one standard error of the best in 4.50 ms, at which the run is aimed." in text
    assert "at batch 64, the dense" not in text
    assert "not here: AOTInductor (fp32 dense, bf16 dense): no <compiler>" in text
    assert "a note" in text


def test_the_page_has_the_same_and_loads_nothing(tmp_path: Path) -> None:
    benchmark_html(REPORT, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<td>onnx int8 dense") == 1
    assert "no &lt;compiler&gt;" in page
    assert "<one>" not in page
    assert "http" not in page


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exporter: Exporter) -> Shipped:
    monkeypatch.setattr("routekit.formats.onnx.passes.Exporter", lambda: exporter)
    network = NETWORKS["narrow forms"]()
    calibration = torch.randn(16, *network.spec.input_size, generator=torch.Generator().manual_seed(0))
    return Shipped(network, tmp_path / "files", ABOUT, lambda: calibration, say=lambda sentence: None)


def test_rows_answer_and_are_timed_in_another_process(shipped: Shipped, tmp_path: Path) -> None:
    images, network = toy_images(11), shipped.network
    rows = write_rows({"routed": shipped}, ["torch", "onnx"], None)
    gone = Row("onnx", "fp32", "dense", contender=Contender("onnx", Passes(tmp_path / "nowhere")))
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    with Contest(threads=1) as contest:
        answered = answer_rows([gone, *rows], images, order, contest, batch=4)
        time_rows([gone, *rows], images, order, contest, 4, seconds=0)
    assert [row.name for row in rows] == [
        "torch fp32 routed",
        "torch bf16 routed",
        "onnx fp32 routed",
        "onnx int8 routed",
    ]
    assert gone.reason is not None
    assert "lacks the pass" in gone.reason
    assert gone.times == {}
    with torch.no_grad():
        x = normalize(images.images[order], network.spec.mean, network.spec.std)
        want = network(x).logits.argmax(dim=1)
    for each in rows:
        assert each.reason is None
        assert each.times[4].ms > 0
        assert each.times[4].p25 <= each.times[4].p75 <= each.times[4].p95
        # Three whole batches, the last one filled with the first images, three times at least.
        assert each.times[4].calls >= 9
        assert answered[each.name].shape == (11,)
        if each.precision == "fp32":
            assert torch.equal(answered[each.name], want)
    sizes = {each.precision: each.bytes for each in rows if each.runtime == "torch"}
    assert 0.4 < sizes["bf16"] / sizes["fp32"] < 0.8
    assert rows[2].bytes == sum(file.stat().st_size for file in (tmp_path / "files/passes").glob("*.onnx"))


def test_a_process_that_dies_is_a_reason_and_not_the_end(shipped: Shipped) -> None:
    contender, images = shipped.contender("torch", ("fp32",)), toy_images(2).images
    with Contest(threads=1) as contest:
        before = contest.answers(contender, images, 2)
        assert contest.process is not None
        contest.process.kill()
        with pytest.raises(RoutekitError, match="the process that runs the network failed: exit code -9"):
            contest.answers(contender, images, 2)
        assert torch.equal(contest.answers(contender, images, 2), before)


def test_passes_of_a_ladder_are_taken_as_they_are(shipped: Shipped, tmp_path: Path) -> None:
    own = Own("onnx", ("int8", "int8", "fp32"), tmp_path / "passes")
    assert own.precision == MIXED
    assert own.contender(shipped) == Contender("onnx", Passes(tmp_path / "passes"))
    rows = write_rows({"dense": shipped}, ["onnx"], own)
    assert [row.name for row in rows] == ["onnx fp32 dense", "onnx int8 dense"]  # which is not of the ladder
    in_torch = Own("torch", ("bf16", "bf16", "fp32"), tmp_path).contender(shipped)
    assert in_torch.passes.precisions == ("bf16", "bf16", "fp32")
    assert Own("torch", ("bf16", "bf16"), tmp_path).precision == "bf16"


def test_what_decides_inside_of_a_pass_has_fewer_forms(tmp_path: Path) -> None:
    network = convert(small_view(depth=8), [Skip()]).eval()
    shipped = Shipped(network, tmp_path / "files", ABOUT, lambda: torch.empty(0), say=lambda sentence: None)
    rows = write_rows({"routed": shipped}, ["torch", "compile", "aot"], None)
    assert [row.reason is None for row in rows] == [True, False, False, False, False, False]
    assert {row.reason for row in rows[1:]} == {
        "something decides inside of a pass: only plain passes are compiled, or in other precisions"
    }


def test_packages_compiled_ahead_of_time_answer_as_the_network_does(tmp_path: Path) -> None:
    network = convert(toy_view()).eval()
    shipped = Shipped(network, tmp_path / "files", ABOUT, lambda: torch.empty(0), say=lambda sentence: None)
    contender = shipped.contender("aot", ("fp32",))
    assert size_of(contender) == (contender.passes.folder / "pass-0.pt2").stat().st_size
    runtime = contender.open(batch=2, threads=1)
    assert isinstance(runtime, PassesRuntime)
    for count in (1, 5):
        x = torch.randn(count, 3, 8, 8)
        torch.testing.assert_close(runtime(x).logits, network.backbone(x).detach(), rtol=1e-4, atol=1e-5)


def test_without_a_compiler_that_is_said(tmp_path: Path) -> None:
    network = convert(toy_view()).eval()
    save_network(tmp_path / "network", network, about=ABOUT)
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}),
        pytest.raises(InputError, match="torch cannot compile here ahead of time: "),
    ):
        pass_packages.save_packages(tmp_path, network, ["fp32"])


def test_every_runtime_has_float32() -> None:
    assert all(precisions[0] == "fp32" for precisions in RUNTIMES.values())
    json.dumps(REPORT)
