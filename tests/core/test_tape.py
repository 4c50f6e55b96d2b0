"""The tape: depth, accumulation, what is computed and freed, errors, threads."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit import Tensor, differentiable, functional, gradients, nn, no_grad

DEEP = 20_000


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


def test_a_chain_of_20000_ops_goes_forward_back_and_away() -> None:
    x = leaf(1.0, 2.0)
    y = x
    for _ in range(DEEP):
        y = y + 1.0
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 1])
    kept_from_garbage = weakref.ref(y)
    del y
    assert kept_from_garbage() is None


def test_a_deep_chain_that_is_never_walked_back_goes_away_too() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(DEEP):
        y = y * 1.0
    gone = weakref.ref(y)
    del y
    gc.collect()
    assert gone() is None


def test_a_value_used_at_every_step_of_a_deep_chain_accumulates() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(DEEP):
        y = y + x
    y.backward()
    np.testing.assert_array_equal(x.grad, [DEEP + 1])


def test_paths_that_fork_and_join_many_times_are_walked_once() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(60):  # 2**60 paths
        y = (y + y) * 0.5
    y.backward()
    np.testing.assert_array_equal(x.grad, [1])


def test_x_plus_x_has_the_derivative_two() -> None:
    x = leaf(3.0)
    (x + x).backward()
    np.testing.assert_array_equal(x.grad, [2])


def test_a_reused_tensor_accumulates_its_gradient() -> None:
    x = leaf(2.0, 3.0)
    (x * x * x + 4 * x).sum().backward()
    np.testing.assert_array_equal(x.grad, [16, 31])


def test_an_intermediate_result_that_is_reused_accumulates() -> None:
    x = leaf(2.0)
    y = x * 3
    (y * y + y).backward()
    np.testing.assert_array_equal(x.grad, [3 * (2 * 6 + 1)])


def test_backward_adds_to_the_gradients_that_are_there() -> None:
    x = leaf(2.0)
    (x * 3).backward()
    first = x.grad
    (x * 4).backward()
    np.testing.assert_array_equal(x.grad, [7])
    np.testing.assert_array_equal(first, [3])


def test_gradients_are_kept_on_leaves_only() -> None:
    x = leaf(2.0)
    constant = Tensor(np.array([5.0]))
    y = x * constant
    z = y * y
    z.backward()
    assert y.grad is None
    assert z.grad is None
    assert constant.grad is None
    np.testing.assert_array_equal(x.grad, [100])


def test_gradients_leave_the_grad_of_tensors_alone() -> None:
    x, y = leaf(2.0), leaf(5.0)
    dx, dy = gradients(x * y, [x, y])
    np.testing.assert_array_equal([dx, dy], [[5], [2]])
    assert x.grad is None
    assert y.grad is None


def test_gradients_come_in_the_order_asked_for_and_are_zero_where_nothing_depends() -> None:
    x, y, unused = leaf(2.0), leaf(5.0), leaf(1.0, 1.0)
    found = gradients(x * y, [y, unused, x, y])
    np.testing.assert_array_equal(found[0], [2])
    np.testing.assert_array_equal(found[1], [0, 0])
    np.testing.assert_array_equal(found[2], [5])
    np.testing.assert_array_equal(found[3], [2])


def test_gradients_of_nothing_are_nothing() -> None:
    assert gradients(leaf(2.0) * 2, []) == []


def test_gradients_with_respect_to_intermediate_results(rng: np.random.Generator) -> None:
    q, k, v = (Tensor(rng.standard_normal((2, 4, 3)), requires_grad=True) for _ in range(3))
    y, weights = functional.scaled_dot_product_attention(q, k, v, return_weights=True)
    dy = rng.standard_normal((2, 4, 3))
    dweights, dv = gradients(y, [weights, v], dy)
    assert_close(dweights, dy @ v.data.swapaxes(-1, -2))
    assert_close(dv, weights.data.swapaxes(-1, -2) @ dy)


def test_an_intermediate_and_what_lies_behind_it_can_be_asked_for_together() -> None:
    x = leaf(2.0)
    y = x * 3
    dz, dy, dx = gradients(z := y * y, [z, y, x])
    np.testing.assert_array_equal([dz, dy, dx], [[1], [12], [36]])


def test_an_output_that_is_itself_a_leaf_has_the_gradient_one() -> None:
    x = leaf(2.0)
    x.backward()
    np.testing.assert_array_equal(x.grad, [1])


def test_a_second_backward_through_a_freed_tape_says_so() -> None:
    x = leaf(2.0)
    y = x * 3
    z = y.exp()
    z.backward()
    with pytest.raises(RuntimeError, match="freed by an earlier backward"):
        z.backward()
    with pytest.raises(RuntimeError, match="'multiply' was freed"):
        (y + 1).backward()


def test_backward_frees_what_was_saved() -> None:
    x = leaf(1.0, 2.0)
    saved = np.ones(2)

    class Saved:
        pass

    def make_op(held: Saved) -> Any:
        def op(a: Any, /) -> Any:
            return a * saved, lambda dy: (dy * saved if held else dy,)

        return differentiable(op)

    witness = Saved()
    gone = weakref.ref(witness)
    y = make_op(witness)(x).sum()
    del witness
    gc.collect()
    assert gone() is not None
    y.backward()
    gc.collect()
    assert gone() is None  # though `y` is still here


def test_what_is_not_recorded_saves_nothing() -> None:
    x = leaf(1.0)
    with no_grad():
        y = x * 2
    assert not y.requires_grad
    with pytest.raises(RuntimeError, match=r"computed under no_grad"):
        y.backward()


def test_no_grad_ends_with_its_block_even_after_an_error() -> None:
    x = leaf(1.0)
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (x * 2).requires_grad


def test_no_grad_can_be_nested() -> None:
    x = leaf(1.0)
    with no_grad():
        with no_grad():
            pass
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_no_grad_holds_for_its_own_thread_only() -> None:
    x = leaf(1.0)
    with no_grad(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: (x * 2).requires_grad).result()
        assert not (x * 2).requires_grad


def wrong_op(returned: Any) -> Any:
    def my_op(x: Any, /) -> Any:
        return x * 2, lambda dy: (returned(dy),)

    return differentiable(my_op)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda dy: dy.sum(keepdims=True), r"\[my_op\].*float64 \(2,\).*float64 \(1,\)"),
        (lambda dy: dy.astype("float32"), r"\[my_op\].*float64 \(2,\).*float32 \(2,\)"),
        (lambda dy: None, r"\[my_op\].*for input 0, got None"),
    ],
)
def test_a_gradient_of_the_wrong_kind_names_the_op(returned: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        wrong_op(returned)(leaf(1.0, 2.0)).sum().backward()


def needs_seen(*frozen: int) -> tuple[bool, ...]:
    """The `needs` that an op of three inputs is told, when some of them need no gradient."""
    seen = []

    def spy(a: Any, b: Any, c: Any, /) -> Any:
        def pullback(dy: Any, needs: Any) -> Any:
            seen.append(needs)
            return tuple(dy if need else None for need in needs)

        return a + b + c, pullback

    inputs = [Tensor(np.ones(2), requires_grad=place not in frozen) for place in range(3)]
    differentiable(spy)(*inputs).sum().backward()
    return seen[0]


def test_an_op_is_told_which_gradients_are_needed() -> None:
    assert needs_seen() == (True, True, True)
    assert needs_seen(1) == (True, False, True)
    assert needs_seen(0, 2) == (False, True, False)


def test_nothing_is_walked_that_leads_to_nothing_asked_for() -> None:
    calls = []

    def counted(x: Any, /) -> Any:
        return x * 2, lambda dy: (calls.append(1) or dy * 2,)

    lifted = differentiable(counted)
    x, y = leaf(1.0), leaf(1.0)
    loss = lifted(lifted(x)) * lifted(y)
    gradients(loss, [y])
    assert len(calls) == 1


def test_a_frozen_weight_and_the_image_get_no_gradient(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    seen = []

    def spy(x: Any, weight: Any, /) -> Any:
        def pullback(dy: Any, needs: Any) -> Any:
            seen.append(needs)
            return (
                dy @ weight if needs[0] else None,
                dy.T @ x if needs[1] else None,
            )

        return x @ weight.T, pullback

    monkeypatch.setattr(functional, "linear", lambda x, w, b: differentiable(spy)(x, w))
    first, middle, last = (nn.Linear(3, 3, bias=False) for _ in range(3))
    middle.requires_grad_(False)
    image = Tensor(rng.standard_normal((2, 3)).astype("float32"))
    last(middle(first(image))).sum().backward()
    assert seen == [(True, True), (True, False), (False, True)]
    assert middle.weight.grad is None
    assert image.grad is None


def test_a_frozen_front_of_a_network_is_not_walked_at_all() -> None:
    frozen, head = nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 2)
    tokens = frozen(Tensor(np.ones((1, 3), "float32")))
    assert not tokens.requires_grad
    head(tokens).sum().backward()
    assert head.weight.grad is not None


def test_returned_gradients_never_share_memory() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    seed = np.ones(2)
    dx, dy, dz = gradients(z := x + y, [x, y, z], seed)
    arrays = [dx, dy, dz, seed, x.data, y.data]
    for place, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in arrays[place + 1 :])


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape(2, 1),
        lambda x: x.expand(3, 2).reshape(6),
        lambda x: functional.concat([x, x]),
        lambda x: functional.stack([x, x]),
        lambda x: x.sum(),
        lambda x: x[:],
        lambda x: x[None].T,
    ],
)
def test_gradients_can_be_changed_in_place(function: Any) -> None:
    x, y = leaf(1.0, 2.0), leaf(1.0, 2.0)
    (function(x) + function(y)).sum().backward()
    before = y.grad.copy()
    x.grad *= 100
    assert_same_bits(y.grad, before)
    np.testing.assert_array_equal(x.grad, 100 * before)


def test_the_gradient_of_a_single_number_is_an_array() -> None:
    x = Tensor(2.0, requires_grad=True)
    (x * x).backward()
    assert isinstance(x.grad, np.ndarray)
    assert x.grad.dtype == np.float32
    assert x.grad == 4


def test_the_gradient_of_several_outputs_must_be_given_and_fit() -> None:
    y = leaf(1.0, 2.0) * 2
    with pytest.raises(RuntimeError, match=r"got shape \(2,\).*reduce with \.sum\(\)"):
        y.backward()
    with pytest.raises(ValueError, match=r"shape \(2,\), got \(3,\)"):
        y.backward(np.ones(3))


def test_backward_takes_the_gradient_of_the_output() -> None:
    x = leaf(1.0, 2.0)
    (x * x).backward(np.array([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad, [2, 40])


def test_backward_from_what_has_no_tape_says_so() -> None:
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        Tensor([1.0]).backward()
    with pytest.raises(RuntimeError, match="requires_grad=True"):
        gradients(leaf(1.0) * 2, [Tensor([1.0])])


def test_a_leaf_that_is_gone_does_not_disturb_backward() -> None:
    x = leaf(1.0)
    y = leaf(2.0) * x
    y.backward()
    np.testing.assert_array_equal(x.grad, [2])


def small_net() -> nn.Mlp:
    return nn.Mlp(6, 12, rng=np.random.default_rng(0)).to("float64")


def test_threads_that_walk_back_at_once_get_the_gradients_of_one() -> None:
    model = small_net()
    batches = [np.random.default_rng(seed).standard_normal((4, 6)) for seed in range(40)]

    def gradients_of(batch: np.ndarray) -> list[np.ndarray]:
        return gradients(model(Tensor(batch)).sum(), model.parameters())

    alone = [gradients_of(batch) for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(gradients_of, batches))
    for expected, found in zip(alone, together, strict=True):
        for a, b in zip(expected, found, strict=True):
            assert_same_bits(b, a)


def test_no_gradient_is_lost_when_threads_accumulate_into_a_shared_parameter() -> None:
    shared = Tensor(np.ones(1_000_000), requires_grad=True)  # large: sums let other threads run
    rounds, threads = 5, 4
    start = threading.Barrier(threads)

    def accumulate(_: int) -> None:
        start.wait()
        for _ in range(rounds):
            shared.sum().backward()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(accumulate, range(threads)))
    np.testing.assert_array_equal(shared.grad, rounds * threads)


def test_gradients_of_a_single_number_that_add_up_are_an_array() -> None:
    x = Tensor(2.0, requires_grad=True)
    for _ in range(3):
        (x * x).backward()
    assert isinstance(x.grad, np.ndarray)
    x.grad /= 2
    assert_same_bits(x.grad, np.array(6, np.float32))


def test_an_op_that_asks_is_told_whether_its_pullback_can_be_called() -> None:
    told = []

    def asking(x: Any, /, recorded: bool = True) -> Any:
        told.append(recorded)
        return x * 2, lambda dy: (dy * 2,)

    lifted = differentiable(asking)
    x = leaf(1.0)
    lifted(x)
    lifted(Tensor([1.0]))
    with no_grad():
        lifted(x)
    assert told == [True, False, False]
