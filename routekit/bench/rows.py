"""The rows of a benchmark: networks in each runtime and precision, what they answer and how long they take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from routekit.bench.contest import Contender, Contest, Times
from routekit.bench.shipped import RUNTIMES, Shipped, check_runtime, size_of
from routekit.data.image_set import Images
from routekit.errors import RoutekitError, reason
from routekit.runtime.drive import Passes

# How many images are given to the other process at a time, and how many are timed, as whole batches.
CHUNK, TIMED = 512, 256
PRECISE, MIXED = "fp32", "mixed"


@dataclass
class Row:
    """A network in a runtime and a precision.

    Attributes:
        runtime: A name in `bench.shipped.RUNTIMES`.
        precision: "fp32", "bf16", "int8", or "mixed" where the passes of a ladder are in several.
        network: "dense", "routed", or "static" for a run in which nothing is decided.
        reason: Why it is not there; None if it is.
        contender: Its files.
        bytes: Of these.
        times: By batch size.
    """

    runtime: str
    precision: str
    network: str
    reason: str | None = None
    contender: Contender | None = None
    bytes: int = 0
    times: dict[int, Times] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name."""
        return f"{self.runtime} {self.precision} {self.network}"

    @property
    def is_reference(self) -> bool:
        """Whether it is the dense network in float32, with which the others of its runtime are compared."""
        return (self.precision, self.network) == (PRECISE, "dense")


@dataclass(frozen=True)
class Own:
    """The passes of a ladder as they were chosen.

    Attributes:
        runtime: For which runtime.
        precisions: Of each pass.
        folder: Their files, if they are not for torch.
    """

    runtime: str
    precisions: tuple[str, ...]
    folder: Path

    @property
    def precision(self) -> str:
        """The precision, if all passes have the same."""
        return self.precisions[0] if len({*self.precisions}) == 1 else MIXED

    def contender(self, shipped: Shipped) -> Contender:
        """How they are opened; `shipped` is the network that they are of."""
        if self.runtime == "torch":
            return shipped.contender("torch", self.precisions)
        return Contender(self.runtime, Passes(self.folder))


def write_rows(
    networks: Mapping[str, Shipped], names: Sequence[str], own: Own | None = None, only: Sequence[str] = ()
) -> list[Row]:
    """Write the files of networks for runtimes.

    Args:
        networks: The networks, as `Row.network` names them.
        names: The runtimes.
        own: The passes of a ladder, which are taken as they are.
        only: The precisions; empty for all.

    Returns:
        The rows; what cannot be had on this machine says why.
    """
    rows = []
    for name in names:
        mixed = [MIXED] if own is not None and (own.runtime, own.precision) == (name, MIXED) else []
        for precision in only or [*RUNTIMES[name], *mixed]:
            for network, shipped in networks.items():
                if precision == MIXED and network == "dense":
                    continue
                row = Row(name, precision, network)
                rows.append(row)
                try:
                    check_runtime(name)
                    if own is not None and (own.runtime, own.precision) == (name, precision) and network != "dense":
                        row.contender = own.contender(shipped)
                    else:
                        row.contender = shipped.contender(name, (precision,))
                    row.bytes = size_of(row.contender)
                except Exception as error:  # exporters, quantisers and compilers raise whatever they meet
                    row.reason = reason(error)
    return rows


def answer_rows(rows: Sequence[Row], images: Images, order: Tensor, contest: Contest, batch: int) -> dict[str, Tensor]:
    """Let rows answer images, batch by batch. What fails says why.

    Args:
        rows: The rows.
        images: The images.
        order: `[N]`, which images, in which order.
        contest: The process in which they answer.
        batch: How many images come at once.

    Returns:
        The classes `[N]` by the name of the row, of those that answered.
    """
    found: dict[str, list[Tensor]] = {row.name: [] for row in rows}
    for pixels, _ in images.batches(order, -(-CHUNK // batch) * batch):
        for row in rows:
            if (classes := _answer(row, pixels, contest, batch)) is not None:
                found[row.name].append(classes)
    return {row.name: torch.cat(found[row.name]) for row in rows if row.reason is None}


def time_rows(rows: Sequence[Row], images: Images, order: Tensor, contest: Contest, batch: int, seconds: float) -> None:
    """Time rows in turns on the same images. What cannot be opened for batches of this size says why.

    Args:
        rows: The rows.
        images: The images.
        order: `[N]`, which images, in which order.
        contest: The process in which they run.
        batch: How many images come at once.
        seconds: About how long each is timed.
    """
    count = max(TIMED, batch) if len(order) >= TIMED else -(-len(order) // batch) * batch
    places = order[torch.arange(count) % len(order)]
    pixels = torch.cat([part for part, _ in images.batches(places, CHUNK)])
    able: dict[str, Contender] = {}
    for row in rows:
        if row.contender is not None and _answer(row, pixels[:batch], contest, batch) is not None:
            able[row.name] = row.contender
    found = contest.times(able, pixels, batch, seconds) if able else {}
    for row in rows:
        if row.name in found:
            row.times[batch] = found[row.name]


def _answer(row: Row, pixels: Tensor, contest: Contest, batch: int) -> Tensor | None:
    """What a row answers, `[N]`; None if it is not there, or if it fails, and then it says why."""
    if row.contender is None or row.reason is not None:
        return None
    try:
        return contest.answers(row.contender, pixels, batch)
    except RoutekitError as error:
        row.reason = reason(error)
        return None
