"""Several augmented views of each sample, for the consistency of routes (Eq. 5 of Wang et al.)."""

from torch import Generator, Tensor

from routekit.data.augment import Augmentation


def augmented_copies(
    images: Tensor, labels: Tensor, copies: int, augmentation: Augmentation, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Images [B, C, H, W] and labels [B] -> [B * copies, ...] each, each copy augmented on its own.

    The copies of one sample are adjacent: `.view(B, copies, ...)` separates samples from copies.
    """
    if copies > 1:
        images, labels = images.repeat_interleave(copies, dim=0), labels.repeat_interleave(copies)
    return augmentation(images, generator, labels), labels
