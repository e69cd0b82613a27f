"""Batched augmentation, drawn per sample, and normalisation.

All draws come from an explicit generator, so that a step of a resumed run sees the same pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from routekit.data.preprocessing import LARGE

Fill = Literal["zeros", "mean", "decoded-mean"]
Policy = Literal["standard", "autoaugment"]
# Pixels hold light to the power of 1 / 2.2.
GAMMA = 2.2
GREY = 128  # what Cutout leaves


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied: `augmentation(images, generator)`.

    Attributes:
        pad: The most pixels by which an image is shifted.
        flip: Whether half of the images are mirrored left to right.
        area: For large images, in place of the shift: a crop is enlarged to the whole. Its share of the area is drawn
            between these bounds, its aspect ratio between 3/4 and 4/3 (Szegedy et al., 2015).
        unflipped: Labels of classes that are not mirrored.
        fill: What a shift fills with: zeros, or the mean colour of the image, of its pixels or of their light
            ("decoded-mean").
        policy: "standard" is all of that. "autoaugment" also does what Cubuk et al. (2019) found, as torchvision does:
            for CIFAR-10, for SVHN where nothing is mirrored, with Cutout; from 96 pixels on, for ImageNet.
    """

    pad: int = 4
    flip: bool = True
    area: tuple[float, float] | None = None
    unflipped: tuple[int, ...] = ()
    fill: Fill = "zeros"
    policy: Policy = "standard"

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        *,
        flip: bool,
        unflipped: tuple[int, ...] = (),
        fill: Fill = "zeros",
        policy: Policy = "standard",
    ) -> "Augmentation":
        """Choose what is usual at a size: shifts, as for CIFAR, below 96 pixels; crops, as for ImageNet, from there on.

        Args:
            size: (H, W) of the inputs.
            flip: Whether half of the images are mirrored.
            unflipped: Labels of classes that are not mirrored.
            fill: What a shift fills with.
            policy: What is done beside.

        Returns:
            The augmentation.
        """
        if min(size) >= LARGE:
            return cls(pad=0, flip=flip, area=(0.35, 1.0), unflipped=unflipped, policy=policy)
        return cls(pad=min(size) // 8, flip=flip, unflipped=unflipped, fill=fill, policy=policy)

    def __call__(self, images: Tensor, generator: Generator, labels: Tensor | None = None) -> Tensor:
        """Vary each sample on its own.

        Args:
            images: [B, C, H, W], uint8 or float.
            generator: Draws what is done to each.
            labels: Their classes, int64 [B]: those of `unflipped` are not mirrored.

        Returns:
            Images of the same shape and type.
        """
        n, at = len(images), generator.device
        flipped = torch.zeros(n, dtype=torch.bool, device=at)
        if self.flip:
            flipped = torch.rand(n, generator=generator, device=at) < 0.5
        if self.unflipped and labels is not None:
            flipped &= ~torch.isin(labels.to(at), torch.tensor(self.unflipped, device=at))
        flipped = flipped.to(images.device)
        if self.area is not None:
            images = crop_and_resize(images, self._boxes(n, generator).to(images.device), flipped)
        else:
            top, left = torch.randint(0, 2 * self.pad + 1, (2, n), generator=generator, device=at).to(images.device)
            images = crop_and_flip(images, self.pad, top, left, flipped, self._colour(images))
        # Images that are not mirrored are of digits and the like.
        return autoaugment(images, generator, digits=not self.flip) if self.policy == "autoaugment" else images

    def _colour(self, images: Tensor) -> Tensor | None:
        """The colour [B, C, 1, 1] that fills what a shift leaves empty; None for zeros."""
        if self.fill == "zeros":
            return None
        power = GAMMA if self.fill == "decoded-mean" else 1.0
        mean: Tensor = images.float().pow(power).mean(dim=(2, 3), keepdim=True).pow(1 / power)
        return mean if images.is_floating_point() else mean.round().to(images.dtype)

    def _boxes(self, n: int, generator: Generator) -> Tensor:
        """Draw the boxes [B, 4] of `crop_and_resize`."""
        low, high = self.area or (1.0, 1.0)
        area, ratio, x, y = torch.rand(4, n, generator=generator, device=generator.device)
        area = low + (high - low) * area
        ratio = torch.exp((2 * ratio - 1) * math.log(4 / 3))
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        return torch.stack([(2 * x - 1) * (1 - width), (2 * y - 1) * (1 - height), width, height], dim=1)


def autoaugment(images: Tensor, generator: Generator, digits: bool = False) -> Tensor:
    """Do to each image what AutoAugment draws for it, then Cutout to small images (Cubuk et al., 2019, section 4).

    Args:
        images: [B, C, H, W], uint8.
        generator: Its next number is the seed of what is drawn.
        digits: Whether the policy is that of SVHN, which is for small images.

    Returns:
        Images of the same shape and type.
    """
    from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy

    large = min(images.shape[-2:]) >= LARGE
    small = AutoAugmentPolicy.SVHN if digits else AutoAugmentPolicy.CIFAR10
    vary = AutoAugment(AutoAugmentPolicy.IMAGENET if large else small)
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    # torchvision draws from the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        varied = torch.stack([vary(image) for image in images])
    return varied if large else cutout(varied, generator, share=20 / 32 if digits else 1 / 2)


def cutout(images: Tensor, generator: Generator, share: float = 0.5) -> Tensor:
    """Grey a square of each image, whose centre is anywhere in it (DeVries and Taylor, 2017).

    Args:
        images: [B, C, H, W], uint8.
        generator: Draws the centres.
        share: The width of the square, as a share of that of the image. It is 16 of 32 for CIFAR-10, 20 for SVHN.

    Returns:
        Images of the same shape and type.
    """
    count, _, height, width = images.shape
    centres = torch.rand(2, count, 1, generator=generator, device=generator.device).to(images.device)
    hidden = [
        (torch.arange(size, device=images.device) - (size * centre).floor()).add(0.5).abs()
        < min(height, width) * share / 2
        for size, centre in zip((height, width), centres, strict=True)
    ]
    return images.masked_fill((hidden[0].unsqueeze(2) & hidden[1].unsqueeze(1)).unsqueeze(1), GREY)


def crop_and_flip(
    images: Tensor, pad: int, top: Tensor, left: Tensor, flipped: Tensor, colour: Tensor | None = None
) -> Tensor:
    """Shift images, and mirror some of them.

    Args:
        images: [B, C, H, W].
        pad: How many pixels are added on each side, before H x W of them are cropped.
        top: The first row of each crop, int64 [B] in [0, 2 * pad]; at `pad`, an image stays in place.
        left: The first column of each crop, as `top`.
        flipped: Which ones to mirror left to right, bool [B].
        colour: What is added, [B, C, 1, 1]; None for zeros.

    Returns:
        Images of the same shape and type.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (pad, pad, pad, pad))
    if colour is not None:
        outside = F.pad(torch.zeros_like(images[:1, :1], dtype=torch.bool), (pad, pad, pad, pad), value=True)
        padded = torch.where(outside, colour, padded)
    # Every window is a view; one indexing copies the chosen ones, faster than gathering pixel by pixel.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    crops = windows[torch.arange(len(images), device=images.device), :, top, left]
    return torch.where(flipped[:, None, None, None], crops.flip(3), crops)


def crop_and_resize(images: Tensor, boxes: Tensor, flipped: Tensor) -> Tensor:
    """Enlarge a box of each image to the full size, bilinearly, and mirror some images.

    Args:
        images: [B, C, H, W].
        boxes: (centre x, centre y, width, height) of each, [B, 4]. The image spans -1 to 1; its width and its height
            are 1.
        flipped: Which ones to mirror left to right, bool [B].

    Returns:
        Images of the same shape and type.
    """
    x, y, width, height = boxes.unbind(dim=1)
    zero = torch.zeros_like(x)
    sign = torch.where(flipped, -1.0, 1.0)
    affine = torch.stack([sign * width, zero, x, zero, height, y], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    out = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return out if images.is_floating_point() else out.round().clamp(0, 255).to(images.dtype)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Scale images to the mean and standard deviation that a network was made for.

    Args:
        images: [B, C, H, W], uint8. Float images are taken as they are: whoever gives them has scaled them.
        mean: Of each channel, on images scaled to [0, 1]; one value is for all channels.
        std: As `mean`.

    Returns:
        Float32 (x / 255 - mean) / std by channel, in channels-last format.

    Raises:
        ValueError: There are more values than channels, or fewer.
    """
    if images.is_floating_point():
        return images.contiguous(memory_format=torch.channels_last)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, images.shape[1]):
            raise ValueError(f"{name} has {len(values)} values, the images have {images.shape[1]} channels")
    scale = 1 / (255 * torch.tensor(std, device=images.device).view(-1, 1, 1))
    offset = -torch.tensor(mean, device=images.device).view(-1, 1, 1) * 255 * scale
    # Reordered as bytes, a quarter of the traffic of reordering floats.
    return torch.addcmul(offset, images.contiguous(memory_format=torch.channels_last).float(), scale)
