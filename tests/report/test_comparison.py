"""The table of a comparison, by hand."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from routekit.comparison.plan import Cell, ComparisonFolder, Plan
from routekit.comparison.report import report_comparison
from routekit.errors import InputError
from routekit.evaluation.answers import pack
from routekit.macs import CONVENTION
from routekit.report.comparison import Measured, frontier, lower_edge, rows, scales
from routekit.report.comparison_html import comparison_html
from routekit.report.comparison_page import Compared, markdown, names, reading
from routekit.report.differences import differences
from routekit.report.frontier_picture import frontier_picture
from routekit.report.verdict import findings, verdict
from tests.records import whole


def cell(method: str, budget: str | None, seed: int, accuracy: float, share: float) -> Measured:
    target = None if budget is None else float(budget.rstrip("%"))
    return Measured(
        method,
        budget,
        seed,
        {
            "accuracy": {"dense": 0.9, "routed": accuracy / 100},
            "flops": {"convention": CONVENTION, "dense": 100.0, "realized": share, "target": target},
            "model": "resnet20",
            "data": "cifar10",
            "images": 6000,
            "split": "test",
            "environment": {"device": "a CPU", "date": "2026-11-22", "torch": "2.15.0", "threads": 2},
            "size": {"parameters": 1000, "bytes": 4000},
            "method": method if method == "dense" else "routed",
        },
    )


CELLS = [
    cell("dense", None, 0, 90.0, 100), cell("dense", None, 1, 90.2, 100),
    cell("skip", "40%", 0, 84.0, 40), cell("skip", "40%", 1, 86.0, 41),
    cell("l1", "40%", 0, 85.0, 40), cell("l1", "40%", 1, 85.2, 40),
    cell("skip", "60%", 0, 91.0, 60), cell("l1", "60%", 0, 88.0, 61),
]  # fmt: skip


def test_rows_are_means_over_seeds() -> None:
    table = rows(CELLS)
    assert [row.name for row in table] == ["l1 at 40%", "skip at 40%", "skip at 60%", "l1 at 60%", "dense"]
    skip = table[1]
    assert (skip.accuracy, skip.share, skip.seeds) == (85.0, 40.5, 2)
    assert skip.spread == pytest.approx(2**0.5)  # of 84 and 86
    assert table[2].spread == 0


def test_the_frontier_holds_what_nothing_beats() -> None:
    assert [row.name for row in frontier(rows(CELLS))] == ["l1 at 40%", "skip at 60%"]
    alike = [cell("a", "40%", 0, 85.0, 40), cell("b", "40%", 0, 85.0, 40)]
    assert len(frontier(rows(alike))) == 2


def test_differences_are_taken_seed_by_seed() -> None:
    found = {(each.other, each.budget): each for each in differences(CELLS, "skip")}
    against = found["l1", "40%"]
    assert against.mean == pytest.approx(-0.1)  # -1.0 and +0.8
    # These records do not say which images were right: of two seeds alone, an error says nothing.
    assert against.error is None
    assert found["l1", "60%"].error is None
    assert found["dense", "60%"].mean == pytest.approx(1.0)


def answering(method: str, seed: int, right: str) -> Measured:
    """A cell of four images that records which were right: "1101"."""
    made = cell(method, "40%", seed, 100 * right.count("1") / len(right), 40)
    answers = pack(torch.tensor([digit == "1" for digit in right]))
    return replace(made, record=made.record | {"images": len(right), "right": answers})


def test_the_error_of_one_seed_is_that_over_paired_images() -> None:
    """Leads are 1, 0, 0, 0 of four images: their mean is 1/4, their variance 1/4, its error sqrt(1/4/4)."""
    pair = [answering("skip", 0, "1101"), answering("l1", 0, "0101")]
    (found,) = differences(pair, "skip")
    assert (found.mean, found.error, found.clear) == (25.0, pytest.approx(25.0), False)
    assert "At 40%, skip is best, +25.00 ± 25.00 points over l1 on the one seed of both, which may be chance." in (
        verdict(pair)
    )


def test_with_more_seeds_what_seeds_change_is_in_the_error() -> None:
    """All leads are of the first seed: 3/4 and 0.

    Over images, the means 1/2, 1/2, 1/2, 0 vary by 1/16, their mean by 1/64. Over seeds, the mean varies by 9/64. What
    is neither the image's nor the seed's, squares of 3/8 with 3 degrees of freedom, over 8 leads, is 1/64, and in both.
    """
    both = [answering("skip", 0, "1110"), answering("l1", 0, "0000")]
    both += [answering("skip", 1, "0110"), answering("l1", 1, "0110")]
    (found,) = differences(both, "skip")
    assert (found.mean, found.seeds) == (37.5, 2)
    assert found.error == pytest.approx(100 * (1 / 64 + 9 / 64 - 1 / 64) ** 0.5)
    assert "+37.50 ± 37.50 points over l1 over the 2 seeds of both, which may be chance" in verdict(both)


def test_what_is_left_of_seeds_and_images_is_not_counted_twice() -> None:
    """By seed, leads are 1/4 and 1/2: their mean varies by 1/64, as what is left does. Seeds change nothing."""
    both = [answering("skip", 0, "1101"), answering("l1", 0, "0101")]
    both += [answering("skip", 1, "1101"), answering("l1", 1, "0001")]
    (found,) = differences(both, "skip")
    assert found.error == pytest.approx(100 * (11 / 192) ** 0.5)  # of the images' means 1, 1/2, 0, 0


def test_where_the_seed_draws_the_test_images_nothing_is_paired_over_seeds() -> None:
    cells = [answering(method, seed, "1100") for method in ("skip", "l1") for seed in (0, 1)]
    drawn = [replace(each, record=each.record | {"validation": "test"}) for each in cells]
    assert differences(drawn, "skip")[0].error is None
    assert differences(drawn[::2], "skip")[0].error == 0.0


def test_a_lead_that_the_shared_seeds_do_not_show_is_told_as_such() -> None:
    cells = [answering("skip", 0, "1100"), answering("skip", 1, "1111")]
    cells += [answering("l1", 0, "1110"), answering("l1", 2, "1100")]
    assert "At 40%, skip is best, 12.50 points over l1 in the mean, but -25.00 ± 25.00 on the one seed of both." in (
        verdict(cells)
    )


def test_a_lead_without_a_seed_of_both_is_told_as_such() -> None:
    said = verdict([answering("skip", 0, "1101"), answering("l1", 1, "0101")])
    assert "At 40%, skip is best, 25.00 points over l1, no seed being of both." in said


def test_the_verdict_says_what_is_in_doubt() -> None:
    said = verdict(CELLS)
    assert "On the frontier: l1 at 40% (85.10% at 40.0%), skip at 60% (91.00% at 60.0%)." in said
    assert "At 40%, l1 is best, +0.10 points over skip over the 2 seeds of both, of which no error is known." in said
    assert "At 60%, skip is best, +3.00 points over l1 on the one seed of both, of which no error is known." in said
    assert findings(CELLS)[0] == (
        "At 40%, l1 leads by 0.10 points, of which no error is known; at 60%, skip leads by 3.00 points, of which no "
        "error is known."
    )


def test_a_clear_lead_is_told_without_a_doubt() -> None:
    cells = [answering("skip", 0, "1" * 16), answering("l1", 0, "0" * 15 + "1")]
    assert findings(cells)[0] == "At 40%, skip leads by 93.75 ± 6.25 points."
    alike = [answering("skip", 0, "10"), answering("l1", 0, "01")]
    assert findings(alike)[0] == "At 40%, l1 and skip are alike."
    assert findings([answering("skip", 0, "11")]) == ["On the frontier: skip at 40% (100.00% at 40.0%)."]


def test_the_table_in_markdown() -> None:
    lines = markdown(rows(CELLS)).splitlines()
    assert lines[2] == "| 40% | l1 | 85.10 ± 0.14 | 40.00 | 2 | 1k | 4k | yes |"
    assert lines[-1] == "| none | dense | 90.10 ± 0.14 | 100.00 | 2 | 1k | 4k |  |"


def timed(milliseconds: dict[str, float]) -> list[Measured]:
    """The cells with the time of each method, at 40%, and dense."""
    return [
        replace(each, milliseconds={"torch, batch 1": milliseconds[each.method], "onnx, batch 64": 1.0})
        for each in CELLS
        if each.budget != "60%" and each.seed == 0
    ]


def test_where_it_was_timed_the_frontier_is_told_in_milliseconds_too() -> None:
    cells = timed({"l1": 2.0, "skip": 3.0, "dense": 2.5})
    table = rows(cells)
    assert list(scales(table)) == [
        "mean cost, % of the dense network's MACs", "ms an image, torch, batch 1", "ms an image, onnx, batch 64"
    ]  # fmt: skip
    lines = markdown(table).splitlines()
    assert lines[0].endswith("| bytes | ms an image, torch, batch 1 | ms an image, onnx, batch 64 | on the frontier |")
    assert lines[2] == "| 40% | l1 | 85.00 | 40.00 | 1 | 1k | 4k | 2.00 | 1.00 | yes |"
    said = verdict(cells)
    assert "On the frontier by ms an image, torch, batch 1: l1 at 40% (85.00% in 2.00), dense (90.00% in 2.50)." in said
    assert said.endswith("On the frontier by ms an image, onnx, batch 64: dense (90.00% in 1.00).")


def test_what_was_not_timed_has_no_place_on_that_scale() -> None:
    cells = [*timed({"l1": 2.0, "skip": 3.0, "dense": 2.5}), cell("drn", "40%", 0, 99.0, 40)]
    table = rows(cells)
    drn = next(line for line in markdown(table).splitlines() if "drn" in line)
    assert drn == "| 40% | drn | 99.00 | 40.00 | 1 | 1k | 4k |  |  | yes |"
    assert "On the frontier by ms an image, torch, batch 1, of the 3 that were timed: l1 at 40%" in verdict(cells)
    commands = {(row.method, row.budget): f"the command of {row.method}" for row in table}
    page = comparison_html(Compared({"shared": {"model.name": "resnet20"}}, cells, 9), commands)
    # Its point is left out, and those of the others keep their commands.
    assert '{"x":[[2.0,2.5],[2.5],[null],[2.0],[3.0]]' in page


def test_one_bad_method_does_not_squeeze_the_others() -> None:
    cells = [*CELLS, cell("exit", "40%", 0, 60.0, 40)]
    table = rows(cells)
    # Below 90%: 5, 4.9, 30, -1, 2 and -0.1 points. Three times the middle, 3.45, is 10.35.
    assert lower_edge(table, 90.0) == 79
    assert lower_edge(rows(CELLS), 90.0) is None
    figure = frontier_picture(table, 90.0)
    (panel,) = figure.axes
    assert panel.get_ylim()[0] == 79
    assert "exit 60.00" in [text.get_text() for text in panel.texts]
    assert "Arrows at the lower edge stand for what lies below 79%: exit at 40% (60.00%)." in reading(cells)
    assert "Arrows" not in reading(CELLS)
    page = comparison_html(
        Compared({"shared": {"model.name": "resnet20"}}, cells, 9),
        {(row.method, row.budget): "a command" for row in table},
    )
    assert '"text":["exit 60.00"]' in page
    assert '"range":[79,' in page


def test_every_panel_has_its_title_and_the_frontier_goes_in_steps() -> None:
    figure = frontier_picture(rows(timed({"l1": 2.0, "skip": 3.0, "dense": 2.5})), 90.0)
    titles = ["mean cost, % of the dense network's MACs", "ms an image, torch, batch 1", "ms an image, onnx, batch 64"]
    assert [panel.get_title(loc="left") for panel in figure.axes] == titles
    for panel in figure.axes:
        drawn = {line.get_label(): line for line in panel.lines}
        assert drawn["frontier"].get_drawstyle() == "steps-post"
        assert list(drawn["dense, to begin with"].get_ydata()) == [90.0, 90.0]


def test_the_page_and_the_picture_have_the_same_colours() -> None:
    table = rows(CELLS)
    (panel,) = frontier_picture(table, 90.0).axes
    colours = {line.get_label(): line.get_color() for line in panel.lines}
    page = comparison_html(
        Compared({"shared": {"model.name": "resnet20"}}, CELLS, 8),
        {(row.method, row.budget): "a command" for row in table},
    )
    for method in ("dense", "l1", "skip"):
        assert f"background:{colours[method]}'></i>{method}<" in page
        assert f'"marker":{{"color":"{colours[method]}"' in page


def test_names_that_say_nothing_are_explained() -> None:
    given = replace(cell("smaller0", None, 0, 83.0, 30), given=True)
    said = names([given, cell("idk", "40%", 0, 85.0, 40), cell("l1+idk", "40%", 0, 85.0, 40), *CELLS])
    assert [line.split(":")[0] for line in said] == ["`resnet20 routed as it is`", "`idk`", "`l1+idk`"]
    assert said[-1].endswith("the last of them is pruned (l1).")
    assert names(CELLS) == []


def test_costs_that_are_counted_otherwise_are_refused() -> None:
    other = cell("skip", "50%", 0, 85.0, 50)
    other.record["flops"]["convention"] = "2xMAC"
    with pytest.raises(InputError, match="counted in two ways"):
        rows([*CELLS, other])


def test_the_report_says_what_was_compared_and_how(tmp_path: Path) -> None:
    plan = Plan(
        base="default",
        shared={"model.name": "resnet20"},
        methods=["dense", "skip", "l1"],
        budgets=["40%", "60%"],
        seeds=[0, 1],
        smaller=["runs/resnet8"],
    )
    folder = ComparisonFolder.create(tmp_path / "c", plan, force=False)
    with pytest.raises(InputError, match=r"no cell of .* is done yet"):
        report_comparison(tmp_path / "c", tmp_path / "c", "svg")
    smaller = cell("smaller0", None, 0, 83.0, 30)
    for each in [replace(smaller, record=smaller.record | {"model": "resnet8", "method": "dense"}), *CELLS]:
        run = folder.of(Cell(each.method, each.budget, each.seed)).path
        run.mkdir(parents=True)
        (run / "record.json").write_text(whole(each.record))
    files = report_comparison(tmp_path / "c", tmp_path / "c", "svg")
    text = files[0].read_text()
    # A network that was there before is no method, and is called by its model.
    assert text.startswith("# resnet20 on cifar10: 3 methods compared\n\n**At 40%, l1 leads by 0.10 points, ")
    assert "- 9 of 11 cells are done.\n" in text
    assert "| none | resnet8 as it is | 83.00 |" in text
    assert "smaller0" not in text
    assert "| against | l1 at 40% | skip at 60% |" in text
    assert "| l1 |  | +3.00 |\n| skip | +0.10 |  |\n" in text
    assert [file.name for file in files] == ["report.md", "frontier.svg", "index.html"]
    page = files[2].read_text()
    # Nothing is loaded from elsewhere, and each row tells its command.
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
    command = "routekit convert resnet20 --recipe default --target-flops 40% --junctions skip --seed 0"
    assert f"data-command='{command}'" in page
    for said in ("9 of 11 cells are done.", "<th>l1 at 40%<th>skip at 60%", "<td>+3.00", "model.name: resnet20"):
        assert said in page
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in report_comparison(tmp_path / "c", tmp_path / "c", "svg")] == before
