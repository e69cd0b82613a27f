"""Timing contenders in turns, so that what disturbs one disturbs the others as well."""

import ctypes
import gc
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Call = Callable[[Tensor], object]

WARM_UP = 3
# Of one cell of the table, per contender: enough for a median, and no longer than a user waits.
FEWEST, MOST, SECONDS = 7, 400, 6.0
# A contender's turn lasts about so long (in seconds), but not more calls than that.
BLOCK, LONGEST = 0.15, 16
# Before a turn. The threads of a runtime go on spinning for tens of milliseconds after its last call, on cores that the
# next contender, with threads of its own, needs: without a rest each is timed beside the other, at half its speed.
REST = 0.06


@dataclass(frozen=True)
class Timing:
    """Milliseconds of single calls."""

    samples: list[float]

    @property
    def median(self) -> float:
        """The middle sample, milliseconds."""
        return self.quantile(0.5)

    def quantile(self, share: float) -> float:
        """A quantile of the samples, milliseconds."""
        return float(torch.quantile(torch.tensor(self.samples, dtype=torch.float64), share))


def in_turns(
    contenders: Mapping[str, Call], batches: Sequence[Tensor], *, seconds: float = SECONDS
) -> dict[str, Timing]:
    """Call each contender on the same batches, in turns of a few calls: A B, B A, A B, ...

    Each turn begins with a rest and a call that is not timed. How often depends on how long a round takes: about
    `seconds` in all.
    """
    slowest = max(_warm_up(call, batches) for call in contenders.values())
    length = min(max(int(1e3 * BLOCK / slowest), 1), LONGEST)
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    started, done = time.perf_counter(), 0
    while done < FEWEST or (done < MOST and time.perf_counter() - started < seconds):
        turn = [batches[(done + place) % len(batches)] for place in range(length)]
        for name in order:
            time.sleep(REST)
            contenders[name](turn[0])
            samples[name] += [_milliseconds(contenders[name], batch) for batch in turn]
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


def peak_memory(make: Callable[[], Call], batch: Tensor) -> int | None:
    """Measure by how many bytes a new instance and its first call raise the memory in use, at the peak.

    Weights and all that is computed are in it. None where the system does not say (the CPU's is asked of Linux).
    """
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        make()(batch)
        return torch.cuda.max_memory_allocated() - before
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed goes back, so that its use again is seen
        resident = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
        make()(batch)
        peak = _resident("VmHWM")
        return None if resident is None or peak is None else max(0, peak - resident)
    return None


def _resident(field: str) -> int | None:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return None if found is None else 1024 * int(found.group(1))
