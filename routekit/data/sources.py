"""`load_data`: the splits of a data set, by its name or its folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

# Imported for their entries in the registry.
import routekit.data.digits
import routekit.data.torchvision_sets  # noqa: F401
from routekit.data.augment import Augmentation
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
    "budgets set on them come out wrong on new images; give --val DIR or --val-from-test 40%"
)


@dataclass(frozen=True)
class DataSplits:
    """A data set, ready for training; the three splits share no image.

    augmentation:  how training images are varied
    val_origin:    where validation images come from: a folder of their own, the training images, the test
                   images, or the split that the data set fixes
    warnings:      sentences for the user
    """

    train: Images
    val: Images
    test: Images
    name: str
    classes: tuple[str, ...]
    augmentation: Augmentation
    val_origin: Literal["folder", "train", "test", "fixed"]
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
    fill: Literal["zeros", "mean"] = "zeros",
) -> DataSplits:
    """Load the data set `source`: a name (digits, cifar10, ...) or a folder of train/, test/ and maybe val/.

    It may also be some classes of a set, `cifar10[horse,*]`, and several sets as one, joined by + (`mixture.py`).
    Validation images are those of the folder `val`; else the share `val_from_test`, in (0, 1), of each class
    of the test split, which loses them; else the data set's own; else a tenth of the training split, with a
    warning. `seed` draws what is carved.

    `fill` is what shifted training images are padded with: zeros, or their own mean colour. Images come as
    `preprocessing` says. They are kept in memory, decoded, if they take less than `limit_memory_bytes`. Raises
    InputError if the data are not there or not as described.
    """
    if val is not None and val_from_test is not None:
        raise InputError("--val and --val-from-test both say where validation images come from: give one of them")
    if val_from_test is not None and not 0 < val_from_test < 1:
        raise InputError(f"--val-from-test is a share between 0% and 100% of the test images, not {val_from_test:.4g}")
    request = Request(data_root, download, preprocessing, limit_memory_bytes)
    provided = _provided(source, request)
    train, test, classes = provided.train, provided.test, provided.train.classes
    if len(classes) < 2:
        raise InputError(f"{source} has one class, {classes[0]!r}: there is nothing to tell apart; give two or more")
    warnings: list[str] = []
    origin: Literal["folder", "train", "test", "fixed"]
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
        warnings.append(SEEN_WARNING)
    augmentation = Augmentation.of(request.size, flip=provided.flip, unflipped=provided.unflipped, fill=fill)
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
        raise InputError(f"{images.name} has too few images to carve a validation split from: give --val DIR")
    return images.subset(rest), images.subset(taken)
