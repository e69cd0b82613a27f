"""Pictures: drawn from records alone, the same records give the same bytes."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from routekit.errors import InputError
from routekit.pipeline.report import draw
from routekit.report import drawing, pictures, run_pictures
from tests.records import whole


def record(target: float | None = 50.0, seed: int = 0, exits: bool = True, **more: Any) -> dict[str, Any]:
    made = {
        "model": "pyramid3", "method": "routed", "junctions": ["exit"], "policy": "actor", "seed": seed,
        "accuracy": {"dense": 0.9, "routed": 0.8 + 0.02 * seed},
        "flops": {"dense": 100.0, "target": target, "realized": 50.0 + seed},
        "routes": {"run_rate": {"columns.0": 0.5, "past columns.0": 0.75, "columns.1": 0.5, "past columns.1": 0.75}},
    }  # fmt: skip
    if exits:
        made["classes"] = ["cat", "dog"]
        made["exits"] = [
            {"after": "columns.0", "stops": 0.25, "accuracy": 1.0, "alone": 0.5, "answered": [5, 0]},
            {"after": "columns.1", "stops": 0.0, "accuracy": None, "alone": 0.6, "answered": [0, 0]},
            {"after": "end", "stops": 0.75, "accuracy": 0.7, "alone": 0.9, "answered": [5, 10]},
        ]
    return made | more


def test_runs_that_differ_in_the_seed_are_one_point() -> None:
    (axes,) = pictures.accuracy_against_cost([record(seed=0), record(seed=1), record(target=80.0, seed=2)]).axes
    line, dense = (next(each for each in axes.lines if each.get_marker() == marker) for marker in "o*")
    np.testing.assert_allclose(line.get_xydata(), [[50.5, 0.19], [52.0, 0.16]])
    np.testing.assert_allclose(dense.get_xydata(), [[100.0, 0.1]])
    assert [text.get_text() for text in axes.get_legend().texts] == ["pyramid3 exit (actor)", "dense"]


def test_bars_are_of_the_sample_and_one_seed_has_none() -> None:
    (axes,) = pictures.accuracy_against_cost([record(seed=0), record(seed=1), record(target=80.0, seed=2)]).axes
    (bars,) = axes.containers[0].lines[2]
    ((left, low), (right, high)) = bars.get_segments()[0]
    assert len(bars.get_segments()) == 1
    assert left == right == 50.5
    assert high - low == pytest.approx(2 * 0.02 / 2**0.5)  # of the errors 0.20 and 0.18


STEP = {"kind": "step", "losses": {"classification": 1.0}}
CHECK = {"kind": "validation", "accuracy": 0.5, "routes": 3}


def drawn(axes: Any, place: int) -> list[list[float]]:
    points: list[list[float]] = axes.lines[place].get_xydata().tolist()
    return points


def test_a_cost_is_drawn_from_where_it_was_measured_as_a_share_of_the_dense_network() -> None:
    """The network that is trained was pruned to half: its 80% are 40% of the dense network's."""
    metrics = [
        STEP | {"step": 1, "realized": 1.0, "wanted": 1.0},
        STEP | {"step": 2, "realized": 0.9, "wanted": 0.9},
        CHECK | {"step": 2, "realized": 0.88},
        STEP | {"step": 3, "realized": 1.0, "wanted": 0.8},
    ]
    accuracy, loss, cost, routes = run_pictures.training(record(target=40.0), metrics).axes
    assert drawn(cost, 0) == [[2, 45.0], [3, 50.0]]
    assert drawn(cost, 1) == [[2, 44.0]]
    assert cost.get_ylim() == pytest.approx((0, 55))
    assert drawn(cost, 2) == [[1, 50.0], [2, 45.0], [3, 40.0]]
    assert (drawn(accuracy, 0), drawn(routes, 0), len(drawn(loss, 0))) == ([[2, 50.0]], [[2, 3]], 3)
    # One point alone is no line: it is marked.
    _, loss, *_ = run_pictures.training(record(), [metrics[0], metrics[2]]).axes
    assert loss.lines[0].get_marker() == "o"
    static = run_pictures.training(record(), [metrics[0], metrics[2] | {"routes": 1}])
    assert len(static.axes) == 3


def test_what_all_images_run_is_beside_what_each_class_runs() -> None:
    figure = run_pictures.who_runs_what(["a.0", "a.1"], ["cat", "dog"], [[1.0, 0.2], [0.5, 0.4]], [0.75, 0.3])
    overall, classes, *_ = figure.axes
    assert overall.images[0].get_array().tolist() == [[0.75], [0.3]]
    assert classes.images[0].get_array().tolist() == [[1.0, 0.5], [0.2, 0.4]]
    assert [text.get_text() for text in overall.get_yticklabels()] == ["a.0", "a.1"]


def test_a_drawing_in_a_page_has_the_ink_of_the_page() -> None:
    figure = run_pictures.by_length([{"units": 3, "images": 9, "accuracy": 0.5, "milliseconds": 2.0}])
    svg = drawing.as_svg(figure)
    assert "currentColor" in svg
    assert "#000000" not in svg
    assert "fill: #ffffff" not in svg


def test_a_circle_s_area_is_the_share_that_is_answered_there() -> None:
    left, *_ = pictures.dataflow([record()]).axes
    sizes = {line.get_xdata()[0]: line.get_markersize() for line in left.lines if len(line.get_xdata()) == 1}
    # Nobody is answered by the second classifier.
    assert set(sizes) == {0, 2}
    assert sizes[2] ** 2 / sizes[0] ** 2 == pytest.approx(3)


@pytest.mark.parametrize("model", ["torchvision:resnext50_32x4d -> torchvision:resnet101", "custom:/" + "a/" * 60])
def test_long_names_leave_room_for_the_circles(model: str) -> None:
    svg = drawing.as_svg(pictures.dataflow([record(model=model), record()]))  # matplotlib would warn
    assert svg.count("<path") > 10


def test_the_shares_over_training_add_up_to_one() -> None:
    metrics = [
        {"kind": "step", "step": 5},
        {"kind": "validation", "step": 10, "run_rate": [0.5, 0.9, 0.5, 0.3]},
        {"kind": "validation", "step": 20, "run_rate": [0.5, 0.6, 0.5, 0.2]},
    ]
    axes = pictures.dataflow_over_training(record(), metrics).axes[0]
    # The others of the rates are units'.
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.1, 0.6, 0.3], [0.4, 0.4, 0.2]])
    # Records of the former version have the exits last.
    former = record(routes={"run_rate": {"columns.0": 0.5, "past columns.0": 0.75, "past columns.1": 0.75}})
    metrics = [{"kind": "validation", "step": 10, "run_rate": [0.5, 0.9, 0.3]}]
    axes = pictures.dataflow_over_training(former, metrics).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.1, 0.6, 0.3]])


def test_a_second_look_answered_nothing_while_the_network_learned() -> None:
    answerer = {"stops": 0.3, "accuracy": 1.0, "alone": 0.5, "answered": [5, 0]}
    looking = record(exits=False, classes=["cat", "dog"], routes={"run_rate": {"past narrow": 0.7, "past end": 0.3}})
    looking["exits"] = [answerer | {"after": after} for after in ("narrow", "end", "again")]
    axes = pictures.dataflow_over_training(looking, [{"kind": "validation", "step": 1, "run_rate": [0.6]}]).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.4, 0.6, 0.0]])


def test_each_common_route_is_drawn_with_its_images() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (96, 48), (255, 0, 0)).save(stream, "PNG")
    strip = base64.b64encode(stream.getvalue()).decode()
    routes = [
        {"runs": [True, False, True], "images": count, "accuracy": 0.5, "examples": strip} for count in range(9, 0, -1)
    ]
    figure = run_pictures.shared_routes(routes, ["layer1.0", "layer1.1", "layer2.0"])
    rows = list(zip(figure.axes[::2], figure.axes[1::2], strict=True))
    assert len(rows) == run_pictures.ROUTES
    for count, (left, right) in zip(range(9, 3, -1), rows, strict=True):
        assert left.get_title(loc="left") == f"{count} images, 50.0% right"
        np.testing.assert_array_equal(left.collections[0].get_array(), [[1, 0, 1]])
        (border,) = left.collections[1].get_segments()  # between layer1 and layer2
        assert {x for x, _ in border} == {2}
        assert right.images[0].get_array().shape[:2] == (48, 96)


def recorded(folder: Path, made: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "record.json").write_text(whole(made))
    (folder / "metrics.jsonl").write_text(
        json.dumps(CHECK | {"step": 1, "realized": 0.5, "run_rate": [1.0, 0.7, 1.0, 0.4]}) + "\n"
    )
    return folder


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    runs = [recorded(tmp_path / "a", record()), recorded(tmp_path / "b", record(seed=1, exits=False))]
    for kind in drawing.FORMATS:
        first, again = (draw(runs, tmp_path / name / kind, kind) for name in ("one", "two"))
        assert [file.name for file in first] == [
            f"accuracy-against-cost.{kind}", f"dataflow.{kind}", f"training-a.{kind}"
        ]  # fmt: skip
        assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]


def test_runs_called_alike_and_runs_without_training_are_drawn(tmp_path: Path) -> None:
    for place in ("a", "b", "untrained"):
        (tmp_path / place).mkdir()
    runs = [recorded(tmp_path / place / "last", record()) for place in ("a", "b", "untrained")]
    (runs[-1] / "metrics.jsonl").write_text("")
    files = draw(runs, tmp_path / "out", "svg")
    assert [file.stem for file in files[2:]] == ["training-last", "training-last-2"]


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of these runs has exits"):
        pictures.dataflow([record(exits=False)])
    with pytest.raises(InputError, match="unknown format 'pdf': svg or png"):
        draw([], tmp_path, "pdf")
    with pytest.raises(InputError, match="not a finished run"):
        draw([tmp_path], tmp_path / "out", "svg")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        draw([recorded(tmp_path / "run", record())], tmp_path / "file" / "out", "svg")
