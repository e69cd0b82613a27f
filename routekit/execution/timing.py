"""Timing contenders in turns, so that what disturbs one disturbs the others as well."""

import ctypes
import gc
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Call = Callable[[Tensor], object]

WARM_UP = 3
# At most this many batches for a contender, and at least this many calls on each: images differ in their routes, so
# that a median over all calls would be that of some image's route.
DISTINCT, ROUNDS = 32, 3
# A contender's turn lasts about so long (in seconds), but not more calls than that.
BLOCK, LONGEST = 0.15, 16
# Before a turn. The threads of a runtime go on spinning for tens of milliseconds after its last call, on cores that the
# next contender, with threads of its own, needs: without a rest each is timed beside the other, at half its speed.
REST = 0.06


@dataclass(frozen=True)
class Timing:
    """Milliseconds of single calls, batch by batch."""

    samples: list[list[float]]

    @property
    def typical(self) -> float:
        """Milliseconds a batch: the median of each batch's calls, averaged over the batches."""
        return statistics.fmean(statistics.median(calls) for calls in self.samples)

    @property
    def calls(self) -> int:
        """How many calls were timed."""
        return sum(map(len, self.samples))

    def quantile(self, share: float) -> float:
        """A quantile of all calls, milliseconds."""
        every = [call for calls in self.samples for call in calls]
        return float(torch.quantile(torch.tensor(every, dtype=torch.float64), share))


def in_turns(
    contenders: Mapping[str, Call], batches: Sequence[Tensor], *, seconds: float, rounds: int = ROUNDS
) -> dict[str, Timing]:
    """Time contenders on the same batches, in turns of a few calls: A B, B A, A B, ...

    Each turn begins with a rest and a call that is not timed.

    Args:
        contenders: What is called with a batch, by name.
        batches: Images `[B, C, H, W]` each.
        seconds: About how long it takes in all.
        rounds: How often each batch is timed at least.

    Returns:
        The times of each contender.
    """
    slowest = max(_warm_up(call, batches) for call in contenders.values())
    length = min(max(int(1e3 * BLOCK / slowest), 1), LONGEST)
    samples: dict[str, list[list[float]]] = {name: [[] for _ in batches] for name in contenders}
    order = list(contenders)
    started, done = time.perf_counter(), 0
    while done < rounds * len(batches) or time.perf_counter() - started < seconds:
        turn = [(done + place) % len(batches) for place in range(length)]
        for name in order:
            time.sleep(REST)
            contenders[name](batches[turn[0]])
            for place in turn:
                samples[name][place].append(_milliseconds(contenders[name], batches[place]))
        order.reverse()
        done += length
    return {name: Timing(samples[name]) for name in contenders}


def _warm_up(call: Call, batches: Sequence[Tensor]) -> float:
    """Call a few times; returns how long the quickest call took, milliseconds."""
    return min(_milliseconds(call, batches[turn % len(batches)]) for turn in range(WARM_UP))


def _milliseconds(call: Call, batch: Tensor) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    call(batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - started)


def peak_memory(make: Callable[[], Call], batch: Tensor, device: str) -> int | None:
    """Measure by how much a new instance and a call of it raise the memory in use, at the peak of the call.

    Weights and all that is computed count. What it took to build the instance does not.

    Args:
        make: Builds the instance.
        batch: Images `[B, C, H, W]`.
        device: "cpu" or "cuda".

    Returns:
        Bytes; None where the system gives no figure (a CPU's comes from Linux).
    """
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        call = make()
        call(batch)
        torch.cuda.reset_peak_memory_stats()
        call(batch)
        return torch.cuda.max_memory_allocated() - before
    with suppress(OSError, AttributeError):
        resident = _settled()
        call = make()
        call(batch)
        _settled()
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
        call(batch)
        peak = _resident("VmHWM")
        return None if resident is None or peak is None else max(0, peak - resident)
    return None


def _settled() -> int | None:
    """The memory in use when all that was freed has gone back to the system."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _resident("VmRSS")


def _resident(field: str) -> int | None:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return None if found is None else 1024 * int(found.group(1))
