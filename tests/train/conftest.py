"""What the tests of training share: a tiny model among the named ones."""

from __future__ import annotations

import pytest
from train import tiny

from numpyvit.models.variants import VARIANTS


@pytest.fixture(autouse=True)
def tiny_variant(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which a model of two small blocks can be made."""
    monkeypatch.setitem(VARIANTS, tiny.NAME, tiny.CONFIG)
    return tiny.NAME
