"""Data sets made of others: some of their classes, and several of them as one.

`cifar10[horse,*]` has the classes horse and other; `mnist[0,1]+cifar10[deer,frog]` has four, of two sets. So are made
CIFAR-2, CIFAR-5 and the hybrid data set of McGill and Perona, "Deciding How to Decide" (2017), sections 5.1 and 5.6.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from routekit.data.image_set import Images, ImageSet
from routekit.data.provided import Provided
from routekit.errors import InputError
from routekit.registry import nearest

OTHER = "other"
# How far apart, in RGB from 0 to 1, the two colours are that a greyscale image is given.
CONTRAST = 0.3
_PART = re.compile(r"(?P<source>[^\[\]]+)(?:\[(?P<classes>[^\[\]]*)\])?")


def parts_of(source: str) -> list[tuple[str, list[str] | None]] | None:
    """`a[x,y]+b` -> [("a", ["x", "y"]), ("b", None)]; None for a plain name. Raises InputError for neither."""
    if "[" not in source and "+" not in source:
        return None
    found = []
    for part in re.split(r"\+(?![^\[]*\])", source):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise InputError(f"{part!r} is no data set: write cifar10[horse,*] or mnist[0,1]+cifar10[deer,frog]")
        classes = match["classes"]
        found.append((match["source"].strip(), None if classes is None else [c.strip() for c in classes.split(",")]))
    return found


def anchored(source: str) -> str:
    """The same data set from any working folder: folders by their whole paths. Raises InputError: it is none."""
    parts = parts_of(source)
    if parts is None:
        return str(Path(source).absolute()) if Path(source).is_dir() else source
    return "+".join(anchored(name) + ("" if classes is None else f"[{','.join(classes)}]") for name, classes in parts)


def folders_of(source: str) -> list[Path]:
    """The folders that a data set is read from, if it is not known by a name. Raises InputError: it is none."""
    return [Path(name) for name, _ in parts_of(source) or [(source, None)] if Path(name).is_dir()]


def mixture(parts: list[tuple[str, list[str] | None]], provide: Callable[[str], Provided]) -> Provided:
    """Join some classes of several sets. Greyscale images get colours, for a network that takes RGB.

    Args:
        parts: The name of each set, and its classes; None for all of them.
        provide: Reads a set by its name.

    Returns:
        The sets as one. A single set keeps its colours.

    Raises:
        InputError: A class does not exist, or is there twice; or the sets cannot be joined.
    """
    chosen = [_choose(provide(source), source, classes) for source, classes in parts]
    if len(chosen) == 1:
        return chosen[0]
    classes = tuple(name for each in chosen for name in each.train.classes)
    for name in classes:
        if classes.count(name) > 1:
            raise InputError(
                f"class {name!r} is in two of these sets: name the classes of each, as in cifar10[deer,frog]"
            )
    coloured = [_coloured(each) if each.grey else each for each in chosen]
    name = "+".join(each.train.name for each in coloured)
    # The first label of each set.
    first = list(accumulate((len(each.train.classes) for each in coloured[:-1]), initial=0))

    def join(splits: list[Images]) -> Images:
        images = []
        for split in splits:
            if not isinstance(split, ImageSet) or split.preprocessing is not None:
                raise InputError(f"{split.name} does not fit into memory at this size: it cannot be part of a mixture")
            images.append(split.images)
        labels = [split.labels + label for split, label in zip(splits, first, strict=True)]
        return ImageSet(torch.cat(images), torch.cat(labels), classes, name)

    vals = [each.val for each in coloured if each.val is not None]
    return Provided(
        join([each.train for each in coloured]),
        join([each.test for each in coloured]),
        # Where one has no validation images, some are taken from all.
        join(vals) if len(vals) == len(coloured) else None,
        unflipped=tuple(
            label + start
            for each, start in zip(coloured, first, strict=True)
            for label in range(len(each.train.classes))
            if not each.flip or label in each.unflipped
        ),
    )


def _choose(whole: Provided, source: str, classes: list[str] | None) -> Provided:
    """Keep `classes` of a set, in that order; "*" stands for all others as one."""
    if classes is None:
        return whole
    known = whole.train.classes
    for name in classes:
        if name != "*" and name not in known:
            raise InputError(f"{source} has no class {name!r}: {nearest(name, known)}")
        if classes.count(name) > 1:
            raise InputError(f"{source}[{','.join(classes)}] names {name!r} twice")
    places = torch.full((len(known),), -1)
    for label, each in enumerate(known):
        if each in classes or "*" in classes:
            places[label] = classes.index(each if each in classes else "*")
    names = tuple(OTHER if name == "*" else name for name in classes)

    def keep(images: Images) -> Images:
        labels = places[images.labels]
        kept = (labels >= 0).nonzero().squeeze(1)
        subset = images.subset(kept)
        return replace(subset, labels=labels[kept], classes=names)  # type: ignore[type-var]

    val = None if whole.val is None else keep(whole.val)
    unflipped = tuple(int(places[label]) for label in whole.unflipped if places[label] >= 0)
    return replace(whole, train=keep(whole.train), test=keep(whole.test), val=val, unflipped=unflipped)


def _coloured(grey: Provided) -> Provided:
    """Give each image two colours of its own: one for black, one for white, and mixtures for greys."""

    def repaint(images: Images, seed: int) -> Images:
        # Too many for memory, which is an error later; or for a network that takes grey images.
        if not isinstance(images, ImageSet) or images.images.shape[1] == 1:
            return images
        return replace(images, images=colour(images.images, torch.Generator().manual_seed(seed)))

    val = None if grey.val is None else repaint(grey.val, 2)
    return replace(grey, train=repaint(grey.train, 0), test=repaint(grey.test, 1), val=val)


def colour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Paint each greyscale image in two random colours, at least CONTRAST apart (Fig. 4 of McGill and Perona).

    Args:
        images: Uint8 [N, 3, H, W].
        generator: Draws the colours.

    Returns:
        Uint8 [N, 3, H, W].
    """
    dark, bright = torch.rand(2, len(images), 3, generator=generator)
    while (close := torch.linalg.vector_norm(dark - bright, dim=1) < CONTRAST).any():
        bright[close] = torch.rand(int(close.sum()), 3, generator=generator)
    dark, bright = (each.view(-1, 3, 1, 1) for each in (dark, bright))
    made: Tensor = (255 * torch.lerp(dark, bright, images.float() / 255)).round().to(torch.uint8)
    return made
