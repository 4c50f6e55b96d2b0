"""What a person sees of a training in a terminal."""

from __future__ import annotations

import contextlib
import io
import re
import time

import pytest

from numpyvit.train import Progress, ProgressBar, counting
from numpyvit.train.progress import Lines

ROW = {
    "epoch": 1,
    "train_loss": 2.25,
    "train_accuracy": 0.25,
    "val_loss": 2.5,
    "val_accuracy": 0.125,
    "images_per_second": 1234.5,
}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    return Terminal()


def test_the_bar_shows_epoch_loss_accuracy_speed_and_the_time_left(terminal):
    with contextlib.redirect_stderr(terminal):
        bar = ProgressBar(5_000_000, 2_000_000, 100)
        bar.batch(Progress(epoch=99, loss_sum=148.0, correct=63, count=64), 64)
        bar.close()
    last = re.split(r"[\r\n]+", terminal.getvalue().rstrip())[-1]
    assert re.match(r"epoch 100/100:  40%\|.*\| +\S+ img/s, ", last), last
    assert ", loss 2.312, accuracy 98.4%, " in last
    assert re.search(r", \S+ left$", last)
    assert len(re.sub(r"\|.*\|", "||", last)) < 80  # the bar takes what is left of a line


def test_the_line_of_an_epoch_stands_on_a_line_of_its_own(terminal):
    with contextlib.redirect_stderr(terminal):
        bar = ProgressBar(128, 0, 2)
        bar.batch(Progress(loss_sum=148.0, correct=16, count=64), 64)
        bar.epoch(ROW)
        bar.close()
    lines = [line.rpartition("\r")[2] for line in terminal.getvalue().split("\n")]
    assert [line for line in lines if line.startswith("epoch   1/2  train loss 2.25")], lines


def test_without_classes_there_is_no_accuracy(terminal, capsys):
    row = ROW | {"train_accuracy": None, "val_accuracy": None}
    with contextlib.redirect_stderr(terminal):
        bar = ProgressBar(128, 0, 2, classifies=False)
        bar.batch(Progress(loss_sum=148.0, count=64), 64)
        bar.close()
    assert ", loss 2.312, " in terminal.getvalue()
    ProgressBar(128, 0, 2, classifies=False).epoch(row)
    line = "epoch   1/2  train loss 2.2500  validation loss 2.5000  1,234 images/s\n"
    assert capsys.readouterr().err.endswith(line)
    assert "accuracy" not in terminal.getvalue()


def test_a_probe_s_line_counts_features(capsys):
    bar = ProgressBar(128, 0, 2, unit="features")
    bar.epoch(ROW)
    bar.close()
    assert capsys.readouterr().err.endswith(" 1,234 features/s\n")


def test_without_a_terminal_there_is_a_line_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    lines = Lines(1000, "done", "pictures")
    for count, seconds in ((99, 6), (1, 0), (100, 4.9), (1, 0.2), (1, 29), (1, 1), (797, 60)):
        now[0] += seconds
        lines.step(count)
    said = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert said == ["100", "201", "203"]


def test_pictures_are_counted_on_a_bar(terminal):
    with contextlib.redirect_stderr(terminal), counting(40, "features") as done:
        done(10)
        done(30)
    last = terminal.getvalue().split("\r")[-1]
    assert re.match(r"features: 100%\|.*\| +\S+ img/s, \S+ left\n$", last), last


def test_where_there_is_no_terminal_the_number_of_pictures_is_said_once():
    with contextlib.redirect_stderr(io.StringIO()) as stderr, counting(1400, "features") as done:
        done(1400)
    assert stderr.getvalue() == "features: 1,400 pictures\n"
