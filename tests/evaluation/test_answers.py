"""Which images were right, written and read again."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from routekit.evaluation.answers import pack, unpack


def test_the_first_image_is_the_highest_bit() -> None:
    assert pack(torch.tensor([True, False, False, False, False, False, False, True, True])) == "gYA="  # 0x81 0x80


@given(st.lists(st.booleans(), min_size=1))
def test_what_is_packed_is_unpacked(right: list[bool]) -> None:
    assert unpack(pack(torch.tensor(right)), len(right)).tolist() == right


def test_answers_of_another_number_of_images_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bits are not of 17 images"):
        unpack(pack(torch.ones(16, dtype=torch.bool)), 17)
