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
        """Decode the images now or batch by batch; raises InputError that names an unreadable file."""
        paths = [path for files in self.files.values() for path in files]
        sizes = torch.tensor([len(files) for files in self.files.values()])
        labels, classes = torch.arange(len(sizes)).repeat_interleave(sizes), tuple(self.files)
        if in_memory:
            return ImageSet(decode_all(paths, request.preprocessing), labels, classes, name)
        return FolderSet(paths, labels, classes, request.preprocessing, name)


def image_folder(root: Path, request: Request) -> Provided:
    """Read a tree with `train/`, `test/` and, if it has one, `val/`, each with the same folders, one a class.

    Raises InputError if the tree is not like that.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder: give one that holds train/ and test/")
    for split in ("train", "test"):
        if not (root / split).is_dir():
            way_out = f"it needs {split}/CLASS/*.jpg"
            if split == "test" and (root / "val").is_dir():
                way_out = "rename val/ to test/ and give --val-from-test 40%"
            raise InputError(f"the data folder {root} has no {split}/: {way_out}")
    names = ["train", "test", *(["val"] if (root / "val").is_dir() else [])]
    listings = {split: class_folders(root / split) for split in names}
    for split in names[1:]:
        check_classes(tuple(listings["train"].files), root / "train", listings[split])
    in_memory = request.fits(sum(map(len, listings.values())))
    name = root.resolve().name
    images = {split: found.read(name, request, in_memory=in_memory) for split, found in listings.items()}
    return Provided(images["train"], images["test"], images.get("val"))


def validation_folder(folder: Path, classes: tuple[str, ...], whose: str, request: Request) -> Images:
    """Read one split: a folder of class folders, or a tree with such a `val/`.

    Raises InputError if there is none, or if its classes are not `classes`, those of the data set `whose`.
    """
    if not folder.is_dir():
        raise InputError(f"the validation folder {folder} does not exist: give --val a folder of class folders")
    if (folder / "val").is_dir() and "val" not in classes:
        folder = folder / "val"
    listing = class_folders(folder)
    check_classes(classes, whose, listing)
    return listing.read(folder.name, request, in_memory=request.fits(len(listing)))


def class_folders(folder: Path) -> Listing:
    """List the images below each of the folders in `folder`; hidden files and folders are passed over.

    Raises InputError if there are no class folders, or if one has no images.
    """
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
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
    """Raise InputError unless `listing` has just the `classes`, which are those of `whose`."""
    missing, extra = set(classes) - set(listing.files), set(listing.files) - set(classes)
    if missing or extra:
        differences = [f"lacks {_few(missing)}"] * bool(missing) + [f"has {_few(extra)} besides"] * bool(extra)
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
