"""Many clients at once: the serving pool against an executor that computes whatever waits as one batch."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue

import torch
from torch import Tensor

from routekit.execution.executor import Answer, SparseExecutor
from routekit.execution.pool import Pool

TURNS = 5
Submit = Callable[[Tensor], "Future[Answer]"]


@dataclass(frozen=True)
class Serving:
    """What `clients` got, each asking for the next image when it has its answer. Latencies in milliseconds."""

    server: str
    clients: int
    images_per_second: float
    latency_p50: float
    latency_p99: float


class Batcher:
    """The plain way: what has come in while the last batch was computed is the next batch."""

    def __init__(self, executor: SparseExecutor) -> None:
        self.executor = executor
        self.device = next(executor.parameters()).device
        self.inbox: SimpleQueue[tuple[Tensor, Future[Answer]] | None] = SimpleQueue()
        self.worker = threading.Thread(target=self._work, name="routekit batcher", daemon=True)
        self.worker.start()

    def submit(self, image: Tensor) -> "Future[Answer]":
        """One image [C, H, W], normalised -> the promise of its answer."""
        answer: Future[Answer] = Future()
        self.inbox.put((image, answer))
        return answer

    def close(self) -> None:
        """Answer what was asked, then stop."""
        self.inbox.put(None)
        self.worker.join()

    def _work(self) -> None:
        going_on = True
        while going_on:
            waiting = [self.inbox.get()]
            while not self.inbox.empty():
                waiting.append(self.inbox.get())
            going_on = None not in waiting
            asked = [each for each in waiting if each is not None]
            if not asked:
                continue
            try:
                x = torch.stack([image for image, _ in asked])
                found = self.executor(x.to(self.device, memory_format=torch.channels_last))
            except Exception as error:  # whoever waits for these images is told
                for _, answer in asked:
                    answer.set_exception(error)
                continue
            for row, (_, answer) in enumerate(asked):
                answer.set_result(Answer(found.logits[row : row + 1], found.margins[row : row + 1]))


def bench_serving(executor: SparseExecutor, images: Tensor, *, clients: int, seconds: float) -> list[Serving]:
    """Serve `images` [N, C, H, W], normalised, again and again to `clients`, by both servers in turns of `seconds`."""
    names = ["plain", "pool"]
    latencies: dict[str, list[float]] = {name: [] for name in names}
    spent = dict.fromkeys(names, 0.0)
    for turn in range(TURNS):
        for name in names if turn % 2 else reversed(names):
            server = Pool(executor, batch=clients, capacity=clients) if name == "pool" else Batcher(executor)
            _drive(server.submit, images, clients, seconds / 10)  # to warm up
            started = time.perf_counter()
            latencies[name] += _drive(server.submit, images, clients, seconds)
            spent[name] += time.perf_counter() - started
            server.close()
    return [_summary(name, clients, latencies[name], spent[name]) for name in names]


def _summary(name: str, clients: int, latencies: list[float], spent: float) -> Serving:
    sorted_ = torch.tensor(latencies, dtype=torch.float64)
    return Serving(
        name,
        clients,
        len(latencies) / spent,
        1e3 * float(torch.quantile(sorted_, 0.5)),
        1e3 * float(torch.quantile(sorted_, 0.99)),
    )


def _drive(submit: Submit, images: Tensor, clients: int, seconds: float) -> list[float]:
    """Let `clients` ask for `seconds`; returns how long each of their images took, in seconds."""
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def client(number: int) -> None:
        at = number
        while at == number or time.perf_counter() < until:  # once, however short the time
            started = time.perf_counter()
            await asyncio.wrap_future(submit(images[at % len(images)]))
            latencies.append(time.perf_counter() - started)
            at += clients

    async def everybody() -> None:
        await asyncio.gather(*(client(number) for number in range(clients)))

    asyncio.run(everybody())
    return latencies
