"""Several augmented views of each sample, for the consistency of routes (Eq. 5 of Wang et al.)."""

from torch import Generator, Tensor

from routekit.data.augment import Augmentation


def augmented_copies(
    images: Tensor, labels: Tensor, copies: int, augmentation: Augmentation, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Make several augmented views of each sample.

    Args:
        images: [B, C, H, W].
        labels: [B].
        copies: How many views of each sample. They are adjacent: `.view(B, copies, ...)` separates them.
        augmentation: What is done to each copy, on its own.
        generator: Draws that.

    Returns:
        Images [B * copies, C, H, W] and labels [B * copies].
    """
    if copies > 1:
        images, labels = images.repeat_interleave(copies, dim=0), labels.repeat_interleave(copies)
    return augmentation(images, generator, labels), labels
