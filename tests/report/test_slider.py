"""The first two sections of a run's page, in a real browser: the slider, the classes, and who cannot see or click."""

import base64
import io
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from routekit.evaluation.answers import pack
from routekit.report import drawing, run_pictures
from routekit.report.by_class import counts, rows
from routekit.report.curve import Curve
from routekit.report.run_page import CURVE, Contents, html, markdown
from routekit.report.settings import Setting, answerer
from tests.report.test_run_report import record

EVIL = "<img src=x onerror=alert(1)>&'\""
# Eight images: the dense network alone answers two of them rightly, this one alone one.
RIGHT = torch.tensor([1, 1, 1, 0, 0, 1, 0, 1]).bool()
DENSE = torch.tensor([1, 1, 1, 1, 1, 0, 0, 1]).bool()
MADE = record(
    images=8,
    accuracy={"dense": 0.75, "routed": 0.625},
    flops=record()["flops"] | {"dense": 2e6, "target": 1e6, "realized": 1.1e6},
    routes=record()["routes"] | {"run_rate": {"past layer1.0": 0.5}},
    exits=[
        {"after": "layer1.0", "stops": 0.5, "accuracy": 1.0, "alone": 0.5, "answered": [2, 2]},
        {"after": "end", "stops": 0.5, "accuracy": 0.25, "alone": 0.75, "answered": [2, 2]},
    ],
    classes=[EVIL, "dog"],
    right=pack(RIGHT),
    dense_right=pack(DENSE),
    by_class={"class": [EVIL, "dog"], "images": [4, 4], "right": [3, 2], "dense_right": [4, 2]},
)
SETTINGS = [
    Setting(0.5, 0.6e6, [1.0, 0.0], [-1.25], validation=0.4, ms=1.0),
    Setting(0.625, 1.1e6, [0.5, 0.5], [0.5], validation=0.6, ms=1.5, chosen=True),
    Setting(0.75, 2.2e6, [0.0, 1.0], [2.0], validation=0.7, ms=2.25),
]


def picture() -> str:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "JPEG")
    return base64.b64encode(stream.getvalue()).decode()


CHANGES = {
    "lost": 2, "gained": 1, "by_class": MADE["by_class"],
    "lost_examples": [{"name": EVIL, "image": picture()}, {"name": "dog", "image": picture()}],
    "gained_examples": [{"name": "dog", "image": picture()}],
}  # fmt: skip


def page_of(contents: Contents, file: Path) -> Path:
    figure = run_pictures.curve(contents.curve)
    svg = drawing.as_svg(figure)
    points = [(contents.curve.cost(each), 100 * each.accuracy) for each in contents.curve.settings]
    file.write_text(html(contents, {CURVE: svg}, drawing.places(figure, points)))
    return file


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of(Contents(MADE, None, SETTINGS, CHANGES), tmp_path_factory.mktemp("page") / "index.html")


def opened(browser: Any, file: Path, width: int = 1200, **more: Any) -> Any:
    page = browser.new_page(viewport={"width": width, "height": 900}, **more)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("dialog", lambda dialog: page.faults.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda request: page.faults.append(request.url) if request.url.startswith("http") else None)
    page.goto(file.as_uri())
    return page


def figures(page: Any) -> dict[str, str]:
    pairs = page.locator("#figures div").all()
    return {pair.locator("dt").inner_text(): pair.locator("dd").inner_text() for pair in pairs}


def test_the_slider_moves_over_the_settings(browser: Any, page_file: Path) -> None:
    page = opened(browser, page_file)
    first = {
        "setting": "2, this network (of 3)", "threshold": "0.500", "right, % of test images": "62.50",
        "right, % of validation images": "60.00", "multiply-adds, millions": "1.1", "% of dense": "55.0",
        "milliseconds": "1.500", "answered by the exit after layer1.0, %": "50.00", "answered by the end, %": "50.00",
    }  # fmt: skip
    assert figures(page) == first
    dot = page.locator("#here")
    before = float(dot.get_attribute("cx")), float(dot.get_attribute("cy"))
    # By its label, and by the keyboard: everybody gets there.
    slider = page.get_by_label("Threshold, from the cheapest setting")
    slider.focus()
    page.keyboard.press("ArrowRight")
    last = {
        "setting": "3 (of 3)", "threshold": "2.000", "right, % of test images": "75.00",
        "right, % of validation images": "70.00", "multiply-adds, millions": "2.2", "% of dense": "110.0",
        "milliseconds": "2.250", "answered by the exit after layer1.0, %": "0.00", "answered by the end, %": "100.00",
    }  # fmt: skip
    assert figures(page) == last
    assert "right, % of test images: 75.00; " in slider.get_attribute("aria-valuetext")
    assert float(dot.get_attribute("cx")) > before[0]  # dearer
    assert float(dot.get_attribute("cy")) < before[1]  # better
    page.keyboard.press("Home")
    assert figures(page)["threshold"] == "-1.250"
    page.get_by_role("button", name="Back to the chosen setting").press("Enter")
    assert figures(page) == first
    # The dot lies in the ring of the chosen setting.
    ring = page.locator("#ring use").bounding_box()
    box = dot.bounding_box()
    assert box["x"] + box["width"] / 2 == pytest.approx(ring["x"] + ring["width"] / 2, abs=1.5)
    assert box["y"] + box["height"] / 2 == pytest.approx(ring["y"] + ring["height"] / 2, abs=1.5)
    assert "to look at, not to choose by" in page.locator("body").inner_text()
    assert page.faults == []
    page.close()


def test_without_javascript_a_table_says_the_same(browser: Any, page_file: Path) -> None:
    page = opened(browser, page_file, java_script_enabled=False)
    assert not page.locator("#slider").is_visible()
    assert not page.locator("#here").is_visible()
    lines = [line.inner_text().split("\t") for line in page.locator("#settings tbody tr").all()]
    assert lines == [
        ["1", "-1.250", "50.00", "40.00", "0.6", "30.0", "1.000", "100.00", "0.00"],
        ["2, this network", "0.500", "62.50", "60.00", "1.1", "55.0", "1.500", "50.00", "50.00"],
        ["3", "2.000", "75.00", "70.00", "2.2", "110.0", "2.250", "0.00", "100.00"],
        ["the dense network", "", "75.00", "", "2", "100.0", "", "", ""],
    ]
    page.close()


def test_names_of_classes_are_words(browser: Any, page_file: Path) -> None:
    page = opened(browser, page_file)
    assert page.locator("td", has_text="onerror").first.inner_text() == EVIL
    assert page.locator(".examples li").count() == 3
    assert page.locator(".examples img").first.get_attribute("alt") == f"an image of {EVIL}"
    assert page.faults == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 380])
def test_everybody_can_use_it(browser: Any, page_file: Path, width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(browser, page_file, width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#all summary").click()  # the table is looked at, too
    assert page.locator("#settings").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]})
    assert found.violations_count == 0, found.generate_report()
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    page.close()


def test_a_run_without_a_threshold_has_its_point_and_no_slider(browser: Any, tmp_path: Path) -> None:
    made = {key: value for key, value in MADE.items() if key != "exits"}
    page = opened(browser, page_of(Contents(made), tmp_path / "index.html"), 380)
    assert page.locator("input").count() == 0
    assert "This is the one point that was measured." in page.locator("body").inner_text()
    first = page.locator("table").first.locator("tbody tr").first.inner_text()
    assert first.split("\t") == ["this network", "62.50", "1.1", "55.0"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert page.faults == []
    page.close()


def test_classes_and_changes_by_hand() -> None:
    title, lines = rows(MADE["by_class"])
    assert title[2:] == ["dense network, %", "this network, %", "difference, points"]
    assert lines == [[EVIL, "4", "100.0", "75.0", "-25.0"], ["dog", "4", "50.0", "50.0", "+0.0"]]
    assert counts(MADE, None) == (2, 1)
    assert counts(record(), None) is None
    without = {key: value for key, value in MADE["by_class"].items() if key != "dense_right"}
    assert rows(without)[1] == [[EVIL, "4", "75.0"], ["dog", "4", "50.0"]]
    text = markdown(Contents(MADE, None, SETTINGS, CHANGES), {CURVE: "a.svg"})
    assert "2 were answered rightly by the dense network and are answered wrongly now. 1 were answered wrongly" in text
    assert "The difference may be chance" in text
    assert "| 2, this network | 0.500 | 62.50 | 60.00 | 1.1 | 55.0 | 1.500 | 50.00 | 50.00 |" in text
    assert text.index("## Accuracy against cost") < text.index("## What changed") < text.index("## What was measured")


def test_a_ladder_is_drawn_against_milliseconds_where_all_are_known() -> None:
    taken = {"target_ms": 2.0, "mean_ms": 1.9, "dense_ms": 9.0}
    chosen = {"accuracy": 0.6, "dense_accuracy": 0.7}
    passes = [{"form": "0-l1-25pct", "precision": "int8"}, {"form": "dense", "precision": "fp32"}]
    ladder = MADE | {"method": "ladder", "time": taken, "chosen": chosen, "passes": passes, "thresholds": [0.4]}
    curve = Curve.of(ladder, [Setting(0.5, 1e6, ms=1.0), *Curve.of(ladder).settings])
    assert (curve.timed, curve.target, curve.chosen) == (True, 2.0, 1)
    assert [curve.cost(each) for each in curve.settings] == [1.0, 1.9]
    assert curve.lines[1][-1] == "0-l1-25pct int8, then dense fp32"
    assert "`routekit aim`" in curve.notes[0]
    untimed = Curve.of(ladder, [Setting(0.5, 1e6), *Curve.of(ladder).settings])
    assert (untimed.timed, untimed.target) == (False, 1.0)
    assert "milliseconds" not in untimed.head


def test_who_answers_is_said_in_words() -> None:
    names = ["layer1.0", "narrow", "narrow.1", "network 0", "0/narrow", "1/body.0", "end", "again"]
    assert [answerer(name) for name in names] == [
        "the exit after layer1.0", "the narrow form", "narrow form 1", "pass 1", "the narrow form of pass 1",
        "the exit after body.0 of pass 2", "the end", "both looks",
    ]  # fmt: skip
