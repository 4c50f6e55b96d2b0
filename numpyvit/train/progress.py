"""What a person sees of a training: a bar, and a line an epoch, on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from numpyvit.backend import require
from numpyvit.train.run import Progress, Row

# A line comes after so many things, but not sooner than after a while; and after so long a time.
EVERY, SOONEST_S, LATEST_S = 100, 5.0, 30.0


class Lines:
    """How far something is, where there is no bar: a line on stderr now and then.

    One comes after 100 more things and 5 s, or after 30 s; none where all are done. So little work
    has none.
    """

    def __init__(self, total: int, what: str, unit: str) -> None:
        self._total, self._what, self._unit = total, what, unit
        self._done = self._said = 0
        self._time = time.monotonic()

    def step(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        now = time.monotonic()
        waited = now - self._time
        is_due = waited >= (SOONEST_S if self._done - self._said >= EVERY else LATEST_S)
        if is_due and self._done < self._total:
            self._said, self._time = self._done, now
            line = f"{self._what}: {self._done:,} of {self._total:,} {self._unit}"
            print(line, file=sys.stderr, flush=True)  # noqa: T201


class ProgressBar:
    """A bar over all images of all epochs, with loss, accuracy, images per second and time left.

    Without tqdm, or where stderr is not a terminal, there is only the line an epoch. `unit` is what
    is counted: of a linear probe features, which are much faster than images. There are accuracies
    if the training `classifies`.
    """

    def __init__(
        self,
        total_images: int,
        done_images: int,
        epochs: int,
        unit: str = "images",
        classifies: bool = True,
    ) -> None:
        self.epochs, self.unit, self.classifies = epochs, unit, classifies
        self._bar: Any = None
        try:
            tqdm = require("tqdm", extra="full", purpose="the progress bar").tqdm
        except ImportError as error:
            self._print(str(error))
            return
        self._bar = tqdm(
            total=total_images,
            initial=done_images,
            unit=" img" if unit == "images" else f" {unit}",
            unit_scale=True,
            file=sys.stderr,
            disable=None,  # where stderr is not a terminal
            dynamic_ncols=True,
            smoothing=0.05,
            # Short enough for 80 columns, with what changes least in front.
            bar_format="{desc}{percentage:3.0f}%|{bar}| "
            "{rate_noinv_fmt}{postfix}, {remaining} left",
        )

    def batch(self, progress: Progress, images: int) -> None:
        """A batch of `images` is done."""
        if self._bar is None or self._bar.disable:
            return
        self._bar.set_description(f"epoch {progress.epoch + 1}/{self.epochs}", refresh=False)
        accuracy = f", accuracy {progress.correct / progress.count:.1%}" if self.classifies else ""
        self._bar.set_postfix_str(
            f"loss {progress.loss_sum / progress.count:.3f}{accuracy}", refresh=False
        )
        self._bar.update(images)

    def epoch(self, row: Row) -> None:
        """An epoch is done: print its line."""
        losses = [
            f"{words} loss {row[f'{name}_loss']:.4f}"
            + (f" accuracy {row[f'{name}_accuracy']:6.2%}" if self.classifies else "")
            for name, words in (("train", "train"), ("val", "validation"))
        ]
        rate = f"{row['images_per_second']:,.0f} {self.unit}/s"
        self._print("  ".join([f"epoch {row['epoch']:3d}/{self.epochs}", *losses, rate]))

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _print(self, line: str) -> None:
        if self._bar is not None and not self._bar.disable:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201


@contextlib.contextmanager
def counting(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar over `total` pictures; gives what to call with the number of those just done.

    Without tqdm, or where stderr is not a terminal, there is one line at the start, and more for
    many pictures.
    """
    try:
        tqdm = require("tqdm", extra="full", purpose="the progress bar").tqdm
    except ImportError:
        tqdm = None
    if tqdm is None or not sys.stderr.isatty():
        print(f"{what}: {total:,} pictures", file=sys.stderr, flush=True)  # noqa: T201
        yield Lines(total, what, "pictures").step
        return
    layout = "{desc}: {percentage:3.0f}%|{bar}| {rate_noinv_fmt}, {remaining} left"
    with tqdm(
        total=total, desc=what, unit=" img", file=sys.stderr, dynamic_ncols=True, bar_format=layout
    ) as bar:
        yield bar.update
