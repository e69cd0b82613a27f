"""Documents that are not as they should be, whoever wrote them: one clear line, and nothing injected."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from routekit.backbones.load import build, spec_of
from routekit.backbones.unit import ModelSpec
from routekit.cost.target import parse_amount
from routekit.data.folder import class_folders
from routekit.documents import parse_json, parse_yaml
from routekit.errors import InputError
from routekit.formats.checkpoint import load, read_about, save_network
from routekit.formats.description import Description
from routekit.junctions.convert import convert
from routekit.manifest import note
from routekit.pipeline.analyse import Analysis
from routekit.pipeline.bench import draw
from routekit.recipe import load_recipe
from routekit.report.comparison_page import _table
from routekit.report.drawing import drawable
from routekit.report.page import in_markdown
from routekit.report.record import read_record, record_beside
from routekit.training.log import MetricsLog, read_metrics
from routekit.training.state import load_state, save_state
from tests.records import whole
from tests.toy import toy_images

DEEP = "[" * 100_000


@pytest.mark.parametrize("text", ["!!bool foo", '!!int ""', '!!float ""', "!!timestamp foo", "!!map [1]"])
def test_a_value_that_is_not_of_its_tag(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"base: default\nseed: {text}\n")
    with pytest.raises(InputError, match="is no YAML"):
        load_recipe(str(tmp_path / "a.yaml"))


def test_what_is_nested_too_deeply(tmp_path: Path) -> None:
    for text in (DEEP, "{", "nope"):
        with pytest.raises(InputError, match=r"x.json is damaged"):
            parse_json(text, Path("x.json"))
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"base: {tmp_path}/{number + 1}.yaml\n")
    with pytest.raises(InputError, match="more than 20 bases"):
        load_recipe(str(tmp_path / "0.yaml"))
    (tmp_path / "zero.yaml").write_text('base: default\ndata: {source: "\\0"}\n')
    with pytest.raises(InputError, match="zero byte"):
        load_recipe(str(tmp_path / "zero.yaml"))
    assert parse_yaml("a: 1")[0] == {"a": 1}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    network = convert(build(spec_of("resnet20", num_classes=2, input_size=(3, 8, 8)))).eval()
    save_network(tmp_path / "saved", network, about={"classes": ["a", "b"], "record": json.loads(whole({}))})
    return tmp_path / "saved"


def change(folder: Path, how: Callable[[Any], object]) -> None:
    file = folder / "network.json"
    spec = json.loads(file.read_text())
    how(spec)
    file.write_text(json.dumps(spec))
    note(file)


@pytest.mark.parametrize(
    "how",
    [
        lambda spec: spec.update(about=5),
        lambda spec: spec["about"].update(classes=5),
        lambda spec: spec["about"].update(classes=["a"]),
        lambda spec: spec["about"].update(classes=["a", None]),
        lambda spec: spec["about"].update(record=5),
        lambda spec: spec.update(networks=5),
        lambda spec: spec.update(networks=spec["networks"] * 3000),
        lambda spec: spec["networks"][0]["model"].update(mean=[0.5] * 7),
    ],
    ids=["about", "classes", "a class too few", "no name", "record", "networks", "3000 networks", "mean"],
)
def test_a_specification_that_fits_its_digest_and_nothing_else(how: Callable[[Any], object], checkpoint: Path) -> None:
    load(checkpoint)
    change(checkpoint, how)
    with pytest.raises(InputError):
        load(checkpoint)


def test_a_record_beside_a_network_is_one(checkpoint: Path) -> None:
    record = record_beside(read_about(checkpoint))
    assert record is not None
    assert record["flops"]["dense"] == 100
    change(checkpoint, lambda spec: spec["about"]["record"]["flops"].update(dense=0))
    with pytest.raises(InputError, match=r"network.json is damaged: about.record.flops.dense"):
        record_beside(read_about(checkpoint))


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ({"exits": [{"after": "end"}]}, "exits.0.stops"), ({"model": 5}, "model"), ({"epochs": "x"}, "epochs"),
        ({"seed": 10**30}, "seed"), ({"seed": "abc"}, "seed"), ({"junctions": "skip"}, "junctions"),
        ({"flops": {"chance": "x"}}, "flops.chance"), ({"shuffled_accuracy": 2}, "shuffled_accuracy"),
        ({"flops": {"dense": 5e-324}}, "flops.dense"),
        ({"passes": [{"form": "a", "precision": "fp32", "macs": 1, "bytes": 1}]}, ""),
    ],
)  # fmt: skip
def test_entries_that_not_all_records_have(part: dict[str, Any], where: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(whole(part))
    with pytest.raises(InputError, match=f"record.json is damaged: {where}"):
        read_record(tmp_path)
    (tmp_path / "record.json").write_text(DEEP)
    with pytest.raises(InputError, match=r"record.json is damaged"):
        read_record(tmp_path)


@pytest.mark.parametrize("line", ["{", "5", "{}", '{"kind": "validation"}', '{"kind": "other", "step": 1}', DEEP])
def test_a_log_with_another_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(InputError, match=r"metrics.jsonl is damaged"):
        read_metrics(path)


def test_a_log_that_was_cut_is_not_filled_with_nothing(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("{}\n")
    with pytest.raises(InputError, match="was cut"):
        MetricsLog(path, 100)
    assert path.read_text() == "{}\n"


@pytest.mark.parametrize(
    "state",
    [
        {}, {"step": 1}, {"step": -1, "log": 0, "network": {}}, {"step": 1, "log": "0", "network": {}},
        {"step": 1, "log": 0, "network": {"a": torch.tensor([0.0, float("nan")])}},
        {"step": 1, "log": 0, "network": {"a": "b"}},
    ],
)  # fmt: skip
def test_a_state_that_is_none(state: dict[str, Any], tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", state)
    with pytest.raises(InputError, match="is damaged"):
        load_state(tmp_path / "state.pt")


def test_numbers_without_bounds() -> None:
    with pytest.raises(InputError, match="is no cost"):
        parse_amount("1e308", 1e8)
    for settings in (
        {"routers.hidden": 999999999},
        {"data.input_size": 8192},
        {"junctions": {"exit": {"hidden": 10**9}}},
    ):
        with pytest.raises(InputError):
            load_recipe("skip", settings)
    with pytest.raises(InputError, match="mean"):
        ModelSpec("cifar", "resnet20", 10, (3, 32, 32), mean=(0.5,) * 7)


def test_names_that_cannot_be_printed(tmp_path: Path) -> None:
    for name in ("a\x1b[31m", "b\udcff"):
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match="no printable name"):
            class_folders(tmp_path)
        (tmp_path / name).rmdir()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("give `a_b` and *c*", r"give `a_b` and \*c*"),
        ("```<img src=x>`", r"\`\`\`\<img src=x\>\`"),
        ("``<b>``", r"\`\`\<b\>\`\`"),
        ("`<b>", r"\`\<b\>"),
    ],
)
def test_backticks_of_others_open_no_code(text: str, said: str) -> None:
    assert in_markdown(text) == said


def test_a_null_is_no_entry_of_a_record(tmp_path: Path) -> None:
    for part, said in (
        ({"epochs": None}, "epochs is there, and is nothing"), ({"images": 10**400}, "images"),
        ({"validation": [1]}, "validation"), ({"right": "AA=="}, "not of 90 images"),
        ({"by_class": {"class": ["a", "b"], "images": [1], "right": [1, 1]}}, "by_class: .*different lengths"),
    ):  # fmt: skip
        (tmp_path / "record.json").write_text(whole(part))
        with pytest.raises(InputError, match=f"record.json is damaged: .*{said}"):
            read_record(tmp_path)


def test_a_description_in_an_exported_file() -> None:
    with pytest.raises(InputError, match=r"x.onnx is damaged"):
        Description.from_json(DEEP, Path("x.onnx"))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("2001-01-01: 1", "Keys should be strings"), ('ladder: [""]', "ladder"), ("data: {std: [1e-320]}", "data.std"),
        ("training: {batch_size: 99999999999999999999}", "training.batch_size"),
        ('pruning: {target: "nan%"}', "pruning.target"), ('pruning: {target: "1e999"}', "pruning.target"),
        ("junctions: {exit: {width: 999999999}}", "junctions.exit.width"),
    ],
)  # fmt: skip
def test_what_convert_would_refuse(text: str, where: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"base: default\n{text}\n")
    with pytest.raises(InputError, match=where):
        load_recipe(str(tmp_path / "a.yaml"))


def test_a_zero_byte_that_is_set() -> None:
    with pytest.raises(InputError, match="zero byte"):
        load_recipe("default", {"data.val": "\0"})


def test_an_analysis_of_other_columns() -> None:
    route = {"runs": [True], "images": 3, "accuracy": 0.5, "classes": [2, 1], "examples": ""}
    length = {"units": 1, "images": 3, "accuracy": 0.5, "milliseconds": 1.0}
    found: dict[str, Any] = {
        "columns": ["a"], "classes": ["x", "y"], "class_rates": [[0.5], [1.0]], "lengths": [length], "shared": [route],
        "kept": {"mirrored": 1.0},
    }  # fmt: skip
    read = TypeAdapter(Analysis).validate_python
    assert read(found).columns == ["a"]
    for change in (
        {"columns": ["a", "b"]}, {"classes": ["x"]}, {"lengths": []}, {"shared": [route | {"images": "<b>"}]},
        {"lengths": [length | {"images": 10**400}]}, {"kept": {"mirrored": 2}},
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            read(found | change)


def test_test_images_that_no_memory_holds() -> None:
    with pytest.raises(InputError, match="at most 2796202"):
        draw(toy_images(4), 10**15, ModelSpec("cifar", "resnet20", 10, (3, 16, 16)), 0)


def test_words_in_pictures() -> None:
    assert drawable({"a\udcff": ["$x^{$", "\x1b[2J", 1]}) == {"a\\udcff": ["\\$x^{\\$", "\\x1b[2J", 1]}


def test_words_in_the_report_of_a_comparison() -> None:
    image = "<img src=x onerror=alert(1)>"
    assert _table(["a", f"`{image}|`"], [["b", "c"]]).splitlines()[0] == r"| a | \`\<img src=x onerror=alert(1)\>\|\` |"
