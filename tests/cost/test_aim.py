"""What a ladder is aimed at: which wants go together, sizes in words, how exactly images tell a loss."""

import pytest
from pydantic import ValidationError

from routekit.cost.aim import Aim, check_exactness, parse_size
from routekit.errors import InputError


@pytest.mark.parametrize(
    ("text", "bytes_"), [("5MB", 5_000_000), ("800 kB", 800_000), ("1.5m", 1_500_000), ("42", 42), ("1g", 10**9)]
)
def test_sizes_in_words(text: str, bytes_: int) -> None:
    assert parse_size(text) == bytes_
    assert Aim(ms=1.0, max_size=text).bytes == bytes_


@pytest.mark.parametrize("text", ["", "MB", "-1", "0", "5 TB", "five"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValidationError, match="no size"):
        Aim(ms=1.0, max_size=text)


def test_one_aim_and_no_more() -> None:
    for given, said in (({}, "given: none"), ({"ms": 1, "macs": 2}, r"given: aim\.macs and aim\.ms")):
        with pytest.raises(InputError, match=said):
            Aim(**given).check()
    for wrong in ({"ms": 0}, {"ms": float("inf")}, {"speedup": 1}, {"max_drop": 0}, {"batch": 0}, {"runtime": "onx"}):
        with pytest.raises(ValidationError):
            Aim(**wrong)


def test_which_precisions_compete() -> None:
    assert Aim(ms=1).precisions == ("fp32", "int8")
    assert Aim(ms=1, runtime="torch").precisions == ("fp32", "bf16")
    assert Aim(macs=1).precisions == ("fp32",)  # int8 saves no multiply-adds
    assert (Aim(macs=1).where, Aim(ms=1).where) == ("torch", "onnx")
    assert Aim(ms=1, precision="int8").precisions == ("int8",)
    for runtime, known in (("torch", ("auto", "fp32", "bf16")), ("onnx", ("auto", "fp32", "int8"))):
        for precision in known:
            Aim(ms=1, precision=precision, runtime=runtime).check()
    with pytest.raises(InputError, match="fp32 or int8"):
        Aim(ms=1, precision="bf16").check()


def test_how_many_images_tell_a_loss() -> None:
    # One standard error at 5% of disagreement: 100 * sqrt(0.05 / 500) = 1.0 points = twice half a point.
    check_exactness(0.5, 500)
    with pytest.raises(InputError, match=r"499 validation images .* 1\.0 points, too coarse for that; 500 would do"):
        check_exactness(0.5, 499)


def test_aims_in_words() -> None:
    assert Aim(macs=1.234e8).describe() == "a mean of 1.23e+08 MACs"
    assert Aim(macs=1e8, max_size="5MB").describe() == "a mean of 1e+08 MACs, at most 5MB"
    assert Aim(ms=1.5, batch=8).describe() == "1.5 ms an image (onnx, batch 8, auto)"
    assert Aim(ms=1.5, max_size="5MB").describe() == "1.5 ms an image (onnx, batch 1, auto), at most 5MB"
    text = Aim(speedup=4, runtime="torch", precision="bf16").describe()
    assert text == "4 times as fast as the dense network (torch, batch 1, bf16)"
    assert Aim(max_drop=0.5, max_size="1MB", runtime="openvino").describe() == (
        "the fastest that loses at most 0.5 points (openvino, batch 1, auto), at most 1MB"
    )
    assert Aim(ms=1.0).bytes == float("inf")
