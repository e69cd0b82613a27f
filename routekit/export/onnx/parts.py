"""The parts of a network as ONNX pieces: what a graph that routes is put together from."""

from typing import Any

import torch
from onnx import helper
from torch import Tensor, nn

from routekit.backbones.unit import ResidualUnit
from routekit.export.onnx.piece import Exporter, Piece
from routekit.network.convert import example_input
from routekit.network.exits import Exit
from routekit.network.network import RoutedNetwork


class Parts:
    """Pieces in standard operators, which every runtime reads. `network` is in the form that `prepare` gives.

    Units name the features that they read. Raises ExportError for what torch cannot export.
    """

    # Of the operator sets that the pieces need beside the standard one.
    domains: tuple[str, ...] = ()

    @torch.no_grad()
    def __init__(self, network: RoutedNetwork, exporter: Exporter) -> None:
        self.network, self.exporter = network, exporter
        view = network.view
        self.images = example_input(view)
        x = view.stem(self.images)
        self.features: dict[str, Tensor] = {}
        for unit in view.units:
            self.features[unit.name] = x
            x = unit.run(x)
        self.last = x

    def stem(self) -> Piece:
        """Images [N, C, H, W], normalised -> the features that the first unit reads."""
        view, first = self.network.view, next(iter(self.features.values()))
        return self.exporter.export(
            "the stem", view.stem, view.model, self.images, ("stem", *self._model(), first.shape)
        )

    def run(self, unit: ResidualUnit) -> Piece:
        """Features -> what the unit gives if it runs."""
        return self.exporter.export(unit.name, unit.run, unit.block, self.features[unit.name], self._kind("run", unit))

    def take(self, unit: ResidualUnit, sink: int) -> Piece:
        """Features -> what the unit gives by one of its sinks but the default."""
        way = unit.sinks[sink]
        return self.branch(unit, way) if isinstance(way, nn.Module) else self.run(unit)

    def branch(self, unit: ResidualUnit, branch: nn.Module) -> Piece:
        """Features -> what one of the unit's branches gives."""
        name, features = f"a branch of {unit.name}", self.features[unit.name]
        return self.exporter.export(name, branch, branch, features, self._kind(f"branch {branch!r}", unit))

    def skip(self, unit: ResidualUnit) -> Piece | None:
        """Features -> what the unit gives by default; None if that is the features themselves."""
        if unit.keeps:
            return None
        default = unit.sinks[-1]
        if isinstance(default, nn.Module):
            return self.branch(unit, default)
        name, features = f"the shortcut of {unit.name}", self.features[unit.name]
        return self.exporter.export(name, unit.skip, unit.block, features, self._kind("skip", unit))

    def pool(self, unit: ResidualUnit) -> Piece:  # noqa: ARG002 - pieces in a layout of their own differ
        """The features that a unit reads -> their average over the image [N, C]."""
        nodes = [
            helper.make_node("GlobalAveragePool", ["features"], ["average"]),
            helper.make_node("Flatten", ["average"], ["pooled"]),
        ]
        return Piece(nodes, [], "features", "pooled")

    def plain(self, unit: ResidualUnit) -> Piece | None:  # noqa: ARG002 - as above
        """The features that a unit reads -> the same [N, C, H, W]; None if that is what they are."""
        return None

    def exit(self, leaving: Exit) -> Piece:
        """Features -> [N, classes + 1]: what an exit says, and by how much each image prefers to go on."""
        names = list(self.features)
        features = self.last if leaving.ends else self.features[names[names.index(leaving.after) + 1]]
        name = f"the exit after {leaving.after}"
        return self.exporter.export(name, leaving.told, leaving, features, ("exit", repr(leaving), features.shape))

    def head(self) -> Piece:
        """Features -> logits [N, classes]."""
        view = self.network.view
        return self.exporter.export(
            "the head", view.head, view.model, self.last, ("head", *self._model(), self.last.shape)
        )

    def _model(self) -> tuple[str, str]:
        # Networks of a cascade share an exporter, and may differ where their features do not.
        return self.network.view.spec.full_name, repr(self.network.view.model)

    def _kind(self, way: str, unit: ResidualUnit) -> Any:
        # Blocks of the libraries that look alike compute alike; a user's own may differ in what repr leaves out.
        look = unit.name if self.network.view.spec.source == "custom" else repr(unit.block)
        return (way, look, tuple(self.features[unit.name].shape))
