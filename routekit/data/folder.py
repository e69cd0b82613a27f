"""Image folders: a tree with one folder a class in each split."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from routekit.data.decode import decode_all
from routekit.data.image_set import FolderSet, Images, ImageSet
from routekit.data.provided import Provided, Request
from routekit.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Listing:
    """The image files of each class of one split, unread."""

    folder: Path
    files: dict[str, list[str]]

    def __len__(self) -> int:
        return sum(map(len, self.files.values()))

    def read(self, name: str, request: Request, *, in_memory: bool) -> Images:
        """Make an image set.

        Args:
            name: Its name, for messages.
            request: How images are read.
            in_memory: Whether they are decoded now, or batch by batch.

        Returns:
            The images.

        Raises:
            InputError: An image cannot be read.
        """
        paths = [path for files in self.files.values() for path in files]
        labels = torch.tensor([label for label, files in enumerate(self.files.values()) for _ in files])
        if in_memory:
            return ImageSet(decode_all(paths, request.preprocessing), labels, tuple(self.files), name)
        return FolderSet(paths, labels, tuple(self.files), request.preprocessing, name)


def image_folder(root: Path, request: Request) -> Provided:
    """Read a tree with `train/`, `test/` and perhaps `val/`, each with the same folders, one a class.

    Args:
        root: The tree.
        request: How images are read.

    Returns:
        The data set.

    Raises:
        InputError: The tree is not like that.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give one that holds train/ and test/")
    has_val = (root / "val").is_dir()
    for split in ("train", "test"):
        if not (root / split).is_dir():
            way_out = f"it needs {split}/CLASS/*.jpg"
            if split == "test" and has_val:
                way_out = "rename val/ to test/ and give data.val_from_test=40%"
            raise InputError(f"the data folder {root} has no {split}/: {way_out}")
    listings = [class_folders(root / split) for split in ("train", "test", "val")[: 2 + has_val]]
    for listing in listings[1:]:
        check_classes(tuple(listings[0].files), root / "train", listing)
    in_memory = request.fits(sum(map(len, listings)))
    name = root.resolve().name
    train, test, *val = (listing.read(name, request, in_memory=in_memory) for listing in listings)
    return Provided(train, test, val[0] if val else None)


def validation_folder(folder: Path, classes: tuple[str, ...], whose: str, request: Request) -> Images:
    """Read validation images: a folder of class folders, or a tree with such a `val/`.

    Args:
        folder: The folder.
        classes: The classes that it must have.
        whose: The data set that has these classes, for messages.
        request: How images are read.

    Returns:
        The images.

    Raises:
        InputError: There is no such folder, or it has other classes.
    """
    if not folder.is_dir():
        raise InputError(f"the validation folder {folder} does not exist: data.val is a folder of class folders")
    if (folder / "val").is_dir() and "val" not in classes:
        folder = folder / "val"
    listing = class_folders(folder)
    check_classes(classes, whose, listing)
    return listing.read(folder.name, request, in_memory=request.fits(len(listing)))


def class_folders(folder: Path) -> Listing:
    """List the images below each of the folders in `folder`. Hidden files and folders are passed over.

    Raises:
        InputError: There are no class folders, or one has no images.
    """
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for name in classes:
        if not name.isprintable():  # it goes into records, files and pages
            raise InputError(f"{folder}: the class folder {name!r} has no printable name: rename it")
    if not classes:
        raise InputError(f"{folder} has no class folders: put its images into {folder.name}/CLASS/*.jpg")
    files = {name: image_files(folder / name) for name in classes}
    if not any(files.values()):
        raise InputError(f"{folder} has no images: put them into {folder.name}/CLASS/, as {', '.join(EXTENSIONS[:3])}")
    for name, found in files.items():
        if not found:
            raise InputError(f"the class folder {folder / name} has no images: fill it, or remove it from all splits")
    return Listing(folder, files)


def check_classes(classes: tuple[str, ...], whose: Path | str, listing: Listing) -> None:
    """Check that a listing has just these classes.

    Args:
        classes: The classes.
        whose: The data set that has them, for messages.
        listing: The listing.

    Raises:
        InputError: It lacks some, or has others besides.
    """
    found = {"lacks {}": set(classes) - set(listing.files), "has {} besides": set(listing.files) - set(classes)}
    differences = [words.format(_few(names)) for words, names in found.items() if names]
    if differences:
        raise InputError(
            f"{listing.folder} and {whose} need the same class folders: the first " + " and ".join(differences)
        )


def _few(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def image_files(folder: Path) -> list[str]:
    """List the image files below `folder`, sorted; hidden ones are passed over."""
    # Strings, not Path objects: a large set has a million of them. Data sets are often made of links.
    return sorted(
        os.path.join(place, name)  # noqa: PTH118
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
    )


def files_of(folder: Path) -> list[str]:
    """List the image files below `folder`. Raises InputError if there are none, or no folder."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder of images")
    files = image_files(folder)
    if not files:
        raise InputError(f"{folder} has no images ({', '.join(EXTENSIONS)})")
    return files
