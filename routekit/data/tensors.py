"""A user's own images: tensors, a torch `Dataset`, a `DataLoader`, in one form."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from routekit.data.augment import Augmentation
from routekit.data.image_set import Batches
from routekit.data.sources import CARVED, DataSplits
from routekit.data.split import stratified_split
from routekit.errors import InputError

Labelled = tuple[Tensor, Tensor] | Dataset[Any] | DataLoader[Any]


@dataclass(frozen=True, eq=False)
class DatasetImages:
    """Images of a torch data set whose items are (image, label): those of `indices`.

    uint8 images are normalised as the network wants, float ones are taken as they are.
    """

    dataset: Dataset[Any]
    indices: Tensor
    classes: tuple[str, ...]
    labels: Tensor
    name: str = "images"

    def __len__(self) -> int:
        return len(self.indices)

    def subset(self, indices: Tensor) -> Self:
        """Take the images of `indices` `[M]`, in that order."""
        return replace(self, indices=self.indices[indices], labels=self.labels[indices])

    def batches(self, indices: Tensor, batch_size: int) -> Batches:
        """Read images in batches, as `Images.batches`.

        Args:
            indices: Which images, in this order, int64 [M].
            batch_size: B, the number of images of a batch.

        Yields:
            Images of any type [B, C, H, W], and int64 labels [B].
        """
        for chunk in torch.split(indices, batch_size):
            if isinstance(self.dataset, TensorDataset):
                yield self.dataset.tensors[0][self.indices[chunk]], self.labels[chunk]
            else:
                items = [self.dataset[int(index)][0] for index in self.indices[chunk]]
                yield torch.stack([torch.as_tensor(item) for item in items]), self.labels[chunk]


def images_of(given: Labelled, input_size: tuple[int, int, int], num_classes: int) -> DatasetImages:
    """Bring labelled images into one form.

    Args:
        given: Tensors (images `[N, C, H, W]`, labels `[N]`), a data set of such pairs, or a loader of one.
        input_size: (channels, height, width) that the network takes.
        num_classes: The number of its classes.

    Returns:
        The images.

    Raises:
        InputError: Images or labels do not fit the network.
    """
    dataset: Any = given.dataset if isinstance(given, DataLoader) else given
    if isinstance(dataset, tuple):
        images, labels = dataset
        if len(images) != len(labels):
            raise InputError(f"there are {len(images)} images and {len(labels)} labels")
        dataset = TensorDataset(images, labels)
    if not len(dataset):
        raise InputError("there are no images")
    shape = tuple(torch.as_tensor(dataset[0][0]).shape)
    if shape != input_size:
        raise InputError(f"images are {list(shape)}, the network takes {list(input_size)}: resize them first")
    if isinstance(dataset, TensorDataset):
        labels = dataset.tensors[1].long()
    else:
        labels = torch.tensor([int(dataset[index][1]) for index in range(len(dataset))])
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise InputError(f"labels go from {low} to {high}, the network has {num_classes} classes")
    names = tuple(getattr(dataset, "classes", None) or map(str, range(num_classes)))
    return DatasetImages(dataset, torch.arange(len(dataset)), names, labels)


def splits_of(
    given: Labelled | Sequence[Labelled], input_size: tuple[int, int, int], num_classes: int, seed: int
) -> DataSplits:
    """Divide a user's own images into training, validation and test images.

    Args:
        given: Images for training, validation and test; or for the first two; or for training alone, of which a tenth
            is taken for validation. Without test images, the validation images are measured on again; without those,
            all images.
        input_size: What the network takes, (channels, height, width).
        num_classes: The number of its classes.
        seed: Draws which images are taken.

    Returns:
        The splits. Training images are varied by shifts, only where they are uint8.

    Raises:
        InputError: Images or labels do not fit the network.
    """
    pair = isinstance(given, tuple) and len(given) == 2 and all(isinstance(each, Tensor) for each in given)
    parts: list[Any] = list(given) if isinstance(given, Sequence) and not pair else [given]
    if not 1 <= len(parts) <= 3:
        raise InputError(f"images are for training, validation and test: {len(parts)} sets were given")
    train, *others = [images_of(part, input_size, num_classes) for part in parts]
    val, test = (others[0], others[-1]) if others else (train, train)
    warnings: list[str] = []
    if not others:
        rest, taken = stratified_split(train.labels, CARVED, seed)
        if len(taken):
            train, val = train.subset(rest), train.subset(taken)
        warnings.append("the validation images are carved from the training images")
    first = torch.as_tensor(train.dataset[int(train.indices[0])][0])
    augmentation = Augmentation.of(input_size[1:], flip=False)
    if first.dtype != torch.uint8:
        augmentation = Augmentation(pad=0, flip=False)
    origin: Literal["fixed", "train"] = "fixed" if others else "train"
    return DataSplits(train, val, test, "images", train.classes, augmentation, origin, warnings)
