"""The serving pool: images that come one by one are computed together wherever their routes meet."""

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from routekit.errors import InputError
from routekit.execution.executor import Answer, SparseExecutor, ask_exit, ask_units, take
from routekit.execution.measured import MeasuredExecutor
from routekit.routing.router import RecurrentRouters

# A place where images wait: (segment, unit in it that they run next, by which sink), or its end, or the entrance.
Station = tuple[int, int, int]
ENTRANCE: Station = (-1, 0, 0)
# How many times others may be served before a station where somebody waits.
PATIENCE = 32


@dataclass
class Request:
    """An image on its way: its features where it waits, its margins so far, and the promise of its answer."""

    image: Tensor
    features: Tensor
    margins: np.ndarray
    answer: "Future[Answer]" = field(default_factory=Future)


class Pool:
    """Continuous batching for depth: a batch is made anew at each unit, of all images that run it next.

    In a batch that stays together, each unit runs for few of the images; here, images wait at the unit that they run
    next until there are many. At most `batch` images are computed at a time; at most `capacity` are under way, the
    others wait outside. `executor` is what `routekit.optimize` gives.

    >>> async with Pool(optimize(network)) as pool:
    ...     answers = await asyncio.gather(*(pool(image) for image in images))

    Raises InputError for routers that carry a state from unit to unit.
    """

    def __init__(self, executor: SparseExecutor | MeasuredExecutor, *, batch: int = 16, capacity: int = 64) -> None:
        if isinstance(executor, MeasuredExecutor):
            executor = executor.sparse
        if not 1 <= batch <= capacity:
            raise InputError(f"a pool for {capacity} images cannot compute {batch} at a time")
        if isinstance(executor.network.routers, RecurrentRouters):
            raise InputError("a pool cannot serve routers that carry a state from unit to unit")
        self.network, self.segments = executor.network, executor.segments
        self.device = next(self.network.parameters()).device
        self.batch, self.capacity = batch, capacity
        self.stations: dict[Station, deque[Request]] = {ENTRANCE: deque()}
        self.passed: dict[Station, int] = {}
        self.under_way = 0
        self.changed = threading.Condition()
        self.closed = False
        self.worker = threading.Thread(target=self._work, name="routekit pool", daemon=True)
        self.worker.start()

    async def __call__(self, image: Tensor) -> Answer:
        """One image [C, H, W], normalised -> its answer, a batch of one."""
        return await asyncio.wrap_future(self.submit(image))

    def submit(self, image: Tensor) -> "Future[Answer]":
        """One image [C, H, W], normalised -> the promise of its answer. From any thread.

        Raises InputError for an image of another size or type than float32, and after `close`.
        """
        size = self.network.view.spec.input_size
        if image.dtype != torch.float32:
            raise InputError(f"an image of {str(image.dtype).removeprefix('torch.')} where the network takes float32")
        if image.shape != size:
            raise InputError(f"an image of {list(image.shape)} where the network takes {list(size)}")
        x = image.unsqueeze(0).to(self.device, memory_format=torch.channels_last)
        request = Request(x, x, np.full((1, len(self.network.columns)), -np.inf, dtype=np.float32))
        with self.changed:
            if self.closed:
                raise InputError("the pool is closed")
            self.stations[ENTRANCE].append(request)
            self.changed.notify()
        return request.answer

    def close(self) -> None:
        """Answer what was asked, then stop."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.worker.join()

    async def __aenter__(self) -> "Pool":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        await asyncio.to_thread(self.close)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.closed or any(self.stations.values()))
                if not any(self.stations.values()):
                    return
                station = self._next()
                waiting = self.stations[station]
                room = self.capacity - self.under_way if station == ENTRANCE else self.batch
                requests = [waiting.popleft() for _ in range(min(self.batch, room, len(waiting)))]
                if station == ENTRANCE:
                    # Whoever gave up has not entered; whoever has, is answered.
                    requests = [request for request in requests if request.answer.set_running_or_notify_cancel()]
                    self.under_way += len(requests)
            if not requests:
                continue
            try:
                with torch.inference_mode():
                    self._serve(station, requests)
            except Exception as error:  # whoever waits for these images is told
                unanswered = [request for request in requests if not request.answer.done()]
                self.under_way -= len(unanswered)
                for request in unanswered:
                    request.answer.set_exception(error)

    def _next(self) -> Station:
        """The station where most wait, of equals the first, whose images may meet others later; in time, each."""
        open_ = [
            station
            for station, waiting in self.stations.items()
            if waiting and (station != ENTRANCE or self.under_way < self.capacity)
        ]
        chosen = max(
            open_,
            key=lambda station: (
                self.passed.get(station, 0) >= PATIENCE,
                min(len(self.stations[station]), self.batch),
                -station[0],
                -station[1],
            ),
        )
        for station in open_:
            self.passed[station] = 0 if station == chosen else self.passed.get(station, 0) + 1
        return chosen

    def _serve(self, station: Station, requests: list[Request]) -> None:
        """Compute what all `requests` wait for, and send each to where it waits next."""
        x = torch.cat([request.features for request in requests])
        number, at, sink = station
        if station == ENTRANCE:
            self._enter(0, self.network.view.stem(x), requests)
            return
        segment = self.segments[number]
        if at == len(segment.units):
            self._leave(number, segment.units[-1].take(x, -1), requests)
            return
        x = segment.units[at].take(x, sink)
        rest = segment.junctions[at + 1 :]
        if rest:
            self._ask(rest, x, requests)
            self._send(number, at + 1, x, requests)
        else:
            self._leave(number, x, requests)

    def _enter(self, number: int, x: Tensor, requests: list[Request]) -> None:
        """Bring images to the beginning of a segment, through what all run, to the end of the network."""
        if number == len(self.segments):
            images = torch.cat([request.image for request in requests])
            self._answer(self.network.conclude(x, images), requests)
        elif not self.segments[number].junctions:
            self._leave(number, self.segments[number].units[0].run(x), requests)
        else:
            self._ask(self.segments[number].junctions, x, requests)
            self._send(number, 0, x, requests)

    def _leave(self, number: int, x: Tensor, requests: list[Request]) -> None:
        """Bring images from the end of a segment past its exit, if there is one, to the next; answer those who stop."""
        leaving = self.segments[number].exit
        if leaving is not None:
            logits, onwards = ask_exit(leaving, x)
            column = len(self.network.layout.sections) + self.network.exits.index(leaving)
            for request, margin in zip(requests, onwards, strict=True):
                request.margins[0, column] = margin
            stop, go = ((onwards < 0).nonzero()[0], (onwards >= 0).nonzero()[0])
            self._answer(logits[torch.from_numpy(stop)], [requests[row] for row in stop])
            if not len(go):
                return
            x, requests = take(x, go), [requests[row] for row in go]
        self._enter(number + 1, x, requests)

    def _answer(self, logits: Tensor, requests: list[Request]) -> None:
        self.under_way -= len(requests)
        for row, request in enumerate(requests):
            request.answer.set_result(Answer(logits[row : row + 1], torch.from_numpy(request.margins)))

    def _ask(self, junctions: range, x: Tensor, requests: list[Request]) -> None:
        routers = self.network.routers
        margins, _ = ask_units(routers, junctions, x)
        for row, request in enumerate(requests):
            request.margins[0, routers.columns(junctions)] = margins[row]

    def _send(self, number: int, at: int, x: Tensor, requests: list[Request]) -> None:
        """Let each image wait at the next unit of the segment that it runs, or at the segment's end."""
        segment, routers = self.segments[number], self.network.routers
        own = routers.columns(segment.junctions[at:])
        for row, request in enumerate(requests):
            request.features = x[row : row + 1]
            asked = request.margins[0, own] >= 0
            ahead, sink = divmod(int(asked.argmax()) if asked.any() else len(asked), routers.width)
            self.stations.setdefault((number, at + ahead, sink), deque()).append(request)
