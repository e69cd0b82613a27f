"""The dense form: every unit that the network has runs, no router is asked."""

import torch
from torch import Tensor, nn

from routekit.network.network import RoutedNetwork
from routekit.network.paths import Paths, mark, on_paths


class Dense(nn.Module):
    """`network` without its routing: images [B, C, H, W], normalised -> logits [B, classes]. Of a tree, one path."""

    def __init__(self, network: RoutedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Run stem, units and head."""
        view = self.network.view
        x = view.stem(images)
        for unit in view.units:
            x = on_paths(unit)[0](x) if isinstance(unit.block, Paths) else unit.run(x)
        if self.network.is_tree:
            x = mark(x, torch.zeros(len(x), device=x.device))
        logits: Tensor = view.head(x)
        return logits
