"""The record of a run: what was measured, as one JSON document."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from routekit.cost.table import CostTable
from routekit.data.image_set import Images
from routekit.data.sources import DataSplits
from routekit.evaluation.answers import pack
from routekit.evaluation.evaluate import Evaluation
from routekit.evaluation.exits import measure_exits
from routekit.evaluation.second_look import SecondLook
from routekit.files import write_text
from routekit.formats.compact import compact
from routekit.macs import CONVENTION
from routekit.network.network import RoutedNetwork
from routekit.report.record import RECORD


def run_record(
    run: str,
    network: RoutedNetwork,
    measured: Evaluation,
    *,
    data: str,
    split: str,
    dense_accuracy: float | None,
    dense_flops: float,
    target: float | None,
    met_on: int,
    seconds: float,
    **more: Any,
) -> dict[str, Any]:
    """Say what an evaluation found: accuracies are fractions, costs MACs, run rates per unit by name.

    "right" tells of each image whether it was answered right, as `evaluation.answers.pack` writes it.
    `dense_accuracy` and `dense_flops` are those of the network before it was routed, all of its units in it; the first
    is None where that is not known of these images. `met_on` is how many validation images a budget was met on.
    """
    statistics = measured.statistics
    return {
        "run": run,
        "model": network.name,
        "data": data,
        "split": split,
        "images": len(measured.labels),
        "accuracy": {"dense": dense_accuracy, "routed": measured.accuracy},
        "flops": {
            "convention": CONVENTION,
            "dense": dense_flops,
            "target": target,
            "realized": measured.cost,
            "chance": measured.chance(met_on),
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
        "size": size_of(network, measured),
        "right": pack(measured.correct),
        "seconds": seconds,
        **more,
    }


def size_of(network: RoutedNetwork, measured: Evaluation) -> dict[str, int]:
    """Parameters and bytes of what has to be kept: of a static network in its compact form, of a routed one all."""
    if network.is_static:
        network = compact(network, measured.routes).network
    tensors = network.state_dict().values()
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    }


def described_exits(network: RoutedNetwork, images: Images, costs: CostTable) -> dict[str, Any]:
    """What the stops do on `images`, for the record of a network that has any."""
    found = measure_exits(network, images, costs)
    return {"exits": [asdict(each) for each in found], "classes": list(images.classes)} if found else {}


def looks(network: RoutedNetwork, found: SecondLook, junctions: Sequence[str]) -> dict[str, Any]:
    """What the record of a network that may look again says of that: what was found, and what is decided then."""
    once = [kind for kind in junctions if kind != "again"]
    return {"junctions": [*once, "again"] if network.looks_again else once, "second_look": asdict(found)}


def known_dense(record: dict[str, Any], data: DataSplits) -> float | None:
    """What the dense network has on the test images of `data`, if they are those of which the record tells it."""
    carved = record.get("validation") == "test"  # into validation and test images
    same = (record["data"], record["images"], carved) == (data.name, len(data.test), data.val_origin == "test")
    return record["accuracy"]["dense"] if same else None


def about(record: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """What a network that is shipped says of itself: its classes, and the record but for which images were right."""
    return {"classes": list(classes), "record": {key: value for key, value in record.items() if key != "right"}}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record into a run's folder."""
    text = json.dumps(record, indent=2) + "\n"
    write_text(folder / RECORD, text)
