from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits
from train import pool_tasks

from numpyvit.train import TreeSum, WorkerPool, available_cores, memory, parallel

COUNTS = range(1, 21)


def values_of(count, dtype=np.float64):
    """Numbers of very different size, so that every order of adding them rounds differently."""
    rng = np.random.default_rng(count)
    values = rng.standard_normal((count, 2, 3)) * 10.0 ** rng.integers(-6, 7, (count, 2, 3))
    return values.astype(dtype)


def tree_sum(values, order):
    tree = TreeSum(len(values))
    for index in order:
        with pytest.raises(RuntimeError, match="too early"):
            _ = tree.total
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
        assert tree.total[0].item() == count
        assert most <= levels * max(workers, 1)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_pool_gives_the_tree_sum_with_any_number_of_workers(workers):
    values = values_of(13, np.float32)

    def arguments(index):
        return values[index].copy(), 0.001 * (index % 3)

    with WorkerPool(workers) as pool:
        assert pool.workers == workers
        found = pool.sum(pool_tasks.after_a_while, arguments, 13)
        assert_same_bits(found[0], in_pairs(values))
        assert_same_bits(pool.sum(pool_tasks.after_a_while, arguments, 1)[0], values[0])


def test_a_pools_workers_are_processes_that_work_at_the_same_time(tmp_path):
    with WorkerPool(2) as pool:
        meeting = pool_tasks.Meeting(tmp_path, 2)  # passes only when two processes are there
        pids = pool.sum(meeting, lambda index: (), 2)[0]
    assert pids.sum() == 2
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_an_error_in_a_worker_is_raised_and_the_pool_stays_usable(workers):
    with WorkerPool(workers) as pool:
        with pytest.raises(KeyError, match="task 4"):
            pool.sum(pool_tasks.fail_from_4, lambda index: (index,), 30)
        assert pool.sum(pool_tasks.fail_from_4, lambda index: (index,), 4)[0].item() == 4


def test_an_error_in_another_process_brings_its_trace_and_what_cannot_be_sent_becomes_text():
    with WorkerPool(2) as pool:
        with pytest.raises(ValueError, match="not in the child") as raised:
            pool.sum(pool_tasks.FailElsewhere(os.getpid()), lambda index: (ValueError,), 20)
        assert 'raise kind("not in the child")' in raised.value.__notes__[0]
        task = pool_tasks.FailElsewhere(os.getpid())
        with pytest.raises(RuntimeError, match="UnsendableError: not in the child"):
            pool.sum(task, lambda index: (pool_tasks.UnsendableError,), 20)


def test_after_an_error_no_more_tasks_are_begun():
    begun = []

    def arguments(index):
        begun.append(index)
        return (index,)

    with WorkerPool(2) as pool, pytest.raises(KeyError):
        pool.sum(pool_tasks.fail_from_4, arguments, 200)
    assert len(begun) < 10


def test_a_worker_process_that_is_killed_is_one_clear_error():
    with WorkerPool(2) as pool, pytest.raises(RuntimeError, match="worker process ended with"):
        pool.sum(pool_tasks.DieElsewhere(os.getpid()), lambda index: (), 20)


def test_a_task_that_cannot_be_sent_is_one_clear_error():
    with WorkerPool(2) as pool, pytest.raises(TypeError, match="at the top of a module"):
        pool.sum(lambda: [np.ones(1)], lambda index: (), 2)


def test_a_task_of_a_module_that_the_process_does_not_have_is_the_first_calls_error(monkeypatch):
    module = types.ModuleType("only_here")
    exec("def task(): return []", module.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", module)
    told = r"cannot be built in another process.*only_here"
    with WorkerPool(2) as pool, pytest.raises(TypeError, match=told):
        pool.sum(module.task, lambda index: time.sleep(0.01) or (), 200)


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_run_under_the_callers_errstate(workers):
    with WorkerPool(workers) as pool:
        with np.errstate(over="ignore"):
            assert np.isinf(pool.sum(pool_tasks.overflow, lambda index: (), 4)[0])
        with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
            pool.sum(pool_tasks.overflow, lambda index: (), 4)


def test_what_a_task_prints_does_not_disturb_the_pipe(capfd):
    with WorkerPool(2) as pool:
        assert pool.sum(pool_tasks.chatty, lambda index: (), 8)[0].item() == 8


@pytest.mark.parametrize("workers", [1, 2])
def test_no_micro_batches_are_an_error(workers):
    with WorkerPool(workers) as pool, pytest.raises(ValueError, match="at least 1 micro-batch"):
        pool.sum(pool_tasks.overflow, lambda index: (), 0)


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


def test_a_pools_threads_and_processes_end_with_it():
    before = set(threading.enumerate())
    with WorkerPool(3) as pool:
        pool.sum(pool_tasks.chatty, lambda index: (), 9)
        processes = [worker._process for worker in pool._others]
        assert len(processes) == 2
        assert all(process.poll() is None for process in processes)
    assert set(threading.enumerate()) == before
    assert [process.returncode for process in processes] == [0, 0]


def test_a_worker_process_ends_when_the_one_that_started_it_is_killed(tmp_path):
    program = (
        "import os, signal\n"
        "from numpyvit.train import WorkerPool\n"
        "pool = WorkerPool(2).__enter__()\n"
        "print(pool._others[0]._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    worker = int(done.stdout)
    for _ in range(500):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.02)
    pytest.fail("the worker process outlived its parent")


def test_with_a_blas_that_cannot_be_held_one_line_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(parallel, "single_threaded_blas", lambda: contextlib.nullcontext(False))
    with WorkerPool(1):
        pass
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "MKL_NUM_THREADS=1" in printed.err


WITH_A_FREE_BLAS = """
import contextlib
import numpy as np
from numpyvit.data import load_dataset
from numpyvit.train import RunConfig, WorkerPool, new_model, parallel, recipe, set_gradients
parallel.single_threaded_blas = lambda: contextlib.nullcontext(False)
data = load_dataset("shapes", "test", count=80)
settings = recipe("tutorial")
model = new_model(RunConfig(recipe=settings), data).train()
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
def test_any_number_of_workers_gives_the_same_bits_though_blas_keeps_its_threads(
    repository, blas_threads
):
    path = [str(repository), os.environ.get("PYTHONPATH", "")]
    variables = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_FREE_BLAS],
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


@pytest.mark.parametrize(("most", "tried"), [(1 << 30, [28]), (1 << 25, [28, 25])])
def test_memory_options_are_set_where_the_c_library_takes_them(most, tried, monkeypatch):
    calls = []

    def mallopt(option, size_bytes):
        calls.append((option, size_bytes))
        return int(option != -3 or size_bytes <= most)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: types.SimpleNamespace(mallopt=mallopt))
    memory.keep_freed_memory()
    assert calls[:-2] == [(-3, 1 << bits) for bits in tried]  # without it the others do harm
    assert [option for option, _ in calls[-2:]] == [-1, -2]


def test_no_memory_option_is_set_where_the_first_is_refused(monkeypatch):
    calls = []
    refusing = types.SimpleNamespace(mallopt=lambda *option: calls.append(option) or 0)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: refusing)
    memory.keep_freed_memory()
    assert {option for option, _ in calls} == {-3}


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert memory.keep_freed_memory() is None


@pytest.mark.skipif(not hasattr(os, "getpgid"), reason="process groups are POSIX's")
def test_a_ctrl_c_at_the_terminal_does_not_reach_the_worker_processes():
    with WorkerPool(2) as pool:
        worker = pool._others[0]._process.pid
        assert os.getpgid(worker) == worker != os.getpgid(0)


def test_a_pool_works_where_pipes_may_not_be_widened(monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="pipes cannot be widened here")

    def refuse(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with WorkerPool(2) as pool:
        assert pool.sum(pool_tasks.chatty, lambda index: (), 8)[0].item() == 8


def test_a_process_that_does_not_end_by_itself_is_killed(monkeypatch):
    monkeypatch.setattr("numpyvit.train.process._PATIENCE_S", 0.05)
    with WorkerPool(2) as pool:
        process = pool._others[0]._process
        process.send_signal(signal.SIGSTOP)
    assert process.returncode == -signal.SIGKILL


def test_arguments_that_cannot_be_sent_are_one_clear_error():
    def arguments(index):
        time.sleep(0.01)
        return (lambda: None,)

    with WorkerPool(2) as pool, pytest.raises(TypeError, match="can be sent to another process"):
        pool.sum(pool_tasks.chatty_with, arguments, 50)


IN_MAIN = """
import numpy as np
from numpyvit.train import WorkerPool
def task(index):
    import time; time.sleep(0.01)
    return [np.ones(1)]
with WorkerPool(2) as pool:
    try:
        pool.sum(task, lambda index: (index,), 200)
    except TypeError as error:
        print(error)
"""


def test_a_task_of_the_script_itself_is_one_clear_error():
    done = subprocess.run(
        [sys.executable, "-c", IN_MAIN], capture_output=True, text=True, check=False
    )
    assert "in a module that can be imported, or take 1 worker" in done.stdout, done.stderr


def test_a_worker_does_not_import_what_lies_in_the_working_folder(tmp_path, monkeypatch):
    for name in ("numpy", "numpyvit", "pickle"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a stranger')")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.chdir(tmp_path)
    with WorkerPool(2) as pool:
        total = pool.sum(pool_tasks.fail_from_4, lambda index: (index,), 4)
    assert total[0].sum() == 4
