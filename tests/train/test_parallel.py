from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.train import TreeSum, WorkerPool, available_cores, parallel
from numpyvit.train.parallel import single_threaded_blas

COUNTS = range(1, 21)


def values_of(count, dtype=np.float64):
    """Numbers of very different size, so that every order of adding them rounds differently."""
    rng = np.random.default_rng(count)
    values = rng.standard_normal((count, 2, 3)) * 10.0 ** rng.integers(-6, 7, (count, 2, 3))
    return values.astype(dtype)


def tree_sum(values, order):
    tree = TreeSum(len(values))
    for index in order:
        assert tree.total is None
        tree.add(index, [values[index].copy(), values[index, 0].copy()])
    return tree.total


def in_pairs(values):
    """The same tree, level by level."""
    level = list(values)
    while len(level) > 1:
        pairs = [level[i] + level[i + 1] for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) - len(level) % 2 :]
    return level[0]


def blas_threads():
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    pools = threadpoolctl.threadpool_info()
    return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]


@pytest.mark.parametrize("count", COUNTS)
def test_a_tree_sum_is_the_plain_sum(count):
    values = values_of(count)
    whole, first = tree_sum(values, range(count))
    scale = float(np.linalg.norm(values))
    assert_close(whole, values.sum(0), scale=scale)
    assert_close(first, values[:, 0].sum(0), scale=scale)


@pytest.mark.parametrize("count", COUNTS)
def test_a_tree_sum_has_the_same_bits_for_every_order_of_arrival(count, rng):
    values = values_of(count, np.float32)
    expected = in_pairs(values)
    for order in [range(count), reversed(range(count)), *rng.permuted([range(count)] * 20, axis=1)]:
        assert_same_bits(tree_sum(values, order)[0], expected)


def test_a_tree_sum_differs_from_a_sum_in_order_so_that_the_test_means_something():
    values = values_of(20, np.float32)
    in_order = np.zeros((2, 3), np.float32)
    for value in values:
        in_order += value
    assert in_order.tobytes() != in_pairs(values).tobytes()


def test_threads_that_add_at_the_same_time_give_the_same_bits(rng):
    values = values_of(64, np.float32)
    expected = in_pairs(values)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            tree, order = TreeSum(64), rng.permutation(64)
            threads = [
                threading.Thread(
                    target=lambda part, tree=tree: [tree.add(i, [values[i].copy()]) for i in part],
                    args=(order[start::8],),
                )
                for start in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert_same_bits(tree.total[0], expected)
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("count", [7, 31, 100, 256])
def test_few_partial_sums_wait_however_the_workers_overtake_one_another(workers, count, rng):
    levels = (count - 1).bit_length()
    for _ in range(10):
        tree = TreeSum(count)
        running, coming, most = list(range(min(workers, count))), workers, 0
        slow = running[0]  # one worker that is stuck until all else is done
        while running:
            free = [index for index in running if index != slow] or running
            done = free[rng.integers(len(free))]
            running.remove(done)
            tree.add(done, [np.ones(1)])
            most = max(most, len(tree._waiting))
            if coming < count:
                running.append(coming)
                coming += 1
        assert tree.total is not None
        assert tree.total[0].item() == count
        assert most <= levels * max(workers, 1)


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_a_pool_gives_the_tree_sum_with_any_number_of_workers(workers):
    values = values_of(13, np.float32)

    def task(index):
        time.sleep(0.001 * (index % 3))
        return [values[index].copy()]

    with WorkerPool(workers) as pool:
        assert pool.workers == workers
        assert_same_bits(pool.sum(task, 13)[0], in_pairs(values))
        assert_same_bits(pool.sum(task, 1)[0], values[0])


def test_a_pool_really_works_in_parallel():
    barrier = threading.Barrier(2, timeout=10)

    def task(index):
        barrier.wait()  # passes only when two tasks are at it
        return [np.ones(1)]

    with WorkerPool(2) as pool:
        assert pool.sum(task, 4)[0].item() == 4


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_an_error_in_a_worker_is_raised_and_the_pool_stays_usable(workers):
    def task(index):
        if index >= 4:
            raise KeyError(f"task {index}")
        return [np.ones(1)]

    with WorkerPool(workers) as pool:
        with pytest.raises(KeyError, match="task 4"):
            pool.sum(task, 30)
        assert pool.sum(task, 4)[0].item() == 4


def test_after_an_error_tasks_that_wait_are_not_begun():
    begun = []

    def task(index):
        begun.append(index)
        if index == 0:
            raise ValueError("no")
        time.sleep(0.01)
        return [np.ones(1)]

    with WorkerPool(2) as pool, pytest.raises(ValueError, match="no"):
        pool.sum(task, 200)
    assert len(begun) < 100


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_run_under_the_callers_errstate(workers):
    def overflow(index):
        return [np.full(1, 1e300) * 1e300]

    with WorkerPool(workers) as pool:
        with np.errstate(over="ignore"):
            assert np.isinf(pool.sum(overflow, 2)[0])
        with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
            pool.sum(overflow, 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_micro_batches_are_an_error(workers):
    with WorkerPool(workers) as pool, pytest.raises(ValueError, match="at least 1 micro-batch"):
        pool.sum(lambda index: [np.ones(1)], 0)


@pytest.mark.parametrize("workers", [0, -2])
def test_a_pool_needs_a_worker(workers):
    with pytest.raises(ValueError, match=f"at least 1 worker, got {workers}"):
        WorkerPool(workers)


def test_as_many_workers_as_cores_are_the_default():
    assert WorkerPool().workers == available_cores() >= 1


def test_blas_is_held_to_one_thread_while_the_pool_is_open_and_let_go_after():
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with WorkerPool(2):
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
        with pytest.raises(ZeroDivisionError), WorkerPool(1):
            _ = 1 / 0
        assert blas_threads() == before


def test_a_pools_threads_end_with_it():
    before = set(threading.enumerate())
    with WorkerPool(3) as pool:
        pool.sum(lambda index: [np.ones(1)], 9)
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before


def test_without_threadpoolctl_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with single_threaded_blas():
        pass
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "set OPENBLAS_NUM_THREADS=1 before starting" in printed.err
    assert "pip install threadpoolctl" in printed.err


WITHOUT_THREADPOOLCTL = """
import sys
sys.modules["threadpoolctl"] = None
import numpy as np
from numpyvit.data import load_dataset
from numpyvit.train import RunConfig, WorkerPool, build_model, recipe, set_gradients
data = load_dataset("shapes", "test", count=80)
settings = recipe("tutorial")
model = build_model(RunConfig(recipe=settings), data).train()
images = settings.normalize()(data.images(np.arange(80)), np.random.default_rng(0))
found = []
for workers in (1, 2, 2, 2):
    with WorkerPool(workers) as pool:
        result = set_gradients(model, images, data.labels, pool, seed=(0, 0))
    gradients = [parameter.grad.tobytes() for parameter in model.parameters()]
    found.append((result.loss_sum, gradients))
print(all(each == found[0] for each in found))
"""


@pytest.mark.parametrize("blas_threads", ["1", "2"])
def test_without_threadpoolctl_any_number_of_workers_gives_the_same_bits(repository, blas_threads):
    path = [str(repository), os.environ.get("PYTHONPATH", "")]
    variables = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THREADPOOLCTL],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            **dict.fromkeys(variables, blas_threads),
        },
        check=False,
    )
    assert done.stdout == "True\n", done.stderr


def test_memory_options_are_set_where_the_c_library_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[int, int]] = []

    class Library:
        @staticmethod
        def mallopt(option: ctypes.c_int, size: ctypes.c_int) -> int:
            calls.append((option.value, size.value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    parallel.keep_freed_memory()
    assert sorted(option for option, _ in calls) == [-3, -2, -1]
    assert all(size > 0 for _, size in calls)


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert parallel.keep_freed_memory() is None
