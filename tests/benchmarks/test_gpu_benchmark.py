from __future__ import annotations

import numpy
import pytest

from benchmarks import gpu
from numpyvit.models import ViTConfig
from numpyvit.train import WorkerPool

TINY = ViTConfig(image_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2, num_classes=10)


def test_without_a_gpu_it_says_so_and_writes_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "missing", lambda: "there is no GPU")
    gpu.main(["--out", str(tmp_path)])
    assert capsys.readouterr().out == "skipped: gpu: there is no GPU\n"
    assert not list(tmp_path.iterdir())


def test_contenders_of_a_step_agree_where_the_card_is_the_host():
    pytest.importorskip("torch")
    with WorkerPool(1) as pool:
        calls = gpu.training(TINY, 6, "cpu", [pool, pool])
        assert list(calls) == [gpu.REFERENCE, gpu.OURS, gpu.HOST]
        gpu.check("step", calls)
        rows = gpu.measure("step", calls, 1)
    assert [row["contender"] for row in rows] == list(calls)


def test_contenders_of_attention_agree_where_the_card_is_the_host():
    pytest.importorskip("torch")
    calls = gpu.attention((2, 5, 4), "cpu")
    assert list(calls) == [gpu.REFERENCE, gpu.OURS, gpu.HOST]
    gpu.check("attention", calls)


def test_a_result_that_is_not_the_hosts_is_refused():
    calls = {gpu.OURS: lambda: [numpy.array([1.1])], gpu.HOST: lambda: [numpy.array([1.0])]}
    with pytest.raises(ValueError, match=r"numpyvit on CuPy is 0\.1 away from the host's 1"):
        gpu.check("step", calls)
