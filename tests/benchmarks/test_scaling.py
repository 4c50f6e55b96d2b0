from __future__ import annotations

import dataclasses

import pytest

from benchmarks.scaling import BASE, measure, panels, speed_up, worker_counts
from numpyvit.train import WorkerPool


@pytest.mark.parametrize(
    ("cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_workers_double_up_to_the_cores(cores, counts):
    assert worker_counts(cores) == counts


@pytest.mark.parametrize("quick", [True, False])
def test_a_panel_changes_one_size_at_a_time(quick):
    found = panels(quick)
    assert list(found) == ["batch", "depth", "width", "tokens"]
    allowed = {
        "batch": set(),
        "depth": {"depth"},
        "width": {"embed_dim"},
        "tokens": {"patch_size", "image_size"},
    }
    for axis, values in found.items():
        assert len({value for value, _, _ in values}) == len(values)
        for value, config, batch_size in values:
            names = [field.name for field in dataclasses.fields(config)]
            changed = {name for name in names if getattr(config, name) != getattr(BASE, name)}
            assert changed <= allowed[axis]
            sizes = {"batch": batch_size, "depth": config.depth, "width": config.embed_dim}
            assert value == (sizes | {"tokens": config.num_tokens})[axis]


def test_rows_tell_images_a_second():
    tiny = BASE.replace(image_size=8, embed_dim=8, depth=1, num_heads=2)
    with WorkerPool(1) as pool:
        (row,) = measure("depth", 1, tiny, 6, {1: pool}, 2)
    assert row["images_per_second"] == 6 / row["median_s"]
    assert (row["case"], row["contender"], row["ratio"]) == ("depth 1", "1 worker", 1.0)


def test_the_speed_up_is_the_ratio_of_medians():
    assert speed_up({"1 worker": [4.0, 6.0, 5.0], "2 workers": [2.0, 9.0, 2.5]}, 2) == 2.0
