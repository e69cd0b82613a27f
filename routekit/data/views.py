"""Several augmented views of each sample, for the consistency of routes (Eq. 5 of Wang et al.)."""

from torch import Generator, Tensor

from routekit.data.augment import Augmentation


def augmented_copies(images: Tensor, copies: int, augmentation: Augmentation, generator: Generator) -> Tensor:
    """Images [B, 3, H, W] -> [B * copies, 3, H, W], each copy augmented on its own.

    The copies of one sample are adjacent: `.view(B, copies, ...)` separates samples from copies.
    """
    return augmentation(images.repeat_interleave(copies, dim=0) if copies > 1 else images, generator)
