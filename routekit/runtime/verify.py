"""Does an exported file do what the network does? Image by image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from routekit.data.augment import normalize
from routekit.data.decode import decode
from routekit.errors import ExportError
from routekit.runtime.runtime import Runtime

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Verification:
    """What was compared: how many images, and the largest difference between logits."""

    images: int
    largest: float


def agreement(exported: Runtime, original: Runtime, paths: Sequence[str], *, batch_size: int) -> float:
    """Compare the classes of a file of lower precision with those of the network.

    Args:
        exported: The file.
        original: The network.
        paths: The image files.
        batch_size: How many images at a time.

    Returns:
        The share of the images that get the same class.
    """
    spec, same = original.description.spec, 0
    for start in range(0, len(paths), batch_size):
        images = normalize(decode(list(paths[start : start + batch_size]), spec.preprocessing), spec.mean, spec.std)
        same += int((exported(images).logits.argmax(dim=1) == original(images).logits.argmax(dim=1)).sum())
    return same / len(paths)


def verify(exported: Runtime, original: Runtime, paths: Sequence[str], *, batch_size: int) -> Verification:
    """Run image files through two runtimes and compare decisions, top-1 classes and logits.

    Logits may differ by 1e-4, absolute and relative.

    Args:
        exported: What is checked.
        original: The network itself.
        paths: Image files.
        batch_size: How many images at a time.

    Returns:
        What was compared.

    Raises:
        ExportError: An image comes out differently; the first one is named.
    """
    spec = original.description.spec
    largest = 0.0
    for start in range(0, len(paths), batch_size):
        batch = list(paths[start : start + batch_size])
        images = normalize(decode(batch, spec.preprocessing), spec.mean, spec.std)
        got, want = exported(images), original(images)
        difference = (got.logits - want.logits).abs()
        wrong = {
            "takes another route": (got.routes != want.routes).any(dim=1),
            "gets another class": got.logits.argmax(dim=1) != want.logits.argmax(dim=1),
            "gets other logits": (difference > TOLERANCE * (1 + want.logits.abs())).any(dim=1),
        }
        any_wrong = torch.stack(list(wrong.values())).any(dim=0)
        if any_wrong.any():
            row = int(any_wrong.int().argmax())
            what = next(words for words, rows in wrong.items() if rows[row])
            raise ExportError(
                f"the exported file is not the network: {batch[row]} {what} (logits differ by up to "
                f"{float(difference[row].max()):.1e}), in a batch of {len(batch)}, after {start + row} equal images"
            )
        largest = max(largest, float(difference.max()))
    return Verification(len(paths), largest)
