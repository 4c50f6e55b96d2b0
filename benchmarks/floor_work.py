"""The work that a training step or a forward pass cannot do without, from the model's sizes.

Each op of the model is charged as one ideal kernel:

- its matrix products, with their exact shapes; biases and their gradients ride along in them;
- one exponential for each attention score, one tanh for each value of GELU's hidden layer (also
  where GELU is the exact one: an erf is charged as a tanh);
- 16 random bits and their comparison for each value that dropout looks at;
- its inputs read once and its outputs written once, in bytes, where no product or exponential has
  done so already. A softmax passes over its scores once, in the exponential; the normalisation is
  moved to the output. GELU leaves its slope behind for the way back.

Nothing is charged for scaling queries, for reshaping, for weights' layouts, for adding up the
gradients of micro-batches, for allocation, for the tape, for Python. The last block is charged for
what the head reads: its keys and values for all tokens, all else for the class token alone. Not
assumed is fusion across ops, of which a compiler might do more.

An ideal kernel does in one pass what NumPy needs a call each for. So beside its bytes, elementwise
work lists the NumPy calls that stand for it in the shortest formula known to us, as `passes`, by
the shape of what the array meets: a number, an array of its shape, a row of its width, a column
with a number for each row, a mask; or the row is summed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from numpyvit.models import ViTConfig, count_parameters

NUMBER, ARRAY, ROW = "pass with a number", "pass with an array", "pass with a row"
COLUMN, ROW_SUM, MASKING = "pass with a column", "sum of rows", "pass with a mask"

Passes = dict[str, int]
LINEAR_FORWARD: Passes = {ROW: 1}  # the bias
LINEAR_BACK: Passes = {ROW_SUM: 1}
NORM_FORWARD: Passes = {ROW_SUM: 2, COLUMN: 2, ROW: 2}  # mean, variance; centre, scale; affine
NORM_BACK: Passes = {ARRAY: 2, ROW: 1, ROW_SUM: 3, COLUMN: 3}
GELU_TANH: Passes = {NUMBER: 4, ARRAY: 3}
GELU_TANH_SLOPE: Passes = {NUMBER: 3, ARRAY: 4}
GELU_EXACT: Passes = {NUMBER: 11, ARRAY: 8}  # erf as tanh of x times a polynomial in x^2, degree 6
GELU_EXACT_SLOPE: Passes = {NUMBER: 2, ARRAY: 3}  # its exponential is not charged
SOFTMAX_FORWARD: Passes = {ROW_SUM: 1}
SOFTMAX_BACK: Passes = {COLUMN: 1, ARRAY: 1}
QUERIES: Passes = {NUMBER: 1}
OUTPUT_FORWARD: Passes = {COLUMN: 1}
OUTPUT_BACK: Passes = {COLUMN: 1, ROW_SUM: 1, NUMBER: 1}
DROPOUT_PASSES: Passes = {MASKING: 1, NUMBER: 1}
KEEPING: Passes = {MASKING: 1}

PRODUCT, EXP, TANH, MASK, BYTES = "product", "exp", "tanh", "mask", "bytes"
FLOAT = 4  # bytes
MASKED = 2 * FLOAT + 1  # bytes moved by dropout for a value: read, write, and its mask

LINEAR, ATTENTION, NORM, GELU = "linear layers", "attention", "layer norm", "GELU"
DROPOUT, SUMS, LOSS, UPDATE = "dropout", "sums and moves", "loss", "AdamW"


@dataclasses.dataclass(frozen=True)
class Work:
    """`amount` values (or bytes) of one kind; of products, how often one of `shape` is formed.

    `shape` is (stack, rows, inner, columns): that many products (rows, inner) @ (inner, columns).
    `passes` says how often NumPy passes over how many `values` in its place.
    """

    op: str
    kind: str
    amount: float
    shape: tuple[int, int, int, int] = (0, 0, 0, 0)
    passes: Passes = dataclasses.field(default_factory=dict)
    values: int = 0

    @property
    def multiply_adds(self) -> float:
        """Of products; 0 for other kinds."""
        stack, rows, inner, columns = self.shape
        return self.amount * stack * rows * inner * columns


def forward_work(config: ViTConfig, images: int, *, all_tokens: bool = False) -> list[Work]:
    """A forward pass without dropout; `all_tokens` charges the last block in full."""
    at_rest = config.replace(dropout=0.0, attention_dropout=0.0)
    return [work for work, _ in _passes(at_rest, images, all_tokens=all_tokens)]


def training_work(config: ViTConfig, images: int) -> list[Work]:
    """Forward and backward pass of a micro-batch, with the configuration's dropout."""
    found = []
    for forward, backward in _passes(config, images, saving=True):
        found += [forward, *backward]
    return found


def update_work(config: ViTConfig) -> list[Work]:
    """AdamW reads a parameter, its gradient and two moments, and writes all but the gradient."""
    return [Work(UPDATE, BYTES, 7 * FLOAT * count_parameters(config))]


Step = tuple[Work, tuple[Work, ...]]  # what goes forward, and what it takes to come back


def _passes(
    config: ViTConfig, images: int, *, saving: bool = False, all_tokens: bool = False
) -> Iterator[Step]:
    """All work in the order of the forward pass; `saving` charges what is kept for the way back."""
    d, tokens = config.embed_dim, config.num_tokens
    yield from _embedding(config, images)
    for position in range(config.depth):
        last = position == config.depth - 1 and not all_tokens
        yield from _block(config, images, 1 if last else tokens, saving)
    if config.final_norm:
        yield _norm(images * d)
    yield from _linear(images, d, config.num_classes)
    if saving:
        yield Work(LOSS, EXP, images * config.num_classes), ()


def _embedding(config: ViTConfig, images: int) -> Iterator[Step]:
    """Patches cut out, projected, a token put before them, positions added. No gradient of pixels.

    Joining reads and writes every token once, so does adding; the way back reads the gradient once
    for the positions.
    """
    d, patches = config.embed_dim, images * config.num_patches
    values = images * config.num_tokens * d
    yield Work(SUMS, BYTES, 2 * FLOAT * patches * config.patch_values), ()
    shape = (1, patches, config.patch_values, d)
    weight = Work(LINEAR, PRODUCT, 1, (1, d, patches, config.patch_values))
    yield Work(LINEAR, PRODUCT, 1, shape), (weight,)
    yield _bias(patches * d)
    yield Work(SUMS, BYTES, 4 * FLOAT * values), (Work(SUMS, BYTES, FLOAT * values),)
    yield from _dropout(values, config.dropout)


def _block(config: ViTConfig, images: int, asking: int, saving: bool) -> Iterator[Step]:
    """A block in which the first `asking` tokens ask; all tokens answer."""
    d, hidden = config.embed_dim, config.mlp_dim
    rows, asked = images * asking, images * config.num_tokens
    yield _norm(asked * d)
    if rows == asked:
        yield from _linear(asked, d, 3 * d)
    else:
        yield from _linear(asked, d, 2 * d)
        yield from _linear(rows, d, d)
    yield from _attention(config, images, asking)
    yield from _linear(rows, d, d)
    yield from _residual(config, rows * d, asked * d)
    yield _norm(rows * d)
    yield from _linear(rows, d, hidden)
    values, exact = rows * hidden, config.activation == "gelu"
    yield Work(GELU, TANH, values), (_moved(GELU, 3 * values, {ARRAY: 1}, values),)
    yield _moved(GELU, 0, GELU_EXACT if exact else GELU_TANH, values), ()
    if saving:
        yield _moved(GELU, values, GELU_EXACT_SLOPE if exact else GELU_TANH_SLOPE, values), ()
    yield from _linear(rows, hidden, d)
    yield from _residual(config, rows * d, rows * d)


def _attention(config: ViTConfig, images: int, asking: int) -> Iterator[Step]:
    """Scores, exponentials, mask, values; two gradients for each of the two products.

    On the way back the gradient of the scores comes from two arrays of their size, and the row sums
    and the normalisation from arrays of the output's size.
    """
    stack, n, k = images * config.num_heads, config.num_tokens, config.embed_dim // config.num_heads
    scores, output = stack * asking * n, stack * asking * k

    def product(rows: int, inner: int, columns: int) -> Work:
        return Work(ATTENTION, PRODUCT, 1, (stack, rows, inner, columns))

    yield product(asking, k, n), (product(asking, n, k), product(n, asking, k))
    yield _moved(ATTENTION, 0, QUERIES, output), ()
    back = _moved(ATTENTION, 3 * scores, SOFTMAX_BACK, scores)
    yield Work(ATTENTION, EXP, scores), (back,)
    yield _moved(ATTENTION, 0, SOFTMAX_FORWARD, scores), ()
    if config.attention_dropout:
        back = Work(ATTENTION, BYTES, scores, passes=KEEPING, values=scores)
        yield Work(ATTENTION, MASK, scores), (back,)
        yield Work(ATTENTION, BYTES, MASKED * scores, passes=KEEPING, values=scores), ()
    yield product(asking, n, k), (product(asking, k, n), product(n, asking, k))
    back = _moved(ATTENTION, 4 * output, OUTPUT_BACK, output)
    yield _moved(ATTENTION, 2 * output, OUTPUT_FORWARD, output), (back,)


def _linear(rows: int, inner: int, columns: int) -> Iterator[Step]:
    """(rows, inner) @ (inner, columns), and back to the input and to the weight."""
    to_input = Work(LINEAR, PRODUCT, 1, (1, rows, columns, inner))
    to_weight = Work(LINEAR, PRODUCT, 1, (1, columns, rows, inner))
    yield Work(LINEAR, PRODUCT, 1, (1, rows, inner, columns)), (to_input, to_weight)
    yield _bias(rows * columns)


def _bias(values: int) -> Step:
    return _moved(LINEAR, 0, LINEAR_FORWARD, values), (_moved(LINEAR, 0, LINEAR_BACK, values),)


def _moved(op: str, floats: int, passes: Passes, values: int) -> Work:
    """Reading and writing `floats` in all, for which NumPy takes `passes` over `values`."""
    return Work(op, BYTES, FLOAT * floats, passes=passes, values=values)


def _norm(values: int) -> Step:
    """Reads and writes; the way back reads the same and a gradient, and writes one."""
    back = _moved(NORM, 3 * values, NORM_BACK, values)
    return _moved(NORM, 2 * values, NORM_FORWARD, values), (back,)


def _residual(config: ViTConfig, values: int, before: int) -> Iterator[Step]:
    """Dropout of a branch, added to what came in; back, two gradients of `before` values meet."""
    yield from _dropout(values, config.dropout)
    yield Work(SUMS, BYTES, 3 * FLOAT * values), (Work(SUMS, BYTES, 3 * FLOAT * before),)


def _dropout(values: int, p: float) -> Iterator[Step]:
    if p:
        yield Work(DROPOUT, MASK, values), ()
        moved = Work(DROPOUT, BYTES, MASKED * values, passes=DROPOUT_PASSES, values=values)
        yield moved, (moved,)
