"""The description in an exported file: all that a program needs beside its outputs."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, TypeAdapter

from routekit.backbones.unit import ModelSpec
from routekit.cost.table import CostTable, Part
from routekit.documents import parse_json
from routekit.errors import ExportError, InputError, first_line
from routekit.execution.prepare import prepare
from routekit.macs import CONVENTION
from routekit.network.network import RoutedNetwork
from routekit.network.program import Combine
from routekit.routing.decision import Layout

FORMAT, VERSION = "routekit", 2
# Beside it, in files for one family of CPUs: the layout of their weights.
LAYOUT = "routekit.layout"
# Beside it, in the files of passes: how the pass is used.
SECTION = "routekit.section"


class _Flops(BaseModel):
    dense: Annotated[float, Field(gt=1e-12, allow_inf_nan=False)] = 1.0


class _Record(BaseModel):
    flops: _Flops = _Flops()


class About(BaseModel):
    """What is read of what lies beside a network, whoever wrote it. Other entries are let pass."""

    classes: list[str] | None = None
    record: _Record | None = None


@dataclass(frozen=True)
class Description:
    """A routed network in words and numbers.

    Attributes:
        spec: The architecture, its input size and normalisation.
        columns: The names of the columns of a route.
        costs: The cost table, MACs.
        about: The classes, and the record of the run.
    """

    spec: ModelSpec
    columns: list[str]
    costs: CostTable
    about: dict[str, Any]

    @classmethod
    def of(cls, network: RoutedNetwork, about: dict[str, Any]) -> "Description":
        """Describe a network.

        Args:
            network: The network.
            about: The classes, and the record of the run.

        Returns:
            The description.
        """
        return cls(network.spec, network.columns, CostTable.measure(network), about)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, or their numbers where they have no names."""
        return list(self.about.get("classes") or map(str, range(self.spec.num_classes)))

    @property
    def dense(self) -> float:
        """What the network cost before it was routed, in MACs, with the units that were dropped since."""
        return float((self.about.get("record") or {}).get("flops", {}).get("dense", self.costs.dense))

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What becomes of an image before it is given to the network."""
        return {
            "size": list(self.spec.input_size[1:]),
            "channels": self.spec.input_size[0],
            "crop": self.spec.preprocessing.kept,
            "interpolation": self.spec.interpolation,
            "scale": "divide by 255",
            "mean": list(self.spec.mean),
            "std": list(self.spec.std),
        }

    def to_json(self, form: str) -> str:
        """Write it as JSON for a file of a form, such as "batch"."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "form": form,
            "model": asdict(self.spec),
            "preprocessing": self.preprocessing,
            "units": self.columns,
            "costs": {"convention": CONVENTION, **asdict(self.costs)},
            "about": self.about,
        }
        return json.dumps(document, default=torch.Tensor.tolist)

    @classmethod
    def from_json(cls, text: str | None, file: Path) -> tuple["Description", str]:
        """Read what `to_json` wrote.

        Args:
            text: The document; None if the file has none.
            file: The file, for errors.

        Returns:
            The description, and the form of the file.

        Raises:
            InputError: The file is not ours, damaged, or of another version.
        """
        if text is None:
            raise InputError(f"{file} was not written by `routekit export`")
        try:
            document = parse_json(text, file)
            version = document["version"]
            if version != VERSION:
                raise InputError(f"{file} is of version {version}, this routekit reads version {VERSION}")
            spec = TypeAdapter(ModelSpec).validate_python(document["model"])
            About.model_validate(document["about"])
            return cls(spec, document["units"], _costs(document["costs"]), document["about"]), document["form"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} holds a damaged description: {first_line(error)}") from error


@dataclass(frozen=True)
class Section:
    """How the graph of a part of a cascade is used: a pass, or what an exit divides it into.

    Attributes:
        number: Its place in the cascade, from 0 on.
        combine: How its logits add to the answer so far (`network.forward.combined`).
        rule: How certain the answer is then; None behind the last stop.
        threshold: An image goes on if the certainty is at most this.
    """

    number: int
    combine: Combine
    rule: str | None = None
    threshold: float = 0.0


def _costs(table: dict[str, Any]) -> CostTable:
    """Build the cost table of a document again."""
    values = {key: value for key, value in table.items() if key != "convention"}
    values |= {key: torch.tensor(values[key], dtype=torch.float64) for key in ("extra", "base")}
    values["parts"] = tuple(Part(**part) for part in values["parts"])
    values["layout"] = TypeAdapter(Layout).validate_python(values["layout"])
    values["uncounted"] = tuple(values["uncounted"])
    return CostTable(**values)


def described(network: RoutedNetwork, about: dict[str, Any]) -> tuple[RoutedNetwork, Description]:
    """Make a network ready for files of other runtimes.

    Args:
        network: It stays as it is.
        about: The classes, and the record of the run.

    Returns:
        A copy on the CPU, in the form in which it runs fastest, and its description.

    Raises:
        ExportError: The network is a tree of paths.
    """
    if network.layout.forks:
        # Which of its modules an image runs is decided inside of what a file would hold.
        raise ExportError("a tree of paths runs in torch alone: export it as a compact checkpoint")
    network = prepare(network).cpu()
    return network, Description.of(network, about)
