import math
from pathlib import Path

import pytest
import torch

from routekit.bench.bench import bench, break_even
from routekit.bench.forms import Setting, check_installed, runtimes
from routekit.bench.rates import set_run_rate
from routekit.cost.table import CostTable
from routekit.errors import InputError, RoutekitError
from routekit.execution import timing
from routekit.execution.executor import SparseExecutor
from routekit.execution.prepare import prepare
from routekit.execution.timing import DISTINCT, ROUNDS, WARM_UP, Timing, in_turns, peak_memory
from routekit.formats.onnx import file, passes, piece
from routekit.formats.onnx.piece import Exporter
from routekit.junctions.convert import convert
from routekit.junctions.skip import Skip
from routekit.network.network import RoutedNetwork
from routekit.report.bench import bench_html, bench_picture, bench_text, check_drawing
from routekit.routing.router import RouterConfig
from tests.toy import open_to_images, toy_view


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(torch.device("cpu"), threads=1, compiled=False, folder=tmp_path, say=lambda sentence: None)


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "REST", 0)


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def skipping() -> RoutedNetwork:
    return convert(toy_view(), [Skip()], routers=RouterConfig(hidden=8)).eval()


def test_contenders_take_turns_on_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LONGEST", 3)
    seen: list[tuple[str, int]] = []
    contenders = {name: lambda x, name=name: seen.append((name, int(x))) for name in "ab"}
    timings = in_turns(contenders, [torch.tensor(0), torch.tensor(1)], seconds=0)
    turns = seen[2 * WARM_UP :]
    assert [name for name, _ in turns] == [name for name in "abba" for _ in range(4)]
    # Three batches a turn, after one that is not timed; the next round goes on with the next batches.
    assert [x for _, x in turns[:16]] == [0, 0, 1, 0] * 2 + [1, 1, 0, 1] * 2
    assert {name: [len(calls) for calls in timing.samples] for name, timing in timings.items()} == {
        "a": [ROUNDS, ROUNDS],
        "b": [ROUNDS, ROUNDS],
    }


def test_quantiles_by_hand() -> None:
    timing = Timing([[5.0, 1.0, 2.0], [4.0, 3.0]])
    assert timing.typical == (2.0 + 3.5) / 2
    assert timing.quantile(0.1) == pytest.approx(1.4)
    assert timing.calls == 5


def test_a_few_dear_images_count_as_what_they_are() -> None:
    # Two of three images take 1 ms, the third 10: the median call would say 1.
    assert Timing([[1.0, 1.0, 9.0], [1.0], [10.0, 10.0]]).typical == 4.0


def test_the_peak_of_memory_is_seen() -> None:
    size = 64 * 2**20

    def make() -> object:
        torch.ones(size)  # building it takes more than calling it
        return lambda batch: torch.ones(size // 4).sum() + batch.sum()

    found = peak_memory(make, torch.zeros(1), "cpu")  # type: ignore[arg-type]
    assert found is None or 0.9 * size < found < 1.5 * size


def test_where_routing_stops_to_pay_by_hand() -> None:
    # Time is 0.1 + 1.2 x of the dense one's: it reaches 1 at x = 0.75.
    assert break_even([(x, 0.1 + 1.2 * x) for x in (0.2, 0.4, 0.6)]) == pytest.approx(0.75)
    assert break_even([(0.50, 0.6), (0.52, 0.7)]) is None  # too alike
    assert break_even([(0.2, 0.8), (0.6, 0.7)]) is None  # nothing grows
    assert break_even([(0.2, 1.05), (0.6, 1.06)]) is None  # it would be below zero
    assert break_even([(0.5, 0.6)]) is None


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.75])
def test_routers_are_set_to_a_run_rate(rate: float) -> None:
    network = skipping()
    x = images(64)
    set_run_rate(network, x, rate)
    for form in (network, prepare(network)):
        rates = SparseExecutor(form)(x).routes.float().mean(dim=0)
        assert rates.tolist() == [rate] * 4


def test_a_benchmark_compares_dense_and_routed_by_their_macs(setting: Setting) -> None:
    network = skipping()
    open_to_images(network)
    x = images(12)
    measured = bench(network, x, names=["torch"], batches=[1, 8], setting=setting, seconds=0)
    costs = CostTable.measure(prepare(network))
    spent = costs.of_routes(SparseExecutor(prepare(network))(x).routes)
    assert [(row.runtime, row.device, row.batch) for row in measured.rows] == [("torch", "cpu", 1), ("torch", "cpu", 8)]
    for row, used in zip(measured.rows, (12, 8), strict=True):
        assert row.speedup == row.dense_ms / row.routed_ms
        assert row.ideal == pytest.approx(costs.dense / float(spent[:used].mean()))
        assert row.efficiency == pytest.approx(row.speedup / row.ideal)
        assert row.images_per_second == 1e3 * row.batch / row.routed_ms
        assert 0 < row.dense_p10 <= row.dense_p90
        assert row.samples >= ROUNDS * (used // row.batch)
    assert sum(length.images for length in measured.lengths) == 12
    assert [length.share for length in measured.lengths] == sorted(length.share for length in measured.lengths)
    assert math.isclose(measured.kept, float(spent.mean()) / costs.dense)


def test_images_that_cost_the_same_are_one_group(setting: Setting) -> None:
    network = skipping()  # exact until trained: all units run
    measured = bench(network, images(12), names=["torch"], batches=[1], setting=setting, seconds=0)
    assert [(length.shortest, length.longest, length.images) for length in measured.lengths] == [(4, 4, 12)]


@pytest.mark.parametrize("name", ["torch", "onnx", "openvino"])
def test_the_forms_of_a_runtime_answer_as_the_network_does(
    name: str, setting: Setting, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piece, "Exporter", lambda: exporter)
    monkeypatch.setattr(file, "Exporter", lambda: exporter)
    monkeypatch.setattr(passes, "Exporter", lambda: exporter)
    network = skipping()
    open_to_images(network)
    forms = runtimes[name](network, setting)
    want = SparseExecutor(prepare(network))(images(1)).logits
    for form, make in forms.for_batch(1).items():
        said = make()(images(1))
        logits = getattr(said, "logits", said[0] if isinstance(said, list) else said)
        logits = torch.as_tensor(logits if isinstance(logits, torch.Tensor | list) or name == "onnx" else logits[0])
        if form.startswith("routed"):
            torch.testing.assert_close(logits.view(1, 3), want, rtol=1e-4, atol=1e-5)
        else:
            dense = network.backbone(images(1)).detach()
            torch.testing.assert_close(logits.view(1, 3), dense, rtol=1e-4, atol=1e-5)
    assert not any("single" in form for form in forms.for_batch(2))


def test_only_so_many_batches_are_timed(setting: Setting) -> None:
    network = skipping()
    open_to_images(network)
    x = images(2 * DISTINCT)
    (row,) = bench(network, x, names=["torch"], batches=[1], setting=setting, seconds=0).rows
    costs = CostTable.measure(prepare(network))
    spent = costs.of_routes(SparseExecutor(prepare(network))(x[:DISTINCT]).routes)
    assert row.ideal == pytest.approx(costs.dense / float(spent.mean()))


def test_unknown_runtimes_are_named() -> None:
    with pytest.raises(InputError, match="onnx"):
        check_installed("onx")


REPORT = {
    "model": "runs/<one>",
    "network": "resnet56",
    "data": "cifar10-jpeg",
    "images": 1024,
    "run_rate": None,
    "flops": {"dense": 1.25e8, "realized": 6.25e7},
    "versions": {"torch": "2.8.0"},
    "environment": {"device": "a CPU", "threads": 2, "date": "2026-01-02"},
    "rows": [
        {
            "runtime": "torch", "device": "cpu", "batch": 8, "dense_form": "eager", "dense_ms": 10.0, "dense_p10": 9.0,
            "dense_p90": 11.0, "routed_form": "sparse", "routed_ms": 6.25, "routed_p10": 6.0, "routed_p90": 7.0,
            "speedup": 1.6, "ideal": 2.0, "efficiency": 0.8, "images_per_second": 1280.0, "dense_memory": 2**21,
            "routed_memory": None, "samples": 100, "break_even": 0.9,
        },
        {
            "runtime": "torch", "device": "cpu", "batch": 1, "dense_form": "eager", "dense_ms": 1.0, "dense_p10": 0.9,
            "dense_p90": 1.1, "routed_form": "sparse", "routed_ms": 2.0, "routed_p10": 1.9, "routed_p90": 2.1,
            "speedup": 0.5, "ideal": 2.0, "efficiency": 0.25, "images_per_second": 500.0, "dense_memory": None,
            "routed_memory": None, "samples": 100, "break_even": None,
        },
    ],
    "lengths": [
        {
            "runtime": "torch", "shortest": 8, "longest": 12, "images": 512, "share": 0.4, "dense_ms": 1.0,
            "routed_ms": 0.5,
        },
    ],
}  # fmt: skip


def test_the_text_says_what_pays_and_what_does_not() -> None:
    text = bench_text(REPORT)
    assert "50.0% of the MACs kept" in text
    assert "1.60x of the ideal 2.00x, efficiency 0.80: faster; pays below 90% of the MACs; 1280 images/s" in text
    assert "SLOWER: run the dense network instead" in text
    assert "8 to 12 units (40% of the MACs): 0.50 ms, dense 1.00 ms" in text
    assert "2.0 MiB" in text


@pytest.mark.parametrize("suffix", ["svg", "png", "html"])
def test_the_same_record_draws_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    draw = bench_html if suffix == "html" else bench_picture
    for name in ("one", "two"):
        draw(REPORT, tmp_path / f"{name}.{suffix}")
    content = (tmp_path / f"one.{suffix}").read_bytes()
    assert content == (tmp_path / f"two.{suffix}").read_bytes()
    if suffix == "html":
        assert b"runs/&lt;one&gt;" in content
        assert b"<svg" in content
        assert b"http://" not in content.replace(b"http://www.w3.org", b"").replace(b"http://purl.org", b"").replace(
            b"http://creativecommons.org", b""
        )


def test_a_picture_has_a_known_suffix_and_place(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.png or \.svg"):
        check_drawing(tmp_path / "chart.gif", None)
    with pytest.raises(InputError, match="cannot be written: there is no folder"):
        check_drawing(None, tmp_path / "absent" / "bench.html")
    with pytest.raises(RoutekitError, match="cannot write"):
        bench_picture(REPORT, tmp_path / "absent" / "chart.svg")
