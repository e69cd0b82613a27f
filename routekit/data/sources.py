"""`load_data`: the splits of a data set, by its name or its folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

# Imported for their entries in the registry.
import routekit.data.digits
import routekit.data.torchvision_sets  # noqa: F401
from routekit.data.augment import Augmentation, Fill, Policy
from routekit.data.folder import image_folder, validation_folder
from routekit.data.image_set import Images
from routekit.data.mixture import mixture, parts_of
from routekit.data.preprocessing import DEFAULT, Preprocessing
from routekit.data.provided import Provided, Request, named_sets
from routekit.data.split import stratified_split
from routekit.errors import InputError
from routekit.registry import nearest

CARVED = 0.1
"""The share of the training images that becomes the validation split where there is no other."""

SEEN_WARNING = (
    "the validation split is carved from the training images: if the weights have seen those, "
    "budgets set on them come out wrong on new images; give data.val=DIR or data.val_from_test=40%"
)


Origin = Literal["folder", "train", "test", "fixed"]


@dataclass(frozen=True)
class DataSplits:
    """A data set, ready for training. The three splits share no image.

    Attributes:
        train: The training images.
        val: The validation images.
        test: The test images.
        name: The name of the set.
        classes: The names of the classes, in the order of the labels.
        augmentation: How training images are varied.
        val_origin: Where validation images come from: a folder of their own, the training images, the test images, or
            the split that the data set fixes.
        warnings: Sentences for the user.
    """

    train: Images
    val: Images
    test: Images
    name: str
    classes: tuple[str, ...]
    augmentation: Augmentation
    val_origin: Origin
    warnings: list[str] = field(default_factory=list)


def load_data(
    source: str,
    *,
    data_root: Path | None = None,
    download: bool = False,
    val: Path | None = None,
    val_from_test: float | None = None,
    seed: int = 0,
    preprocessing: Preprocessing = DEFAULT,
    limit_memory_bytes: int = 4 * 2**30,
    fill: Fill = "zeros",
    augment: Policy = "standard",
) -> DataSplits:
    """Load a data set.

    Without `val` and `val_from_test`, the validation images are those of the data set. If it has none, a tenth of the
    training images is taken, with a warning.

    Args:
        source: A name (digits, cifar10, ...), or a folder of train/, test/ and perhaps val/. It may also be some
            classes of a set, `cifar10[horse,*]`, and several sets as one, joined by + (`mixture.py`).
        data_root: The folder of downloaded files.
        download: Whether to fetch what is missing.
        val: A folder of validation images.
        val_from_test: In (0, 1): the share of each class of the test split that is taken for validation.
        seed: Draws which images are taken.
        preprocessing: How images are read.
        limit_memory_bytes: Images are kept in memory, decoded, if they take less than this.
        fill: What shifted training images are padded with: zeros, or their own mean colour.
        augment: What is done to training images beside (`Augmentation.policy`).

    Returns:
        The splits.

    Raises:
        InputError: The data do not exist, or are not as described.
    """
    if val is not None and val_from_test is not None:
        raise InputError("data.val and data.val_from_test both say where validation images come from: give one of them")
    if val_from_test is not None and not 0 < val_from_test < 1:
        raise InputError(
            f"data.val_from_test is a share between 0% and 100% of the test images, not {val_from_test:.4g}"
        )
    request = Request(data_root, download, preprocessing, limit_memory_bytes)
    provided = _provided(source, request)
    train, test, classes = provided.train, provided.test, provided.train.classes
    if len(classes) < 2:
        raise InputError(f"{source} has one class, {classes[0]!r}: there is nothing to tell apart; give two or more")
    origin: Origin
    if val is not None:
        held_out, origin = validation_folder(val, classes, source, request), "folder"
    elif val_from_test is not None:
        test, held_out = _carve(test, val_from_test, seed)
        origin = "test"
    elif provided.val is not None:
        held_out, origin = provided.val, "fixed" if source in named_sets else "folder"
    else:
        train, held_out = _carve(train, CARVED, seed)
        origin = "train"
    warnings = [SEEN_WARNING] if origin == "train" else []
    augmentation = Augmentation.of(
        preprocessing.size, flip=provided.flip, unflipped=provided.unflipped, fill=fill, policy=augment
    )
    return DataSplits(train, held_out, test, train.name, classes, augmentation, origin, warnings)


def _provided(source: str, request: Request) -> Provided:
    parts = None if Path(source).exists() else parts_of(source)
    if parts is not None:
        return mixture(parts, lambda name: _provided(name, request))
    if source in named_sets:
        return named_sets[source](request)
    if not Path(source).exists():
        raise InputError(f"no folder and no data set is called {source!r}: {nearest(source, named_sets)}")
    return image_folder(Path(source), request)


def _carve(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    rest, taken = stratified_split(images.labels, fraction, seed)
    if len(taken) == 0:
        raise InputError(f"{images.name} has too few images to carve a validation split from: give data.val=DIR")
    return images.subset(rest), images.subset(taken)
