"""The report of a run: what is analysed, what is warned of, what is written."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from routekit.cost.table import CostTable
from routekit.evaluation.evaluate import evaluate
from routekit.macs import CONVENTION
from routekit.pipeline.analyse import analyse
from routekit.pipeline.report import report_run
from routekit.report.findings import facts, warnings
from routekit.report.page import in_markdown
from routekit.report.run_page import Contents, html, markdown
from tests.toy import toy_exits, toy_images

RATES = {"body.0": 0.0, "body.1": 0.4, "body.2": 1.0}


def record(**more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "run": "runs/x", "model": "toy", "data": "toy", "images": 90, "split": "test", "method": "routed",
        "seconds": 3.0,
        "accuracy": {"dense": 0.9, "routed": 0.85},
        "flops": {"convention": CONVENTION, "dense": 100.0, "target": 50.0, "realized": 50.2},
        "routes": {"unique": 5, "entropy_bits": 1.5, "mean_units": 2.0, "units": 3, "run_rate": {"body.1": 0.4}},
        "environment": {"device": "a CPU", "threads": 2, "date": "2026-11-22"},
    }  # fmt: skip
    return made | more


def test_what_is_found_agrees_with_the_evaluation() -> None:
    network, images = toy_exits(seed=3), toy_images(90)
    costs = CostTable.measure(network)
    found, measured = analyse(network, images, costs), evaluate(network, images, costs)
    assert sum(row.images for row in found.lengths) == 90
    assert sum(row.images * row.accuracy for row in found.lengths) == pytest.approx(90 * measured.accuracy)
    counts = torch.bincount(measured.labels).double()
    rates = (torch.tensor(found.class_rates) * counts.unsqueeze(1)).sum(dim=0) / 90
    assert rates.tolist() == pytest.approx(list(measured.statistics.run_rate))
    shared = found.shared
    assert [route.images for route in shared] == sorted((route.images for route in shared), reverse=True)
    taken = [tuple(route) for route in measured.routes.tolist()]
    assert shared[0].images == taken.count(tuple(shared[0].runs)) == sum(shared[0].classes)
    assert all(0 <= share <= 1 for share in found.kept.values())


def test_images_that_change_nothing_keep_their_route(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = toy_exits(seed=3), toy_images(30)
    monkeypatch.setattr("routekit.pipeline.analyse.VARIATIONS", {"left alone": lambda batch: batch})
    assert analyse(network, images, CostTable.measure(network)).kept == {"left alone": 1.0}


def test_what_is_warned_of() -> None:
    assert warnings(record()) == []
    routes = record()["routes"]
    collapsed, dead, always = warnings(record(routes=routes | {"unique": 2, "entropy_bits": 0.3, "run_rate": RATES}))
    assert collapsed.startswith("Routing has collapsed: 2 routes, 0.30 bits")
    assert "runs body.0: `routekit export` leaves out" in dead
    assert "body.2" in always
    (off,) = warnings(record(flops=record()["flops"] | {"realized": 55.0}))
    assert off.startswith("The cost is +10.0% off its target")
    assert "evaluate" not in off  # units that have learned for one budget cannot be set to another
    (off,) = warnings(record(flops=record()["flops"] | {"realized": 55.0}, junctions=["exit"]))
    assert "`routekit evaluate --target-flops`" in off
    (off,) = warnings(record(flops=record()["flops"] | {"realized": 55.0, "chance": 4.0}, junctions=["exit"]))
    assert off.startswith("The cost is +10.0% off its target, which may be chance: so few")
    assert "within 8.0% (one standard error)" in off
    exits = {"past layer1.0": 1.0, "past layer2.0": 0.005, "past layer3.0": 0.0}
    none, hardly, all_go_on = warnings(record(routes=routes | {"run_rate": exits}))
    assert none.startswith("No image goes on past layer3.0: what lies behind is not used.")
    assert hardly.startswith("Hardly any image goes on past layer2.0")
    assert "go on past layer1.0: the exit there" in all_go_on
    sinks = {"body.0": 0.0, "body.0 branch 1": 0.5, "body.1": 0.0, "body.1 branch 1": 0.0}
    unused, rare = warnings(record(routes=routes | {"run_rate": sinks}))
    assert unused.startswith("No test image runs body.1: `routekit export`")
    assert rare.startswith("Hardly any image runs body.0:")
    cascade = record(routes=routes | {"unique": 2, "entropy_bits": 0.3}, junctions=["cascade"])
    assert warnings(cascade) == []
    # A cascade takes no --exits; in records of the former version it begins after the stem.
    for name, rate in (("past narrow", 0.0), ("past narrow", 1.0), ("past stem", 0.0), ("past stem", 1.0)):
        (advice,) = warnings(cascade | {"routes": cascade["routes"] | {"run_rate": {name: rate}}})
        assert "`junctions.cascade.width`" in advice
        assert "--exits" not in advice
    tree = record(routes=routes | {"run_rate": {"first sink at body.0": 0.0, "past body.0": 0.5}})
    for junctions in (["tree", "exit"], ["branch", "exit"]):  # now and formerly
        assert warnings(tree | {"junctions": junctions}) == []
        name = "first way at body.0"
        assert warnings(tree | {"junctions": junctions, "routes": routes | {"run_rate": {name: 0.0}}}) == []
    (off,) = warnings(tree | {"junctions": ["tree", "exit"], "flops": record()["flops"] | {"realized": 55.0}})
    assert "evaluate" not in off  # where paths part was learned for one budget
    assert warnings(record(junctions=["a kind that is not here"])) == []
    assert warnings(record(method="l1", routes=routes | {"entropy_bits": 0.0})) == []


def test_of_a_static_network_there_is_nothing_to_warn_of_or_to_analyse(tmp_path: Path) -> None:
    static = record(
        method="l1", routes={"unique": 1, "entropy_bits": 0.0, "mean_units": 3.0, "units": 3, "run_rate": {}}
    )
    assert warnings(static) == []
    files = report_run(recorded(tmp_path / "run", static), tmp_path / "out", "svg")
    assert [file.name for file in files] == ["report.md", "accuracy-against-cost.svg", "index.html"]
    assert "route" not in files[0].read_text().replace("routers", "")
    assert "This is the one point of this network: every image costs the same." in files[0].read_text()


def test_facts_name_the_budget_and_static_runs_no_routes() -> None:
    _, cost, routes, _ = facts(record())
    assert cost.endswith(
        "50.20% of what it costs in the dense network, for a budget of 50.00%, which was met on validation images."
    )
    assert routes == (
        "They take 5 different routes (1.50 bits of entropy: 0 would be one route for all), on which 2.0 of 3 units "
        "run on average."
    )
    flops, static = record()["flops"] | {"target": None}, record()["routes"] | {"unique": 1, "mean_units": 3.0}
    _, cost, routes, _ = facts(record(flops=flops, routes=static, shuffled_accuracy=0.85))
    assert "budget" not in cost
    assert routes == "All images take the same route: 3 of 3 units run."


def test_the_same_records_give_the_same_report() -> None:
    network = toy_exits(seed=3)
    found = analyse(network, toy_images(90), CostTable.measure(network)).to_dict()
    found = json.loads(json.dumps(found))
    contents = Contents(record(), found)
    text, page = markdown(contents, {"lengths": "a.svg"}), html(contents, {"units": "<?xml?><svg></svg>"})
    assert markdown(contents, {"lengths": "a.svg"}) == text
    assert text.startswith("# x\n")
    assert "## Short routes and long ones\n\n![short routes and long ones](a.svg)" in text
    assert "85.00% (± 3.76, one standard error) of 90 test images of toy" in text
    assert page.count("<details") == len(found["shared"])
    assert page.count("✓</b>") == sum(sum(route["right"]) for route in found["shared"])
    assert "<svg role=img aria-label='Who runs what'></svg>" in page
    assert "src='http" not in page
    assert "class=warnings" not in page


def test_a_warning_on_the_page_has_its_commands_as_code() -> None:
    made = record(routes=record()["routes"] | {"run_rate": RATES})
    page = html(Contents(made), {})
    assert "<code>routekit export</code>" in page
    assert "<a href=#warnings>" in page
    assert "`" not in page.partition("class=warnings")[2].partition("</ul>")[0]


def test_classes_called_by_numbers_are_called_classes() -> None:
    network, images = toy_exits(seed=3), toy_images(90)
    found = analyse(network, images, CostTable.measure(network)).to_dict()
    numbered = found | {"classes": [str(place) for place, _ in enumerate(found["classes"])]}
    assert re.search(r"<p>class \d: \d+", html(Contents(record(), numbered), {}))


def recorded(folder: Path, made: dict[str, Any], *lines: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps(made))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_without_the_network_the_report_is_made_of_the_records(tmp_path: Path) -> None:
    step = {"kind": "step", "step": 1, "losses": {"classification": 1.0}, "realized": 1.0, "wanted": 0.5}
    check = {"kind": "validation", "step": 1, "accuracy": 0.5, "realized": 0.5, "routes": 5}
    run = recorded(tmp_path / "run", record(), step, check)
    files = report_run(run, tmp_path / "out", "svg")
    assert [file.name for file in files] == ["report.md", "accuracy-against-cost.svg", "training.svg", "index.html"]
    text = files[0].read_text()
    assert "The network of this run is not here: who runs what" in text
    assert "keep their route" not in text
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in report_run(run, tmp_path / "out", "svg", force=True)] == before
    static = record(method="l1", routes=record()["routes"] | {"unique": 1})
    files = report_run(recorded(tmp_path / "static", static, step, check), tmp_path / "two", "svg")
    assert "not here" not in files[0].read_text()  # there is nothing to leave out


def test_a_cascade_of_networks_has_its_facts_and_its_place(tmp_path: Path) -> None:
    run = recorded(tmp_path / "joined", record(method="cascade", model="small -> large"))
    files = report_run(run, tmp_path / "out", "png")
    assert [file.name for file in files] == ["report.md", "accuracy-against-cost.png", "index.html"]
    assert "![accuracy against cost](accuracy-against-cost.png)" in files[0].read_text()
    assert "<h2>Accuracy against cost</h2>" in files[-1].read_text()


def test_names_of_others_are_no_markup() -> None:
    evil = "a<script>alert(1)</script>[x](javascript:y) | *b*"
    made = record(run=f"runs/{evil}", data=f"{evil}\n# title")
    page = markdown(Contents(made), {})
    assert "<script>" not in page.replace("\\<script", "")
    assert "](javascript" not in page.replace("\\](", "")
    assert "\n# title" not in page
    assert "<script>alert" not in html(Contents(made), {})
    assert in_markdown("`routekit x --y <z>` and resnet_50 or 3 * 4") == "`routekit x --y <z>` and resnet_50 or 3 * 4"


def test_accuracy_that_fell_apart_is_warned_of_whatever_the_method() -> None:
    for method in ("routed", "l1"):
        (found,) = warnings(record(method=method, accuracy={"dense": 0.9, "routed": 0.55}))
        assert found.startswith(
            "Accuracy fell apart: 55.0% of the test images are answered rightly, 90.0% by the dense"
        )
    assert warnings(record(method="dense", accuracy={"dense": 0.9, "routed": 0.55})) == []
