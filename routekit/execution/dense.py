"""The dense form: every unit that the network has runs, no router is asked."""

from torch import Tensor, nn

from routekit.network.network import RoutedNetwork


class Dense(nn.Module):
    """`network` without its routing: images [B, C, H, W], normalised -> logits [B, classes]."""

    def __init__(self, network: RoutedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Run stem, units and head."""
        view = self.network.view
        x = view.stem(images)
        for unit in view.units:
            x = unit.run(x)
        logits: Tensor = view.head(x)
        return logits
