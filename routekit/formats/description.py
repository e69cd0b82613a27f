"""What an exported file says about itself: all that a program needs beside its outputs."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from routekit.backbones.unit import ModelSpec
from routekit.cost.table import CostTable, Part
from routekit.data.preprocessing import preprocessing_of
from routekit.errors import InputError, first_line
from routekit.macs import CONVENTION
from routekit.network.network import RoutedNetwork
from routekit.routing.decision import Layout

FORMAT, VERSION = "routekit", 2
# Beside it, in files for one family of CPUs: the layout of their weights.
LAYOUT = "routekit.layout"


@dataclass(frozen=True)
class Description:
    """A routed network in words and numbers.

    spec:    the architecture, its input size and normalisation
    columns: what is decided, by name, column by column of the routes
    costs:   the cost table, MACs
    about:   the classes, and the record of the run
    """

    spec: ModelSpec
    columns: list[str]
    costs: CostTable
    about: dict[str, Any]

    @classmethod
    def of(cls, network: RoutedNetwork, about: dict[str, Any]) -> "Description":
        """Describe a network."""
        return cls(network.spec, network.columns, CostTable.measure(network), about)

    @property
    def classes(self) -> list[str]:
        """The names of the classes, or their numbers where nobody named them."""
        return list(self.about.get("classes") or map(str, range(self.spec.num_classes)))

    @property
    def dense(self) -> float:
        """What the network cost before it was routed, MACs, units included that are gone by now."""
        return float(self.about.get("record", {}).get("flops", {}).get("dense", self.costs.dense))

    def to_json(self, form: str) -> str:
        """Write it for a file of the given form."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "form": form,
            "model": asdict(self.spec),
            "preprocessing": {
                "size": list(self.spec.input_size[1:]),
                "channels": self.spec.input_size[0],
                "crop": preprocessing_of(self.spec).kept,
                "interpolation": self.spec.interpolation,
                "scale": "divide by 255",
                "mean": list(self.spec.mean),
                "std": list(self.spec.std),
            },
            "units": self.columns,
            "costs": {"convention": CONVENTION, **_table(self.costs)},
            "about": self.about,
        }
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str | None, file: Path) -> tuple["Description", str]:
        """Read it and the form. Raises InputError for a file that is not ours, or of another version."""
        if text is None:
            raise InputError(f"{file} was not written by `routekit export`")
        try:
            document = json.loads(text)
            version = document["version"]
            if version != VERSION:
                raise InputError(f"{file} is of version {version}, this routekit reads version {VERSION}")
            spec = TypeAdapter(ModelSpec).validate_python(document["model"])
            return cls(spec, document["units"], _costs(document["costs"]), document["about"]), document["form"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} holds a damaged description: {first_line(error)}") from error


def _table(costs: CostTable) -> dict[str, Any]:
    """Costs as plain values."""
    return {key: value.tolist() if isinstance(value, torch.Tensor) else value for key, value in asdict(costs).items()}


def _costs(table: dict[str, Any]) -> CostTable:
    """What `_table` made plain."""
    table = {key: value for key, value in table.items() if key != "convention"}
    for key in ("extra", "base"):
        table[key] = torch.tensor(table[key], dtype=torch.float64)
    table["parts"] = tuple(Part(**part) for part in table["parts"])
    layout: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table["layout"].items()
    }
    table["layout"] = Layout(**layout)
    table["uncounted"] = tuple(table["uncounted"])
    return CostTable(**table)
