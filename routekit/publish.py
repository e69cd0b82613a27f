"""`push`: a run, or a network, put on the Hugging Face Hub as others load it, with its card and its record."""

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from routekit.api import Data
from routekit.api import data as splits_of
from routekit.cost.table import CostTable
from routekit.errors import InputError
from routekit.evaluation.evaluate import evaluate
from routekit.files import write_text
from routekit.formats.checkpoint import SPEC, read_about, read_spec, save_network
from routekit.formats.compact import compact
from routekit.hub import SCHEME, check_name, upload
from routekit.network.network import RoutedNetwork
from routekit.pipeline.export import compact_run
from routekit.pipeline.machine import Machine
from routekit.pipeline.record import run_record, write_record
from routekit.pipeline.run_folder import RunFolder
from routekit.report.card import card
from routekit.report.record import portable, read_record, without_images


def push(
    source: str | Path | RoutedNetwork,
    name: str,
    *,
    data: Data | None = None,
    private: bool = False,
    revision: str | None = None,
    device: str | None = None,
) -> str:
    """Put a finished run, or a network, on the Hugging Face Hub, where `load("hf://user/name")` finds it.

    That is its compact form (see `export`), its record, and a card made of the record. How the folders of this machine
    are called is left out.

    Args:
        source: The folder of the run, or the network.
        name: The repository, as "user/name". It is made if it is not there.
        data: Of a network: the images by which it is measured and made compact (see `routekit.evaluate`). A run has
            its own.
        private: Whether its owner alone can see it.
        revision: The branch to write to; None for the main one.
        device: "cpu" or "cuda"; None for CUDA if there is any.

    Returns:
        The address of the repository.

    Raises:
        InputError: A bad name, a run that is not finished, a network without images, or a repository that is not ours.
        RoutekitError: The Hub refuses it, or cannot be reached.
    """
    check_name(name)
    machine = Machine(device)
    if isinstance(source, str | Path):
        if data is not None:
            raise InputError("a run is measured on images of its own: data= is for a network")
        small, about, record = _of_run(Path(source), machine)
    elif data is None:
        raise InputError("a card says what was measured: give the images of a network as data=")
    else:
        small, about, record = _measured(source, data, name, machine)
    record = portable(record)
    with TemporaryDirectory() as place:
        folder = Path(place) / "network"
        save_network(folder, small.cpu(), about=about | {"record": without_images(record)})
        # The specification names the file of a user's own network, too.
        write_text(folder / SPEC, json.dumps(portable(read_spec(folder)), indent=2) + "\n")
        write_record(folder, record)
        home = SCHEME + name + (f"@{revision}" if revision else "")
        write_text(folder / "README.md", card(record, home))
        return upload(folder, name, private=private, revision=revision)


def _of_run(path: Path, machine: Machine) -> tuple[RoutedNetwork, dict[str, Any], dict[str, Any]]:
    """The compact form of a run, what is said beside it, and its record."""
    RunFolder.open(path)
    record = read_record(path)
    return compact_run(path, machine)[1].network, read_about(path), record


def _measured(
    network: RoutedNetwork, source: Data, name: str, machine: Machine
) -> tuple[RoutedNetwork, dict[str, Any], dict[str, Any]]:
    """The same of a network, measured now."""
    started = time.perf_counter()
    data, costs = splits_of(source, network.spec), CostTable.measure(network)
    measured = evaluate(network, data.test, costs)
    small = compact(network, evaluate(network, data.val, costs).routes).network
    record = run_record(
        Path(name),
        network,
        measured,
        data,
        costs,
        machine,
        dense=None,
        dense_flops=costs.dense,
        target=None,
        seconds=time.perf_counter() - started,
        method="network",
    )
    return small, {"classes": list(data.classes)}, record
