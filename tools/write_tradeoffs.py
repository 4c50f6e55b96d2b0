"""Measure what each way to a cheaper model costs in accuracy, and write the page about it.

    python tools/write_tradeoffs.py --data-dir CIFAR_10 --deit DEIT_TINY.safetensors --photos FOLDER

The packaged model on the 10,000 test images of CIFAR-10. A row that is in docs/efficiency.json is
not measured again, so that the work can be stopped at any time (`--seconds` does) and goes on.
Times are taken once all rows of a technique are there: all its models and the untouched one take
turns, in one process and on one thread. What counts is the tenth percentile of the turns, as
whatever else the machine does makes times longer, never shorter.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from draw_tradeoffs import draw_all, tables
from write_results import replace_between

from numpyvit import Tensor, load_pretrained, no_grad
from numpyvit.compress import (
    apply_masks,
    attend_locally,
    head_importance,
    least_important,
    magnitude_masks,
    merge_tokens,
    prune_heads,
    prune_tokens,
    share,
)
from numpyvit.data import Loader, load_cifar10
from numpyvit.models import VisionTransformer, load_packaged_model, predict
from numpyvit.nn import Attention, LocalAttention, Locality
from numpyvit.optim import AdamW, LambdaLR, warmup_cosine
from numpyvit.threads import limit_threads, single_threaded_blas
from numpyvit.train import WorkerPool, recipe, set_gradients

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "efficiency.md"
ROWS = ROOT / "docs" / "efficiency.json"
IMAGES = ROOT / "docs" / "images"

QUANTILE = 0.1
BATCH, ROUNDS = 32, 31  # images at a time on one thread, and turns, when times are taken
IMPORTANCE_IMAGES = 2000  # of the training images
TRAINING_STEPS, TRAINING_BATCH, LEARNING_RATE = 100, 128, 1e-3  # after pruning

TRAINED = "together, then trained for 100 steps"

Make = Callable[["Laboratory"], VisionTransformer]
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to make the model cheaper, at one setting: a row."""

    technique: str
    series: str
    setting: float
    make: Make


class Laboratory:
    """The untouched model, and what it is measured with."""

    def __init__(self, data_dir: str | None, rows: list[Row]) -> None:
        saved = load_packaged_model()
        self.model = saved.model
        self.data_dir, self.rows = data_dir, rows

    @functools.cached_property
    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """All test images, normalised, and their labels."""
        test = load_cifar10("test", data_dir=self.data_dir)
        return self._normalised(test.images(np.arange(len(test)))), test.labels

    def _normalised(self, images: np.ndarray) -> np.ndarray:
        return recipe("default").normalize()(images, np.random.default_rng(0))

    @functools.cached_property
    def importance(self) -> list[np.ndarray]:
        """Of each head, on training images; from the rows where they have it."""
        for row in self.rows:
            if row["technique"] == "importance":
                return [np.array(values) for values in row["heads"]]
        train = load_cifar10("train", data_dir=self.data_dir)
        chosen = np.arange(IMPORTANCE_IMAGES)
        images = self._normalised(train.images(chosen))
        return head_importance(self.model, images, train.labels[chosen])

    def measure(self, case: Case) -> Row:
        """Accuracy on all test images, and size."""
        model = case.make(self)
        images, labels = self.test
        parts = [slice(i, i + 2 * BATCH) for i in range(0, len(images), 2 * BATCH)]
        right = [predict(model, images[part]).argmax(1) == labels[part] for part in parts]
        return {
            "accuracy": float(np.concatenate(right).mean()),
            "parameters": model.num_parameters(),
            "compressed_bytes": compressed_bytes(model),
        }

    def trained_after_pruning(self, sparsity: float) -> VisionTransformer:
        """TRAINING_STEPS with the masks held, from the rate LEARNING_RATE down to 0."""
        model = copy.deepcopy(self.model)
        masks = magnitude_masks(model, sparsity)
        apply_masks(model, masks)
        chosen = recipe("default")
        loader = Loader(
            load_cifar10("train", data_dir=self.data_dir),
            TRAINING_BATCH,
            transform=chosen.train_transform(model.config.image_size),
        )
        optimizer = AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=chosen.weight_decay)
        falling = functools.partial(warmup_cosine, warmup_steps=0, total_steps=TRAINING_STEPS)
        schedule = LambdaLR(optimizer, falling)
        with WorkerPool() as pool:
            batches = itertools.islice(loader.epoch(0), TRAINING_STEPS)
            for step, (images, labels) in enumerate(batches):
                schedule.set_step(step)
                set_gradients(model, images, labels, pool, seed=(0, step))
                optimizer.step()
                apply_masks(model, masks)
        return model

    def add_times(self, rows: list[Row], technique: str) -> None:
        """Race all models of a technique that was measured, on the first images."""
        chosen = {key_of(row): row for row in rows if row["technique"] == technique}
        models = {
            key: case.make(self)
            for case in cases()
            if (key := key_of(dataclasses.asdict(case))) in chosen and case.series != TRAINED
        }
        images = self.test[0][:BATCH]
        runs = [functools.partial(model, images) for model in models.values()]
        for key, ratio in zip(models, time_ratios(lambda: self.model(images), *runs), strict=True):
            chosen[key]["time"] = ratio


def key_of(row: Row) -> tuple[Any, ...]:
    """What tells a row from all others."""
    return row["technique"], row["series"], row["setting"]


def time_ratios(
    reference: Callable[[], Any], *runs: Callable[[], Any], rounds: int = ROUNDS
) -> list[float]:
    """The time of each of `runs` over that of `reference`, taken in turns on one thread."""
    contenders = (reference, *runs)
    seconds: list[list[float]] = [[] for _ in contenders]
    with no_grad(), limit_threads(1), single_threaded_blas():
        for turn in range(-2, rounds):
            for contender, taken in zip(contenders, seconds, strict=True):
                started = time.perf_counter()
                contender()
                if turn >= 0:
                    taken.append(time.perf_counter() - started)
    base, *others = np.quantile(seconds, QUANTILE, axis=1).tolist()
    return [other / base for other in others]


def compressed_bytes(model: VisionTransformer) -> int:
    """What the weights take in a compressed .npz file."""
    file = io.BytesIO()
    np.savez_compressed(file, **model.state_dict())
    return file.tell()


def pruned(lab: Laboratory, sparsity: float, per_layer: bool) -> VisionTransformer:
    """A copy with the smallest weights at zero."""
    model = copy.deepcopy(lab.model)
    apply_masks(model, magnitude_masks(model, sparsity, per_layer=per_layer))
    return model


def cases() -> Iterator[Case]:
    """All rows about the packaged model."""
    yield Case("untouched", "untouched", 0, lambda lab: share(lab.model))
    yield from token_cases()
    yield from head_cases()
    yield from local_cases()
    yield from weight_cases()


def local_cases() -> Iterator[Case]:
    """Patches look at patches near them."""
    for size in (7, 5, 3, 1):
        yield Case(
            "attention", "neighbourhoods", size, lambda lab, s=size: attend_locally(lab.model, s)
        )
    for series, shifted in (("windows", False), ("windows, shifted in turn", True)):
        for size in (6, 4, 2):
            yield Case(
                "attention",
                series,
                size,
                lambda lab, s=size, t=shifted: attend_locally(lab.model, s, "window", shifted=t),
            )


def token_cases() -> Iterator[Case]:
    """Fewer tokens from block to block."""
    for count in (2, 4, 6, 8, 10, 12, 16, 20):
        yield Case("tokens", "merged", count, lambda lab, c=count: merge_tokens(lab.model, c))
    for series, fuse in (("dropped", False), ("dropped, with one for all that go", True)):
        for rate in (0.9, 0.8, 0.7, 0.5):
            yield Case(
                "tokens",
                series,
                rate,
                lambda lab, r=rate, f=fuse: prune_tokens(lab.model, r, (0, 1, 2), fuse=f),
            )


def head_cases() -> Iterator[Case]:
    """Fewer heads."""
    for count in (1, 2, 3, 4, 6, 8):
        yield Case("heads", "least important first", count, lambda lab, c=count: without(lab, c))
    for count, order in itertools.product((2, 4), range(2)):
        yield Case(
            "heads",
            f"in random order {order}",
            count,
            lambda lab, c=count, o=order: without(lab, c, o),
        )


def without(lab: Laboratory, count: int, order: int | None = None) -> VisionTransformer:
    """Without so many heads: the least important ones, or by the draw number `order`."""
    importance = lab.importance
    if order is not None:
        rng = np.random.default_rng(order)
        importance = [rng.random(values.shape) for values in importance]
    return prune_heads(lab.model, least_important(importance, count))


def weight_cases() -> Iterator[Case]:
    """Fewer weights that are not zero."""
    together, apart = (0.2, 0.4, 0.6, 0.8), (0.4, 0.6)
    for sparsity in together:
        yield Case(
            "weights",
            "of all layers together",
            sparsity,
            lambda lab, s=sparsity: pruned(lab, s, per_layer=False),
        )
    for sparsity in apart:
        yield Case(
            "weights", "layer by layer", sparsity, lambda lab, s=sparsity: pruned(lab, s, True)
        )
    for sparsity in (0.6, 0.4):
        yield Case(
            "weights",
            TRAINED,
            sparsity,
            lambda lab, s=sparsity: lab.trained_after_pruning(s),
        )


def growth_rows() -> Iterator[tuple[Row, Callable[[], Row]]]:
    """One attention layer of width 192 and 3 heads on one image of ever more patches."""
    full = Attention(192, 3, rng=np.random.default_rng(0))
    near = {"windows": ("window", 8), "neighbourhoods": ("neighbourhood", 7)}
    for side in (8, 16, 32, 64):
        for series, (kind, size) in near.items():
            layer = LocalAttention.of(full, Locality((side, side), size, kind))
            tokens = side**2 + 1
            x = np.random.default_rng(1).standard_normal((1, tokens, 192)).astype(np.float32)
            about = {"technique": "growth", "series": series, "setting": tokens}
            yield about, functools.partial(_growth, layer, full, x)


def _growth(layer: Attention, full: Attention, x: np.ndarray) -> Row:
    rounds = 15 if x.shape[1] > 500 else ROUNDS
    (ratio,) = time_ratios(lambda: full(Tensor(x)), lambda: layer(Tensor(x)), rounds=rounds)
    return {"time": ratio}


def deit_rows(weights: str, folder: str) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """DeiT-Tiny, 197 tokens: the time, and how many photographs keep their class."""
    found = load_pretrained(weights)
    paths = [path for path in sorted(Path(folder).iterdir()) if path.suffix in (".jpg", ".png")]
    images = np.stack([found.preprocessing(found.preprocessing.load(path)) for path in paths])
    for count in (4, 8, 16):
        about = {"technique": "deit", "series": "merged", "setting": count}
        yield about, functools.partial(_deit, found.model, merge_tokens(found.model, count), images)


def _deit(model: VisionTransformer, shortened: VisionTransformer, images: np.ndarray) -> Row:
    same = predict(shortened, images).argmax(1) == predict(model, images).argmax(1)
    two = images[:2]
    (ratio,) = time_ratios(lambda: model(two), lambda: shortened(two), rounds=15)
    return {"time": ratio, "same": int(same.sum()), "photographs": len(images)}


def rows_of_cases(lab: Laboratory, trained: bool) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """What a row about the packaged model is about, and how to measure it."""
    for case in cases():
        if (case.series == TRAINED) == trained:
            about = {name: getattr(case, name) for name in ("technique", "series", "setting")}
            yield about, functools.partial(lab.measure, case)


def other_rows(
    lab: Laboratory, options: argparse.Namespace
) -> Iterator[tuple[Row, Callable[[], Row]]]:
    """All other rows."""
    about = {"technique": "importance", "series": "importance", "setting": IMPORTANCE_IMAGES}
    yield about, lambda: {"heads": [values.tolist() for values in lab.importance]}
    yield from growth_rows()
    if options.deit and options.photos:
        yield from deit_rows(options.deit, options.photos)


def main() -> None:
    """Measure what is missing, then draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="CIFAR-10, in either layout")
    parser.add_argument("--deit", help="DeiT-Tiny's weights")
    parser.add_argument("--photos", help="a folder of photographs for DeiT-Tiny")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("--only", help="measure this technique alone")
    options = parser.parse_args()
    rows: list[Row] = json.loads(ROWS.read_text()) if ROWS.exists() else []
    started = time.perf_counter()
    lab = Laboratory(options.data_dir, rows)
    for step in steps(lab, rows, options):
        if time.perf_counter() - started > options.seconds:
            print("stopped: run again for the rest")
            return
        step()
        ROWS.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    if options.only:
        return
    draw_all(rows, IMAGES)
    page = PAGE.read_text()
    for marker, table in tables(rows).items():
        page = replace_between(page, marker, table)
    PAGE.write_text(page)


def steps(
    lab: Laboratory, rows: list[Row], options: argparse.Namespace
) -> Iterator[Callable[[], None]]:
    """What is left to do, what takes longest last; each step changes `rows`."""
    yield from _races(lab, rows, options.only)
    quick = itertools.chain(other_rows(lab, options), rows_of_cases(lab, trained=False))
    yield from _missing(rows, quick, options.only)
    yield from _races(lab, rows, options.only)
    yield from _missing(rows, rows_of_cases(lab, trained=True), options.only)


def _races(lab: Laboratory, rows: list[Row], only: str | None) -> Iterator[Callable[[], None]]:
    for technique in ("tokens", "attention", "heads", "weights"):
        left = [row for row in rows if row["technique"] == technique and row["series"] != TRAINED]
        if not all("time" in row for row in left) and only in (None, technique):
            yield functools.partial(lab.add_times, rows, technique)


def _missing(
    rows: list[Row], wanted: Iterator[tuple[Row, Callable[[], Row]]], only: str | None
) -> Iterator[Callable[[], None]]:
    known = set(map(key_of, rows))
    for about, measure in wanted:
        if key_of(about) not in known and only in (None, about["technique"]):
            yield functools.partial(add, rows, about, measure)


def add(rows: list[Row], about: Row, measure: Callable[[], Row]) -> None:
    """Measure a row and say so."""
    rows.append(about | measure())
    print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
