"""Tensor: its operators and methods under PyTorch's names, precision, indexing, errors."""

from __future__ import annotations

import copy
import operator
import pickle
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit import Tensor, functional, gradients
from numpyvit.check import gradcheck

BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


def both(
    torch: ModuleType, function: Any, *arrays: np.ndarray
) -> tuple[tuple[Any, list[Any]], tuple[Any, list[Any]]]:
    """`function`'s value and gradients, with our tensors and with PyTorch's."""
    ours = [Tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    value, expected = function(*ours), function(*theirs)
    dy = np.random.default_rng(1).standard_normal(value.shape).astype(value.dtype)
    expected.backward(torch.tensor(dy))
    return (value, gradients(value, ours, dy)), (expected, [t.grad for t in theirs])


def assert_parity(torch: ModuleType, function: Any, *arrays: np.ndarray) -> None:
    (value, found), (expected, grads) = both(torch, function, *arrays)
    assert_close(value, expected)
    for ours, theirs in zip(found, grads, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.__name__)
def test_operators_agree_with_pytorch_and_broadcast(
    op: Any, torch: ModuleType, rng: np.random.Generator, dtype: np.dtype
) -> None:
    a, b = (rng.uniform(0.5, 2, shape).astype(dtype) for shape in [(3, 1, 4), (2, 1)])
    assert_parity(torch, op, a, b)
    assert_parity(torch, lambda x: op(x, 2), a)
    assert_parity(torch, lambda x: op(1.5, x), a)
    assert_parity(torch, lambda x: op(x, x + 1), a)


METHODS = [
    ("neg", lambda x: -x),
    ("abs", lambda x: abs(x)),
    ("exp", lambda x: x.exp()),
    ("log", lambda x: abs(x).log()),
    ("sqrt", lambda x: abs(x).sqrt()),
    ("tanh", lambda x: x.tanh()),
    ("pow", lambda x: x.pow(3)),
    ("sum", lambda x: x.sum()),
    ("sum of an axis", lambda x: x.sum(1)),
    ("sum, kept", lambda x: x.sum(-1, True)),
    ("mean", lambda x: x.mean()),
    ("mean of axes", lambda x: x.mean((0, 2))),
    ("var", lambda x: x.var()),
    ("var of an axis", lambda x: x.var(-1)),
    ("max", lambda x: x.max()),
    ("matmul", lambda x: x.matmul(x.transpose(1, 2))),
    ("@", lambda x: x @ x.transpose(-1, -2)),
    ("reshape", lambda x: x.reshape(6, -1)),
    ("reshape to a tuple", lambda x: x.reshape((4, 6))),
    ("permute", lambda x: x.permute(2, 0, 1)),
    ("permute by a tuple", lambda x: x.permute((-1, 0, 1))),
    ("transpose", lambda x: x.transpose(0, -1)),
    ("transpose an axis with itself", lambda x: x.transpose(1, 1)),
    ("T", lambda x: x[0].T),
    ("expand", lambda x: x.reshape(2, 1, 12).expand(2, 5, 12)),
    ("expand to a tuple", lambda x: x.expand((3, 2, 3, 4))),
    ("index", lambda x: x[1, :, ::2]),
    ("index with an ellipsis and a new axis", lambda x: x[..., None, -1]),
    ("index with lists", lambda x: x[[0, 1, 0], [2, 2, 2]]),
    ("expand, keeping axes", lambda x: x.reshape(2, 1, 12).expand(3, -1, 5, -1)),
    ("view", lambda x: x.view(6, -1)),
    ("flatten", lambda x: x.flatten()),
    ("flatten the last axes", lambda x: x.flatten(1)),
    ("flatten the first axes", lambda x: x.flatten(end_dim=-2)),
    ("flatten a number", lambda x: x.sum().flatten()),
    ("sum along dim", lambda x: x.sum(dim=1, keepdim=True)),
    ("mean along dims", lambda x: x.mean(dim=(0, 2))),
    ("var along dim", lambda x: x.var(dim=-1, keepdim=True)),
    ("detach", lambda x: x + x.detach()),
]


@pytest.mark.parametrize("method", [f for _, f in METHODS], ids=[name for name, _ in METHODS])
def test_methods_agree_with_pytorch(
    method: Any, torch: ModuleType, rng: np.random.Generator, dtype: np.dtype
) -> None:
    assert_parity(torch, method, rng.standard_normal((2, 3, 4)).astype(dtype))


@pytest.mark.parametrize("op", COMPARISONS, ids=lambda op: op.__name__)
def test_comparisons_give_booleans_without_a_gradient(op: Any) -> None:
    a, b = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])
    for other in (b, Tensor(b), 2, 2.0, np.float64(2)):
        found = op(Tensor(a, requires_grad=True), other)
        np.testing.assert_array_equal(found.data, op(a, getattr(other, "data", other)))
        assert found.dtype == bool
        assert not found.requires_grad


def test_an_array_on_the_left_leaves_the_work_to_the_tensor() -> None:
    array, tensor = np.array([1.0, 2.0]), Tensor(np.array([3.0, 4.0]), requires_grad=True)
    for op in (*BINARY, operator.matmul):
        found = op(array, tensor)
        assert isinstance(found, Tensor), op
        assert found.requires_grad
        np.testing.assert_array_equal(found.data, op(array, tensor.data))
    assert isinstance(array < tensor, Tensor)


@pytest.mark.parametrize("number", [2, 2.5, np.float64(2.5), np.float32(2.5), np.int64(2), True])
def test_numbers_of_python_and_numpy_keep_float32(number: Any) -> None:
    for op in BINARY:
        for pair in [(Tensor([1.0, 2.0], True), number), (number, Tensor([1.0, 2.0], True))]:
            y = op(*pair)
            assert y.dtype == np.float32, op
            x = next(side for side in pair if isinstance(side, Tensor))
            y.sum().backward()
            assert x.grad.dtype == np.float32, op


def test_two_precisions_in_one_op_are_refused_with_its_name() -> None:
    single, double = Tensor([1.0]), Tensor(np.ones(1), requires_grad=True)
    for op in BINARY:
        with pytest.raises(TypeError, match="one float type throughout"):
            op(single, double)
    with pytest.raises(TypeError, match=r"\[linear\].*float32 in and float64 out"):
        functional.linear(Tensor([[1.0]]), Tensor(np.ones((1, 1))), None)
    with pytest.raises(TypeError, match=r"\[multiply\]"):
        single * np.ones(1)


def test_what_a_tensor_is_made_of_decides_its_dtype() -> None:
    assert Tensor([1.0, 2.0]).dtype == np.float32
    assert Tensor(1.0).dtype == np.float32
    assert Tensor([[1, 2]]).dtype.kind == "i"
    assert Tensor([True]).dtype == bool
    assert Tensor(np.ones(2)).dtype == np.float64
    assert Tensor(np.float64(1)).dtype == np.float64
    array = np.ones(2)
    assert Tensor(array).data is array
    assert Tensor(Tensor(array)).data is array


def test_only_floats_can_require_a_gradient() -> None:
    with pytest.raises(TypeError, match="only floats"):
        Tensor([1, 2], requires_grad=True)


def test_requires_grad_can_be_switched_on_leaves_only() -> None:
    x = Tensor([1.0])
    x.requires_grad = True
    y = x * 2
    assert y.requires_grad
    with pytest.raises(RuntimeError, match="leaves only"):
        y.requires_grad = False
    x.requires_grad = False
    assert not (x * 2).requires_grad


def test_a_tensor_indexes_with_tensors() -> None:
    x = Tensor(np.arange(6.0).reshape(3, 2), requires_grad=True)
    rows, columns = Tensor([0, 2, 2]), Tensor([1, 0, 0])
    y = x[rows, columns]
    np.testing.assert_array_equal(y.data, [1, 4, 4])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [[0, 1], [0, 0], [2, 0]])
    np.testing.assert_array_equal(x[x > 2].data, [3, 4, 5])
    np.testing.assert_array_equal(x[np.int64(1)].data, [2, 3])


def test_the_properties_are_the_arrays() -> None:
    x = Tensor(np.zeros((2, 3, 4), "float32"))
    assert (x.shape, x.ndim, x.size, len(x)) == ((2, 3, 4), 3, 24, 2)
    assert x.device == "cpu"
    assert x.T.shape == (4, 3, 2)
    assert x.numpy() is x.data


def test_item_float_and_bool_need_one_value() -> None:
    assert Tensor([[2.5]]).item() == 2.5
    assert float(Tensor(2.5)) == 2.5
    assert bool(Tensor([1.0]) == Tensor([1.0]))
    for function in (bool, float, Tensor.item):
        with pytest.raises((ValueError, TypeError)):
            function(Tensor([1.0, 2.0]))


def test_detach_shares_data_and_astype_copies() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    assert x.detach().data is x.data
    assert not x.detach().requires_grad
    double = x.astype("float64")
    assert (double.dtype, double.requires_grad) == (np.float64, False)


def test_argmax_agrees_with_numpy(rng: np.random.Generator) -> None:
    array = rng.standard_normal((3, 4))
    x = Tensor(array, requires_grad=True)
    np.testing.assert_array_equal(x.argmax(-1).data, array.argmax(-1))
    assert x.argmax().item() == array.argmax()


def test_tensors_can_be_keys_of_dicts_and_members_of_sets() -> None:
    x, y = Tensor([1.0]), Tensor([1.0])
    assert len({x, y, x}) == 2
    assert {x: "x"}[x] == "x"


def test_printing_shows_values_dtype_and_whether_a_gradient_is_wanted() -> None:
    assert repr(Tensor([1.0, 2.5], True)) == "Tensor([1.  2.5], dtype=float32, requires_grad=True)"
    assert len(repr(Tensor(np.zeros((100, 100))))) < 500


def test_a_deep_copy_is_a_leaf_of_its_own() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    other = copy.deepcopy(x)
    assert other.requires_grad
    other.data[0] = 9
    np.testing.assert_array_equal(x.data, [1, 2])
    (other * 3).sum().backward()
    assert x.grad is None


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.concat([x, 2 * x, x], axis=-1),
        lambda x: functional.stack([x, x * x], axis=1),
        lambda x: functional.concat(functional.split(x, 2, axis=-1)[::-1], axis=-1),
        lambda x: functional.split(x, [1, 3], axis=1)[1] * 2,
        lambda x: functional.where(x > 0, x, 0.1 * x),
        lambda x: functional.pad(x, ((0, 0), (1, 2))),
    ],
    ids=["concat", "stack", "split evenly", "split by sizes", "where", "pad"],
)
def test_joining_splitting_choosing_and_padding_have_right_gradients(
    function: Any, rng: np.random.Generator
) -> None:
    gradcheck(function, [rng.standard_normal((3, 4))])


def test_split_agrees_with_pytorch(torch: ModuleType, rng: np.random.Generator) -> None:
    array = rng.standard_normal((5, 7))
    for size, axis in [(2, 0), (3, 1), (7, -1), (9, 1), ([1, 4], 0), ([3, 0, 4], -1)]:
        ours = functional.split(Tensor(array), size, axis)
        theirs = torch.split(torch.tensor(array), size, axis)
        for a, b in zip(ours, theirs, strict=True):
            assert_same_bits(a, b)


def test_split_refuses_sizes_that_do_not_fit() -> None:
    x = Tensor(np.zeros((2, 6)))
    with pytest.raises(ValueError, match=r"add up to 6, got \[2, 3\]"):
        functional.split(x, [2, 3], axis=1)
    with pytest.raises(ValueError, match=r"at least 0 that add up to 6, got \[8, -2\]"):
        functional.split(x, [8, -2], axis=1)
    for size in (0, np.int64(-1)):
        with pytest.raises(ValueError, match=f"at least 1, got {size}"):
            functional.split(x, size, axis=1)
    with pytest.raises(TypeError, match="integer"):
        functional.split(x, 2.0, axis=1)


def test_split_takes_whole_numbers_of_numpy() -> None:
    x = Tensor(np.arange(6.0))
    for size in (np.int64(4), np.array([4, 2]), (np.uint8(4), 2)):
        assert [piece.shape for piece in functional.split(x, size)] == [(4,), (2,)]


def test_attention_with_its_weights_is_the_fused_one(rng: np.random.Generator) -> None:
    arrays = [rng.standard_normal(s) for s in [(2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 7), (5, 6)]]
    dy = rng.standard_normal((2, 3, 5, 7))
    results = []
    for return_weights in (False, True):
        tensors = [Tensor(a, requires_grad=True) for a in arrays]
        found = functional.scaled_dot_product_attention(
            *tensors,
            scale=0.7,
            dropout_p=0.3,
            rng=np.random.default_rng(2),
            return_weights=return_weights,
        )
        y = found[0] if return_weights else found
        results.append([y.data, *gradients(y, tensors, dy)])
    for fused, composed in zip(*results, strict=True):
        assert_close(fused, composed)


def test_the_weights_of_attention_are_those_before_dropout(rng: np.random.Generator) -> None:
    q = Tensor(rng.standard_normal((2, 3, 4)))
    _, weights = functional.scaled_dot_product_attention(
        q, q, q, dropout_p=0.5, rng=rng, return_weights=True
    )
    assert_close(weights.sum(-1), np.ones((2, 3)))


def test_dim_and_keepdim_are_other_names_of_axis_and_keepdims() -> None:
    x = Tensor(np.arange(6.0).reshape(2, 3))
    assert_same_bits(functional.softmax(x, dim=0), functional.softmax(x, axis=0))
    assert_same_bits(x.max(dim=1, keepdim=True), x.max(axis=1, keepdims=True))
    assert_same_bits(x.argmax(dim=1), x.argmax(1))
    with pytest.raises(TypeError, match="dim"):
        x.exp(dim=1)


def test_axes_that_are_not_there_are_refused() -> None:
    x = Tensor(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"lengths for the axes added, got \(-1, 2, 3\)"):
        x.expand(-1, 2, 3)
    with pytest.raises(ValueError, match="start_dim not after end_dim, got 1 and 0"):
        x.flatten(1, 0)
    with pytest.raises(IndexError):
        x.flatten(2)


def test_an_array_is_made_of_a_tensor_that_requires_no_gradient() -> None:
    x = Tensor(np.arange(3.0))
    assert np.asarray(x) is x.data
    assert np.array(x) is not x.data
    assert_same_bits(np.asarray(x, "float32"), np.arange(3, dtype="float32"))
    assert_same_bits(np.arange(5)[Tensor(np.array([1, 3]))], np.array([1, 3]))
    with pytest.raises(TypeError, match=r"\.detach\(\)"):
        np.asarray(x.requires_grad_())


def test_requires_grad_gives_the_tensor_back() -> None:
    x = Tensor([1.0, 2.0]).requires_grad_()
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, [2, 4])
    assert x.requires_grad_(False) is x
    assert not x.requires_grad


@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_tensor_survives_pickling_as_a_leaf(requires_grad: bool) -> None:
    for x in (Tensor([1.0, 2.0], requires_grad), Tensor([1.0, 2.0], requires_grad) * 2):
        y = pickle.loads(pickle.dumps(x))
        assert_same_bits(y, x)
        assert (type(y), y.requires_grad, y.grad) == (Tensor, requires_grad, None)
        if requires_grad:
            y.sum().backward()
            np.testing.assert_array_equal(y.grad, [1, 1])
