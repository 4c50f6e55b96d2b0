"""Tiles on threads: each runs once, errors come out, BLAS is put back, and one thread suffices."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from numpyvit import threads
from numpyvit.threads import limit_threads, run_tiles, single_threaded_blas


@pytest.fixture(autouse=True)
def several_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads, whatever the machine has."""
    monkeypatch.setattr(threads, "available_cores", lambda: 3)


def run_on(expected: int, count: int = 6) -> bool:
    """Whether `count` tiles run on `expected` threads, no fewer and no more."""
    seen = set()
    together = threading.Barrier(expected, timeout=20)  # nobody goes on before all have come

    def tile(index: int) -> None:
        seen.add(threading.get_ident())
        together.wait()

    run_tiles(tile, count)
    return len(seen) == expected


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_every_tile_runs_once(count: int) -> None:
    done: list[int] = []
    run_tiles(done.append, count)
    assert sorted(done) == list(range(count))


def test_tiles_run_on_all_cores_unless_limited() -> None:
    assert run_on(3)
    assert run_on(2, count=2)
    with limit_threads(2):
        assert run_on(2)
        with limit_threads(1):
            assert run_on(1)
        assert run_on(2)
    assert run_on(3)


def test_tiles_of_a_tile_run_in_its_thread() -> None:
    inner: list[bool] = []
    run_tiles(lambda index: inner.append(run_on(1)), 4)
    assert inner == [True] * 4


def test_two_callers_at_a_time_both_finish() -> None:
    done: list[int] = []

    def tile(index: int) -> None:
        time.sleep(0.001)
        done.append(index)

    callers = [threading.Thread(target=run_tiles, args=(tile, 20)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(done) == sorted(4 * list(range(20)))


@pytest.mark.parametrize("limit", [1, 3])
@pytest.mark.parametrize("faulty", [0, 5])
def test_an_error_in_a_tile_is_raised_and_the_rest_is_left(faulty: int, limit: int) -> None:
    done: list[int] = []

    def tile(index: int) -> None:
        if index == faulty:
            raise KeyError("wrong")
        time.sleep(0.001)
        done.append(index)

    with limit_threads(limit), pytest.raises(KeyError, match="wrong"):
        run_tiles(tile, 1000)
    assert len(done) < 20
    run_tiles(done.append, 3)  # and the next ones run


def test_tiles_run_under_the_callers_errstate() -> None:
    def tile(index: int) -> None:
        time.sleep(0.005)
        np.float64(1) / np.float64(index // 5)

    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        run_tiles(tile, 6)
    with np.errstate(divide="ignore"):
        run_tiles(tile, 6)


@pytest.fixture
def blas(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A BLAS with four threads; the last entry is their number now."""
    counts = [4]
    functions = {"get_num_threads": lambda: counts[-1], "set_num_threads": counts.append}
    monkeypatch.setattr(threads, "_openblas", functions.get)
    return counts


def test_blas_has_one_thread_while_tiles_run_and_its_own_after(blas: list[int]) -> None:
    during: list[int] = []
    run_tiles(lambda index: during.append(blas[-1]), 3)
    assert during == [1] * 3
    assert blas == [4, 1, 4]


def test_blas_gets_its_threads_back_after_an_error(blas: list[int]) -> None:
    def fail(index: int) -> None:
        raise KeyError(index)

    with pytest.raises(KeyError):
        run_tiles(fail, 3)
    assert blas == [4, 1, 4]


def test_blas_keeps_its_threads_where_tiles_run_in_one(blas: list[int]) -> None:
    with limit_threads(1):
        run_tiles(lambda index: None, 3)
    assert blas == [4]


def test_without_openblas_the_tiles_run_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_openblas", lambda function: None)
    with single_threaded_blas() as held:
        assert not held
    assert run_on(1)


def test_numpys_own_openblas_is_found_and_obeys() -> None:
    get = threads._openblas("get_num_threads")
    if get is None:
        pytest.skip("NumPy was not built with OpenBLAS here, or it is not found")
    before = get()
    with single_threaded_blas() as held:
        assert held
        assert get() == 1
    assert get() == before


def test_contexts_that_overlap_leave_nothing_behind(blas: list[int]) -> None:
    cores = threads.most_threads()
    first, second = limit_threads(1), limit_threads(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert threads.most_threads() == 1
    second.__exit__(None, None, None)
    assert threads.most_threads() == cores

    one, other = single_threaded_blas(), single_threaded_blas()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert blas[-1] == 1
    other.__exit__(None, None, None)
    assert blas[-1] == 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no such call")
def test_helpers_keep_off_the_callers_core_and_the_caller_stays_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = os.sched_getaffinity(0)
    mine = min(cores)
    monkeypatch.setattr(threads, "_core", lambda: mine)
    together = threading.Barrier(3, timeout=20)
    seen: dict[int, set[int]] = {}

    def tile(index: int) -> None:
        seen[threading.get_ident()] = os.sched_getaffinity(0)
        together.wait()

    run_tiles(tile, 3)
    assert seen.pop(threading.get_ident()) == cores
    assert list(seen.values()) == [cores - {mine} or cores] * 2
    assert os.sched_getaffinity(0) == cores
