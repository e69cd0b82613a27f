"""What a ladder of forms is aimed at: a time, a speed-up, a loss of accuracy, or a mean of multiply-adds."""

import math
import re
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass as settings
from pydantic_core import PydanticCustomError

from routekit.errors import InputError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# The share of images of which one of two networks is right and the other is wrong, about: of a ResNet-18's forms that
# lose half a point, 4 to 6%. It says how exactly images tell a difference.
DISAGREEMENT = 0.05


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Aim:
    """What is wanted, and where it counts. Of the wants, one is given.

    Attributes:
        macs: The mean multiply-adds of an image.
        ms: The mean milliseconds of an image.
        speedup: The mean time of an image in the dense network, float32, over that in the network that is wanted.
        max_drop: The fastest that answers at most this share less of the images rightly than the dense network; in per
            cent of the images.
        max_size: The most that the files of all passes may have: "5MB", or bytes.
        runtime: In which runtime it counts; None: in onnxruntime, or for multiply-adds in torch.
        precision: In which precision passes compute; "auto": both that the runtime has compete.
        batch: How many images come at once.
        threads: The threads of the CPU; None for all cores.
    """

    macs: Positive | None = None
    ms: Positive | None = None
    speedup: Annotated[float | None, Field(gt=1, allow_inf_nan=False)] = None
    max_drop: Annotated[float | None, Field(gt=0, lt=100)] = None
    max_size: str | None = None
    runtime: Literal["onnx", "openvino", "torch"] | None = None
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    batch: Annotated[int, Field(ge=1, le=1024)] = 1
    threads: Annotated[int | None, Field(ge=1)] = None

    @field_validator("max_size", mode="before")
    @classmethod
    def _is_a_size(cls, value: object) -> object:
        if value is not None:
            try:
                parse_size(str(value))
            except InputError as error:
                raise PydanticCustomError("size", "{said}", {"said": str(error)}) from None
        return None if value is None else str(value)

    @property
    def wants(self) -> dict[str, float]:
        """What is wanted, by its name: one entry if the aim is complete."""
        wanted = {"macs": self.macs, "ms": self.ms, "speedup": self.speedup, "max_drop": self.max_drop}
        return {name: value for name, value in wanted.items() if value is not None}

    @property
    def where(self) -> str:
        """The runtime."""
        return self.runtime or ("onnx" if self.macs is None else "torch")

    @property
    def bytes(self) -> float:
        """The most bytes of the files."""
        return math.inf if self.max_size is None else parse_size(self.max_size)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that compete. For a budget of multiply-adds, of which all take the same number, float32."""
        if self.precision != "auto":
            return (self.precision,)
        if self.macs is not None:
            return ("fp32",)
        return ("fp32", "bf16") if self.where == "torch" else ("fp32", "int8")

    def check(self) -> None:
        """Check that it is one aim, which its runtime can meet. Raises InputError."""
        if len(self.wants) != 1:
            names = " and ".join(f"aim.{name}" for name in self.wants) or "none"
            raise InputError(f"one aim: aim.ms, aim.speedup, aim.max_drop or a target in MACs; given: {names}")
        known = ("fp32", "bf16") if self.where == "torch" else ("fp32", "int8")
        if self.precision != "auto" and self.precision not in known:
            raise InputError(f"aim.precision={self.precision}: passes in {self.where} are {' or '.join(known)}")

    def describe(self) -> str:
        """The aim in words."""
        where = f"{self.where}, batch {self.batch}, {self.precision}"
        size = "" if self.max_size is None else f", at most {self.max_size}"
        if self.macs is not None:
            return f"a mean of {self.macs:.3g} MACs{size}"
        if self.ms is not None:
            return f"{self.ms:g} ms an image ({where}){size}"
        if self.speedup is not None:
            return f"{self.speedup:g} times as fast as the dense network ({where}){size}"
        return f"the fastest that loses at most {self.max_drop:g} points ({where}){size}"


def parse_size(text: str) -> int:
    """Turn "5MB", "800 kB" or "5000000" into bytes. Raises InputError for anything else."""
    match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*)\s*([kmg]?)b?\s*", text, flags=re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise InputError(f"{text!r} is no size: write 5MB, 800kB or 5000000 (bytes)")
    return int(float(match[1]) * {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}[match[2].upper()])


def check_exactness(max_drop: float, images: int) -> None:
    """Check that validation images can tell a loss of accuracy.

    Args:
        max_drop: The loss, in per cent of the images.
        images: How many there are.

    Raises:
        InputError: They are too few: one standard error is more than twice the loss.
    """
    error = 100 * math.sqrt(DISAGREEMENT / images)
    if error <= 2 * max_drop:
        return
    raise InputError(
        f"aim.max_drop={max_drop:g}: {images} validation images tell accuracies apart to about {error:.1f} points, too "
        f"coarse for that; {math.ceil(DISAGREEMENT / (2 * max_drop / 100) ** 2)} would do"
    )
