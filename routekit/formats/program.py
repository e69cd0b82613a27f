"""A routed network as a `torch.export` program: everything computed, decisions by mask."""

from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from routekit.backbones.unit import example_input
from routekit.errors import ExportError, first_line
from routekit.files import whole_folder
from routekit.formats.description import FORMAT, described
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork

DESCRIPTION = f"{FORMAT}.json"


class _Masked(nn.Module):
    """Images `[B, C, H, W]` -> logits `[B, classes]` and margins `[B, n]`, all units computed."""

    def __init__(self, network: RoutedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        trace = self.network(images, execution=masked)
        layout = self.network.layout
        met = layout.met(layout.choose(trace.margins))
        return trace.logits, layout.decided(trace.margins).masked_fill(~met, -torch.inf)


class Dense(nn.Module):
    """Images `[B, C, H, W]` -> logits `[B, classes]`, of a network that decides nothing."""

    def __init__(self, network: RoutedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Answer a batch."""
        logits: Tensor = self.network(images, execution=masked).logits
        return logits


@torch.no_grad()
def save_program(folder: Path, network: RoutedNetwork, about: dict[str, Any]) -> list[Path]:
    """Write `masked.pt2`, which routes, and `dense.pt2`, which runs every unit, for any batch size.

    A program cannot skip depending on its data, so neither is faster than the dense network. They are for tools that
    read programs.

    Args:
        folder: It is made if it is not there; an older one of ours is replaced.
        network: The network.
        about: What a user of the files needs beside the network.

    Returns:
        The files.

    Raises:
        ExportError: A program cannot hold the network.
    """
    network, description = described(network, about)
    network.to(memory_format=torch.contiguous_format)
    images = example_input(network.view).repeat(2, 1, 1, 1)
    modules = {"masked": _Masked(network), "dense": Dense(network.without_routing())}
    with whole_folder(folder, "network") as made:
        for form, module in modules.items():
            try:
                program = torch.export.export(module, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
            except Exception as error:
                reason = first_line(error)
                raise ExportError(f"torch.export cannot follow {network.view.spec.full_name}: {reason}") from error
            for part in program.graph_module.modules():
                for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
                    node.meta.pop("stack_trace", None)  # paths of this machine
            content = BytesIO()  # torch's own writer aborts the process where the disk is full
            torch.export.save(program, content, extra_files={DESCRIPTION: description.to_json(form)})
            (made / f"{form}.pt2").write_bytes(content.getbuffer())
    return [folder / f"{form}.pt2" for form in modules]
