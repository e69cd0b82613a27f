"""The record of a run: what was measured, as one JSON document."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.data.image_set import Images
from routekit.data.sources import DataSplits
from routekit.evaluation.answers import pack, unpack
from routekit.evaluation.evaluate import Evaluation, evaluate
from routekit.evaluation.exits import ExitStatistics, measure_exits
from routekit.evaluation.second_look import SecondLook
from routekit.files import write_text
from routekit.formats.checkpoint import save_network
from routekit.formats.compact import compact
from routekit.macs import CONVENTION
from routekit.network.network import RoutedNetwork
from routekit.pipeline.machine import Machine
from routekit.report.record import RECORD, without_images
from routekit.training.log import read_metrics


def run_record(
    path: Path,
    network: RoutedNetwork,
    measured: Evaluation,
    data: DataSplits,
    costs: CostTable,
    machine: Machine,
    *,
    dense: Tensor | float | None,
    dense_flops: float,
    target: float | None,
    seconds: float,
    exits: Sequence[ExitStatistics] | None = None,
    size: dict[str, int] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Make the record of a network: accuracies are fractions, costs are in MACs, run rates are by column.

    Args:
        path: The folder of the run.
        network: The network.
        measured: Its evaluation on the test images.
        data: The images. A budget was met on the validation images.
        costs: The cost table of the network.
        machine: Where it was measured.
        dense: Which of the test images the dense network answers rightly, `[N]`, bool; or its accuracy, where no more
            is known; None where that is not known for these test images.
        dense_flops: The cost of the dense network, before anything was pruned.
        target: The budget; None for none.
        seconds: How long it took.
        exits: What its stops do; None: it is measured here.
        size: The parameters and the bytes of what has to be kept; None: of the network.
        **more: Further entries.

    Returns:
        The record. Its entry "right" holds for each image whether the answer was right (`evaluation.answers.pack`),
        "dense_right" the same of the dense network, "by_class" how many images of each class were answered rightly.
    """
    statistics = measured.statistics
    right, accuracy = (dense, float(dense.double().mean())) if isinstance(dense, Tensor) else (None, dense)
    stops = [asdict(each) for each in (measure_exits(network, data.test, costs) if exits is None else exits)]
    return {
        "run": str(path),
        "model": network.name,
        "data": data.name,
        "split": "test",
        "images": len(measured.labels),
        "accuracy": {"dense": accuracy, "routed": measured.accuracy},
        "flops": {
            "convention": CONVENTION,
            "dense": dense_flops,
            "target": target,
            "realized": measured.cost,
            "chance": measured.chance(len(data.val)),
            **{key: value for key, value in measured.cost_quantiles().items() if key != "mean"},
        },
        "routes": {
            "unique": statistics.unique,
            "mean_units": float(network.units_run(measured.routes).double().mean()),
            "units": network.units,
            "entropy_bits": statistics.entropy,
            "class_information_bits": statistics.class_information,
            "run_rate": dict(zip(network.columns, statistics.run_rate, strict=True)),
        },
        "size": size or _size(network, measured),
        "right": pack(measured.correct),
        **({} if right is None else {"dense_right": pack(right)}),
        "by_class": by_class(measured.labels, measured.correct, right, data.test.classes),
        "seconds": seconds,
        "environment": machine.environment(),
        **more,
        **({"exits": stops, "classes": list(data.test.classes)} if stops else {}),
    }


def by_class(labels: Tensor, right: Tensor, dense: Tensor | None, classes: Sequence[str]) -> dict[str, list[Any]]:
    """Count the test images of each class, and how many of them are answered rightly.

    Args:
        labels: `[N]`.
        right: `[N]`, bool, which images are answered rightly.
        dense: `[N]`, bool, likewise by the dense network; None where that is not known.
        classes: The names of the classes.

    Returns:
        The entry of the record.
    """

    def count(labels: Tensor) -> list[int]:
        return [*map(int, labels.bincount(minlength=len(classes)))]

    known = {} if dense is None else {"dense_right": count(labels[dense.cpu()])}
    return {"class": list(classes), "images": count(labels), "right": count(labels[right]), **known}


def _size(network: RoutedNetwork, measured: Evaluation) -> dict[str, int]:
    """Parameters and bytes of what has to be kept: of a static network its compact form, of a routed one all."""
    if network.is_static:
        network = compact(network, measured.routes).network
    tensors = network.state_dict().values()
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    }


def looks(network: RoutedNetwork, found: SecondLook, junctions: Sequence[str]) -> dict[str, Any]:
    """Entries of the record of a network for which a second look was tried.

    Args:
        network: The network that was chosen.
        found: What the second look is worth.
        junctions: The kinds of junctions of the plan.

    Returns:
        The kinds of junctions that are decided, and the two accuracies.
    """
    once = [kind for kind in junctions if kind != "again"]
    return {"junctions": [*once, "again"] if network.looks_again else once, "second_look": asdict(found)}


def known_dense(record: dict[str, Any], data: DataSplits) -> Tensor | float | None:
    """What the dense network answers rightly of the test images, as an earlier record has it.

    Args:
        record: The earlier record.
        data: The images.

    Returns:
        Which images, `[N]`, bool, or the accuracy alone; None if the record was made on other test images.
    """
    carved = record.get("validation") == "test"  # into validation and test images
    same = (record["data"], record["images"], carved) == (data.name, len(data.test), data.val_origin == "test")
    if same and "dense_right" in record:
        return unpack(record["dense_right"], record["images"])
    return record["accuracy"]["dense"] if same else None


def right_of_all(network: RoutedNetwork, images: Images) -> Tensor:
    """Which images a network answers rightly if every image runs all of it.

    Args:
        network: The network.
        images: The images.

    Returns:
        `[N]`, bool.
    """
    everything = torch.ones(len(images), len(network.columns), dtype=torch.bool)
    return evaluate(network, images, CostTable.measure(network), routes=everything).correct


def rising(folder: Path, images: int) -> dict[str, Any]:
    """Say whether more epochs would help: by the accuracy that the last one brought on validation images.

    Args:
        folder: The run's folder, which holds the log of its training.
        images: The number of validation images.

    Returns:
        The entry "last_epoch" of the record: the gain in points, and its standard error as if other images were looked
        at each time. Empty for a training of one epoch or less.
    """
    file = folder / "metrics.jsonl"
    seen = [line["accuracy"] for line in read_metrics(file) if line["kind"] == "validation"] if file.exists() else []
    if len(seen) < 2:
        return {}
    before, last = seen[-2:]
    error = math.sqrt((before * (1 - before) + last * (1 - last)) / images)
    return {"last_epoch": {"gain": 100 * (last - before), "error": 100 * error}}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write a record as `record.json` of a run's folder.

    Args:
        folder: The folder.
        record: The record.

    Raises:
        RoutekitError: It cannot be written.
    """
    text = json.dumps(record, indent=2) + "\n"
    write_text(folder / RECORD, text)


def write_run(folder: Path, network: RoutedNetwork, record: dict[str, Any], classes: Sequence[str]) -> None:
    """Write a network and its record into a run's folder, which is finished then.

    Args:
        folder: The folder.
        network: The network. Its checkpoint also holds the record, without which images were answered rightly.
        record: The record.
        classes: The names of the classes.

    Raises:
        RoutekitError: A file cannot be written.
    """
    about = {"classes": list(classes), "record": without_images(record)}
    save_network(folder / "network", network, about=about)
    write_record(folder, record)
