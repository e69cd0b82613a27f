"""The page of a comparison, in a real browser: at a desk and on a phone, by day and by night."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.comparison.report import report_comparison
from tests.report.test_comparison import CELLS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
        (run / "record.json").write_text(json.dumps(each.record))
    times = {
        cell.name: {"torch, batch 1": 2.0, "torch, batch 64": 1.0 + place} for place, cell in enumerate(plan.cells())
    }
    environment = {"device": "a CPU"}
    document = {"milliseconds": times, "images": {"1": 9}, "runtimes": {"torch": "2"}, "environment": environment}
    (path / "timings.json").write_text(json.dumps(document))
    return report_comparison(path, path, "svg")[-1]


@pytest.fixture(scope="module")
def browser() -> Any:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


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
    page.locator("tbody tr", has_text="skip").first.click()
    assert "--target-flops 40% --junctions skip" in page.locator("#command").inner_text()
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


def brightness(colour: str) -> int:
    return sum(int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])
