"""The pages of a comparison and of a run, in a real browser: at a desk and on a phone, by day and by night."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.comparison.report import report_comparison
from routekit.cost.table import CostTable
from routekit.pipeline.analyse import analyse
from routekit.pipeline.report import report_run
from tests.records import whole
from tests.report.test_comparison import CELLS
from tests.report.test_run_report import record
from tests.toy import toy_exits, toy_images

SIZES = {"desk": (1200, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = Plan(
        base="default", shared={"model.name": "resnet20"}, methods=["dense", "skip", "l1"], budgets=["40%", "60%"],
        seeds=[0, 1],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("compared") / "c"
    folder = ComparisonFolder.create(path, plan, force=False)
    for each in CELLS:
        run = folder.of(Cell(each.method, each.budget, each.seed)).path
        run.mkdir(parents=True)
        (run / "record.json").write_text(whole(each.record))
    times = {
        cell.name: {"torch, batch 1": 2.0, "torch, batch 64": 1.0 + place} for place, cell in enumerate(plan.cells())
    }
    environment = {"device": "a CPU"}
    document = {"milliseconds": times, "images": {"1": 9}, "runtimes": {"torch": "2"}, "environment": environment}
    (path / "timings.json").write_text(json.dumps(document))
    return report_comparison(path, path, "svg")[-1]


def point_at(page: Any, point: Any) -> None:
    """Move the mouse to a point until it says what it is: it may still be on its way to where it is drawn."""
    from playwright.sync_api import TimeoutError as NotYet

    point.scroll_into_view_if_needed()
    for _ in range(30):
        box = point.bounding_box()
        page.mouse.move(0, 0)
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        with contextlib.suppress(NotYet):
            page.wait_for_selector(".hoverlayer .hovertext", timeout=500)
            return
    pytest.fail("no label appears")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_drawn_and_answers_to_clicks(browser: Any, page_file: Path, size: str, scheme: str) -> None:
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
    page.goto(page_file.as_uri())
    page.wait_for_selector("#frontier .point")
    assert page.locator("#frontier .scatterlayer .trace").count() == 4  # three methods and the frontier
    # The cost can be told in milliseconds as well.
    page.locator(".updatemenu-header").click()
    page.locator(".updatemenu-dropdown-button", has_text="batch 64").click()
    page.wait_for_function("document.querySelector('.xtitle').textContent.includes('batch 64')")
    # Nothing is wider than the screen; the table scrolls in its own box.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not page.locator("#chosen").is_visible()
    page.locator(".rows tbody tr", has_text="skip").first.click()
    assert "--target-flops 40% --junctions skip" in page.locator("#command").inner_text()
    page.locator("#copy").click()
    page.wait_for_function("document.querySelector('#copy').textContent == 'copied'")
    point_at(page, page.locator("#frontier .point").last)
    assert "routekit convert" in page.locator(".hoverlayer .hovertext").text_content()
    label = page.locator(".hoverlayer .hovertext").bounding_box()
    assert label["x"] >= 0
    assert label["x"] + label["width"] <= width
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    drawn = page.evaluate("getComputedStyle(document.querySelector('#frontier .xtick text')).fill")
    assert (brightness(ink) > brightness(paper)) == (scheme == "dark")
    assert drawn == ink
    assert faults == []
    page.close()


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with a name that no phone is wide enough for, and a network of many units."""
    path = tmp_path_factory.mktemp("runs") / ("resnet110-" + "cifar10" * 9)
    network, images = toy_exits(seed=3), toy_images(90)
    found = analyse(network, images, CostTable.measure(network)).to_dict()
    names = [f"layer{stage}.{unit}" for stage in (1, 2, 3) for unit in range(18)]
    for route in found["shared"]:
        route["runs"] = [unit % 2 == 0 for unit, _ in enumerate(names)]
    found |= {"columns": names, "class_rates": [[0.5] * len(names) for _ in found["classes"]]}
    routes = record()["routes"] | {"run_rate": dict.fromkeys(names, 0.5) | {"layer1.0": 0.0}}
    path.mkdir()
    (path / "record.json").write_text(json.dumps(record(run=f"runs/{path.name}", routes=routes)))
    (path / "analysis.json").write_text(json.dumps(found))
    return report_run(path, path / "report", "svg")[-1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_a_run_s_page_fits_and_shows_the_images_of_a_route(
    browser: Any, run_file: Path, size: str, scheme: str
) -> None:
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
    page.goto(run_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").inner_text() == run_file.parent.parent.name
    pictures = page.locator("figure svg")
    assert pictures.count() == 3
    for place in range(3):
        box = pictures.nth(place).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["width"] > 300
    route = page.locator(".route").nth(1)
    assert not route.locator("img").is_visible()
    route.locator("summary").click()
    assert route.locator("img").is_visible()
    assert route.locator(".units > span").count() == 3  # stages
    # Letters and lines of the pictures are drawn in the ink of the page.
    ink, paper, letters, line = page.evaluate(
        """[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector('figure svg [id^=text] use')).fill,
            getComputedStyle(document.querySelector('figure svg [id^=patch_3] path')).stroke]"""
    )
    assert (brightness(ink) > brightness(paper)) == (scheme == "dark")
    assert letters == line == ink
    assert page.locator(".warnings code").first.inner_text() == "routekit export"
    assert faults == []
    page.close()


def brightness(colour: str) -> int:
    return sum(int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])
