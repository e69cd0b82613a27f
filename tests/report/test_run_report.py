"""The report of a run: what is analysed, what is warned of, what is written."""

import json
from typing import Any

import pytest
import torch

from routekit.cost.model import CostModel
from routekit.evaluation.evaluate import evaluate
from routekit.macs import CONVENTION
from routekit.pipeline.analyse import analyse
from routekit.report.run_page import html, markdown, warnings
from tests.toy import toy_exits, toy_images

RATES = {"body.0": 0.0, "body.1": 0.4, "body.2": 1.0}


def record(**more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "run": "runs/x", "data": "toy", "images": 90, "split": "test", "method": "routed", "seconds": 3.0,
        "accuracy": {"dense": 0.9, "routed": 0.85},
        "flops": {"convention": CONVENTION, "dense": 100.0, "target": 50.0, "realized": 50.2},
        "routes": {"unique": 5, "entropy_bits": 1.5, "mean_units": 2.0, "units": 3, "run_rate": {"body.1": 0.4}},
        "environment": {"device": "a CPU", "threads": 2, "date": "2026-11-22"},
    }  # fmt: skip
    return made | more


def test_what_is_found_agrees_with_the_evaluation() -> None:
    network, images = toy_exits(seed=3), toy_images(90)
    costs = CostModel.measure(network)
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
    assert analyse(network, images, CostModel.measure(network)).kept == {"left alone": 1.0}


def test_what_is_warned_of() -> None:
    assert warnings(record()) == []
    routes = record()["routes"]
    collapsed, dead, always = warnings(record(routes=routes | {"unique": 2, "entropy_bits": 0.3, "run_rate": RATES}))
    assert collapsed.startswith("Routing has collapsed: 2 routes, 0.30 bits")
    assert "takes body.0: `routekit export` leaves out" in dead
    assert "body.2" in always
    (off,) = warnings(record(flops=record()["flops"] | {"realized": 55.0}))
    assert off.startswith("The cost is +10.0% off its target")
    cascade = record(routes=routes | {"unique": 2, "entropy_bits": 0.3}, junctions=["cascade"])
    assert warnings(cascade) == []
    assert warnings(record(method="l1", routes=routes | {"entropy_bits": 0.0})) == []


def test_the_same_records_give_the_same_report() -> None:
    network = toy_exits(seed=3)
    found = analyse(network, toy_images(90), CostModel.measure(network)).to_dict()
    found = json.loads(json.dumps(found))
    text, page = (markdown(record(), found, ["a.svg"]), html(record(), found, ["<?xml?><svg></svg>"]))
    assert markdown(record(), found, ["a.svg"]) == text
    assert "![a.svg](a.svg)" in text
    assert "85.00% of 90 test images of toy" in text
    assert page.count("<details") == len(found["shared"])
    assert "<svg></svg>" in page
    assert "src='http" not in page
