import asyncio
from collections import deque
from concurrent.futures import Future

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import routekit
from routekit.errors import InputError
from routekit.execution import pool as pools
from routekit.execution.executor import Answer, SparseExecutor
from routekit.execution.fuse import fuse
from routekit.execution.pool import ENTRANCE, Pool, Request
from routekit.execution.prepare import prepare
from routekit.export.compact import compact
from routekit.network.network import RoutedNetwork
from tests.toy import toy_noise as images
from tests.toy import toy_routed as routed


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 30),
    offset=st.floats(-3, 3),
    batch=st.integers(1, 8),
    room=st.integers(0, 20),
    kind=st.sampled_from(["fc", "cnn"]),
)
def test_a_pool_answers_as_the_executor_does(
    seed: int, count: int, offset: float, batch: int, room: int, kind: str
) -> None:
    executor = SparseExecutor(prepare(routed(kind, seed, offset)))
    x = images(count, seed)
    with Pool(executor, batch=batch, capacity=batch + room) as pool:
        promises = [pool.submit(image) for image in x]
        answers = [promise.result(timeout=60) for promise in promises]
    want = executor(x)
    ties = want.margins.abs().min() < 1e-4  # rounding may differ with the batch
    assert ties or torch.equal(torch.cat([answer.routes for answer in answers]), want.routes)
    if not ties:
        torch.testing.assert_close(torch.cat([answer.logits for answer in answers]), want.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.cat([a.margins for a in answers]), want.margins, rtol=1e-4, atol=1e-4)


def test_awaiting_answers() -> None:
    executor = SparseExecutor(fuse(prepare(routed())))
    x = images(5)

    async def serve() -> list[Answer]:
        async with Pool(executor) as pool:
            return await asyncio.gather(*(pool(image) for image in x))

    assert torch.equal(torch.cat([answer.routes for answer in asyncio.run(serve())]), executor(x).routes)


def test_units_that_always_run_and_dropped_ones_are_passed() -> None:
    small = compact(routed(), torch.tensor([[True, False, True, True], [True, False, False, False]])).network
    executor, x = SparseExecutor(prepare(small)), images(7)
    with Pool(executor, batch=2) as pool:
        promises = [pool.submit(image) for image in x]
        routes = torch.cat([promise.result(timeout=60).routes for promise in promises])
    assert torch.equal(routes, executor(x).routes)


def test_images_meet_at_the_unit_that_they_run_next() -> None:
    """Two of four images run the first unit, then all the last: four at the stem, two, and four again."""
    network = routed()
    sizes: list[tuple[str, int]] = []
    for name, block in network.backbone.body.named_children():
        block.register_forward_pre_hook(lambda module, inputs, name=name: sizes.append((name, len(inputs[0]))))
    executor = SparseExecutor(network)
    plan = torch.tensor([[1.0, -1, -1, 1], [-1, -1, -1, 1], [1, -1, -1, 1], [-1, -1, -1, 1]])
    x = images(4)
    x[:, 0, 0, 0] = torch.arange(4)

    def survey(junctions: range, features: torch.Tensor, state: object = None) -> tuple[torch.Tensor, object]:
        return plan[marks(features)][:, junctions.start : junctions.stop], state

    marks = stub_features(network)
    network.routers.survey = survey  # type: ignore[method-assign, assignment]
    with Pool(executor, batch=4) as pool, pool.changed:  # what is asked while it cannot look comes together
        for image in x:
            pool.submit(image)
    pool.close()
    assert sizes == [("0", 2), ("3", 4)]


def stub_features(network: RoutedNetwork):  # type: ignore[no-untyped-def]
    """Let features carry the image's number through all blocks, in their first value."""
    network.view.stem = lambda x: x[:, :1].expand(-1, 4, -1, -1).clone()
    for unit in network.view.units:
        unit.block.forward = lambda x: x
        if unit.shortcut is not None:
            unit.shortcut = lambda x: x
    network.view.head = lambda x: x.flatten(1)[:, :3]
    return lambda features: features[:, 0, 0, 0].round().long()


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "PATIENCE", 3)
    pool = Pool(SparseExecutor(prepare(routed())), batch=2)
    pool.close()
    lonely, crowded = (0, 1), (0, 2)
    request = Request(images(1), images(1), images(1).numpy())
    pool.stations = {ENTRANCE: deque(), lonely: deque([request]), crowded: deque([request] * 9)}
    assert [pool._next() for _ in range(8)] == [crowded] * 3 + [lonely] + [crowded] * 3 + [lonely]


def test_the_entrance_is_shut_while_there_is_no_room() -> None:
    pool = Pool(SparseExecutor(prepare(routed())), batch=2, capacity=2)
    pool.close()
    request = Request(images(1), images(1), images(1).numpy())
    pool.stations = {ENTRANCE: deque([request] * 5), (0, 1): deque([request])}
    pool.under_way = 2
    assert pool._next() == (0, 1)
    pool.under_way = 1
    assert pool._next() == ENTRANCE


def test_a_failure_is_told_to_those_who_wait_and_to_nobody_else() -> None:
    network = prepare(routed())
    stem = network.view.stem
    network.view.stem = lambda x: stem(x) if x.abs().max() < 100 else 1 / 0  # type: ignore[assignment]
    x = images(3)
    with Pool(SparseExecutor(network), batch=1) as pool:
        bad = pool.submit(x[0] * 1e6)
        good = pool.submit(x[1])
        with pytest.raises(ZeroDivisionError):
            bad.result(timeout=60)
        assert good.result(timeout=60).logits.shape == (1, 3)


def test_who_gives_up_does_not_enter() -> None:
    with Pool(SparseExecutor(prepare(routed()))) as pool:
        with pool.changed:  # it cannot look yet
            given_up, kept = pool.submit(images(1)[0]), pool.submit(images(1)[0])
            assert given_up.cancel()
        assert kept.result(timeout=60).logits.shape == (1, 3)
    assert pool.under_way == 0


def test_what_a_pool_cannot_do_is_said() -> None:
    with pytest.raises(InputError, match="state"):
        Pool(SparseExecutor(routed(kind="rnn")))
    executor = SparseExecutor(prepare(routed()))
    with pytest.raises(InputError, match="8 at a time"):
        Pool(executor, batch=8, capacity=4)
    pool = Pool(executor)
    with pytest.raises(InputError, match=r"\[3, 9, 8\].*\[3, 8, 8\]"):
        pool.submit(torch.zeros(3, 9, 8))
    with pytest.raises(InputError, match="uint8 where the network takes float32"):
        pool.submit(torch.zeros(3, 8, 8, dtype=torch.uint8))
    pool.close()
    with pytest.raises(InputError, match="closed"):
        pool.submit(images(1)[0])


def test_a_pool_takes_what_optimize_gives() -> None:
    network, x = routed(), images(3)
    with Pool(routekit.optimize(network, x)) as pool:
        answer = pool.submit(x[0]).result(timeout=60)
    assert torch.equal(answer.routes, SparseExecutor(prepare(network))(x[:1]).routes)


def test_promises_are_the_standard_librarys() -> None:
    with Pool(SparseExecutor(prepare(routed()))) as pool:
        assert isinstance(pool.submit(images(1)[0]), Future)
