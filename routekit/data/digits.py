"""The embedded default: real data that a dependency already ships."""

import torch

from routekit.data.image_set import ImageSet, resized, with_channels
from routekit.data.provided import Provided, Request, named_sets
from routekit.data.split import take_per_class

HELD_OUT = {"val": 30, "test": 40}
"""Images of each digit; the other 1,097 are for training."""


@named_sets.register("digits")
def digits(request: Request) -> Provided:
    """Read the 1,797 handwritten digits of scikit-learn, enlarged: 1,097 to train, 300 for val, 400 for test.

    The split is fixed, whatever the seed of a run, so that results can be compared.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] * (255 / 16)
    enlarged = resized(small, request.preprocessing).round().clamp(0, 255).to(torch.uint8)
    images = with_channels(enlarged, request.preprocessing.channels).contiguous()
    classes = tuple(str(digit) for digit in range(10))
    whole = ImageSet(images, torch.from_numpy(bunch.target).long(), classes, "digits")
    generator = torch.Generator().manual_seed(0)
    rest, test = take_per_class(whole.labels, torch.full((10,), HELD_OUT["test"]), generator)
    train, val = take_per_class(whole.labels[rest], torch.full((10,), HELD_OUT["val"]), generator)
    return Provided(whole.subset(rest[train]), whole.subset(test), whole.subset(rest[val]), flip=False, grey=True)
