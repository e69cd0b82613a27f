"""What may be chance: the interval of a share of images, and a test between two networks on the same images."""

import math
from statistics import NormalDist

# Two-sided, 95%.
Z = NormalDist().inv_cdf(0.975)


def wilson(right: int, images: int) -> tuple[float, float]:
    """Compute Wilson's score interval of a share, 95% (Wilson, 1927).

    Args:
        right: How many images are answered rightly.
        images: Of how many.

    Returns:
        Its ends, fractions.
    """
    share, scale = right / images, 1 + Z**2 / images
    centre = share + Z**2 / (2 * images)
    half = Z * math.sqrt(share * (1 - share) / images + Z**2 / (4 * images**2))
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def mcnemar(one: int, other: int) -> float:
    """Compute McNemar's exact test: the two-sided p-value of a fair coin that falls `one` and `other` times.

    Args:
        one: How many images the first network alone answers rightly.
        other: How many the second one alone does.

    Returns:
        The p-value. It is 1 where the two never differ.
    """
    differ, term, tail = one + other, 1, 0
    for each in range(min(one, other) + 1):
        tail += term
        term = term * (differ - each) // (each + 1)  # the next binomial coefficient
    return min(1.0, float(2 * tail / 2**differ))
