"""Toy networks that carry their own hand-derived answers."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from routekit.backbones.adapters import adapt
from routekit.backbones.cifar_resnet import CifarResNet
from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit
from routekit.data.augment import Augmentation
from routekit.data.image_set import ImageSet
from routekit.data.sources import DataSplits
from routekit.junctions.branch import Branch
from routekit.junctions.cascade import Cascade
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.junction import Junction
from routekit.junctions.skip import Skip
from routekit.network.execution import masked
from routekit.network.network import RoutedNetwork
from routekit.routing.router import RouterConfig

TOY_SPEC = ModelSpec(source="custom", name="toy", num_classes=3, input_size=(3, 8, 8))


class ToyBlock(nn.Module):
    """A basic block of one convolution."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)
        self.downsample = None if stride == 1 else nn.Conv2d(channels_in, channels_out, 2, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.bn(self.conv(x)) + shortcut)

    def skip(self, x: Tensor) -> Tensor:
        assert self.downsample is not None
        return torch.relu(self.downsample(x))


class ToyNet(nn.Module):
    """Stem 3 -> 4 channels, two identity units, a down-sampling unit to 8 channels, an identity unit, a head.

    Multiply-adds at 8x8, by hand (convolutions and classifier; a batch norm is 2 an element in fvcore):
      stem 8*8*3*4*9 = 6,912;  unit 8*8*4*4*9 = 9,216 + 2*4*64 = 512
      down 4*4*4*8*9 = 4,608 + 256 + shortcut 4*4*4*8*4 = 2,048
      last 4*4*8*8*9 = 9,216 + 256
      head 8*3 = 24, and its pooling 8*4*4 = 128
    """

    FLOPS: ClassVar = {"stem": 6912, "unit": 9728, "down": 6912, "down shortcut": 2048, "last": 9472, "head": 152}

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        few, many = channels, 2 * channels
        self.conv = nn.Conv2d(3, few, 3, 1, 1, bias=False)
        self.body = nn.ModuleList(
            [ToyBlock(few, few, 1), ToyBlock(few, few, 1), ToyBlock(few, many, 2), ToyBlock(many, many, 1)]
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(many, 3)

    def stem(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))

    def head(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(x).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.body:
            x = block(x)
        return self.head(x)


def toy_view(seed: int = 0, channels: int = 4) -> Backbone:
    """A toy backbone with batch-norm statistics and affine parameters that matter."""
    torch.manual_seed(seed)
    model = ToyNet(channels)
    _shake(model)
    units = []
    for index, block in enumerate(model.body):
        shortcut = None if block.downsample is None else block.skip
        units.append(ResidualUnit(f"body.{index}", block, stage=int(index > 1), shortcut=shortcut))
    return Backbone(model.eval(), TOY_SPEC, model.stem, units, model.head, classifier="fc")


def toy_images(count: int, seed: int = 0) -> ImageSet:
    """Three classes, told by which colour is bright; a third of the images is dim and noisy, so harder."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 120, (count, 3, 8, 8), generator=generator)
    strength = torch.where(torch.arange(count) % 9 < 6, 100, 15)
    images[torch.arange(count), labels] += strength.view(-1, 1, 1)
    return ImageSet(images.clamp(0, 255).to(torch.uint8), labels, ("red", "green", "blue"))


def toy_data() -> DataSplits:
    return DataSplits(
        train=toy_images(192, 0),
        val=toy_images(96, 1),
        test=toy_images(96, 2),
        name="toy",
        classes=("red", "green", "blue"),
        augmentation=Augmentation(pad=1, flip=True),
        val_origin="fixed",
        warnings=[],
    )


def open_to_images(network: RoutedNetwork, seed: int = 0, spread: float = 3.0) -> None:
    """Give the routers weights, so that routes differ between images."""
    generator = torch.Generator().manual_seed(seed)
    for bank in network.banks:
        for parameter in bank.parameters():
            # By all inputs in a policy network: through its layers, scores would grow beyond what float32 tells apart.
            inputs = parameter[0].numel() if bank.sees_image and parameter.ndim > 1 else parameter.shape[-1]
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread / inputs**0.5)


def toy_noise(count: int, seed: int = 0) -> Tensor:
    """Noise in the shape of the toy's input."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def toy_routed(kind: str = "fc", seed: int = 0, bias: float = 0.0) -> RoutedNetwork:
    """A routed toy whose routes differ between images; `bias` speaks for running every unit."""
    network = convert(toy_view(seed), [Skip()], routers=RouterConfig(kind=kind, hidden=8)).eval()
    open_to_images(network, seed)
    network.routers.bias.fill_(bias)
    return network


def toy_exits(
    seed: int = 0, *, kind: str = "fc", bias: float = 0.0, exits: Exit | None = None, skips: bool = True
) -> RoutedNetwork:
    """A routed toy with an exit after its first and its third unit, whose decisions differ between images."""
    config = exits or Exit(at="body.0,body.2", width=4, hidden=8)
    junctions: list[Junction] = [Skip(), config] if skips else [config]
    network = convert(toy_view(seed), junctions, routers=RouterConfig(kind=kind, hidden=8)).eval()
    open_to_images(network, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for decider in network.deciders:
        for parameter in decider.parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2 / parameter.shape[-1] ** 0.5)
    with torch.no_grad():
        margins = network(toy_noise(64, seed), execution=masked).margins
    middle = torch.zeros(len(network.columns))
    stops = list(network.layout.stops)
    middle[stops] = -margins[:, stops].median(dim=0).values
    network.set_bias(middle + bias)
    return network


def small_view(seed: int = 0, depth: int = 14) -> Backbone:
    """A CIFAR ResNet of three stages, 14 layers and six units deep, for the toy's images; its batch norms matter."""
    torch.manual_seed(seed)
    model = CifarResNet(depth, num_classes=3).eval()
    _shake(model)
    return adapt(model, ModelSpec(source="cifar", name=f"resnet{depth}", num_classes=3, input_size=(3, 8, 8)))


# The sinks of a unit beside itself: a narrow one, in place of or beside skipping it; several; a copy of the unit.
SINKS: dict[str, list[Junction]] = {
    "narrow": [Branch(width=(0.4,))],
    "skip or narrow": [Skip(), Branch(width=(0.4,))],
    "two narrow": [Branch(width=(0.6, 0.2))],
    "candidate": [Branch(width=(), candidates=1)],
    "all": [Skip(), Branch(width=(0.6, 0.2), candidates=1)],
}


def small_branches(
    seed: int = 0,
    *,
    sinks: str = "narrow",
    bias: float = 0.0,
    cascade: bool = False,
    kind: str = "fc",
    depth: int = 14,
) -> RoutedNetwork:
    """A network whose units have several sinks; with a cascade, a narrow form of it is asked first."""
    junctions = [*SINKS[sinks], *([Cascade(width=0.25, depth=0.5, own=False)] if cascade else [])]
    network = convert(small_view(seed, depth), junctions, routers=RouterConfig(kind=kind, hidden=8)).eval()
    _shake(network)
    open_to_images(network, seed)
    network.routers.bias.fill_(bias)
    for stop in network.stops:
        with torch.no_grad():  # half of these images are sure enough
            sure = network(toy_noise(16, seed), execution=masked).leaves[0].softmax(dim=1).amax(dim=1)
            stop.decider.bias.copy_(sure.median() + 1e-3)
    return network


def _shake(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
