"""What numpyvit adds to files that it writes for others: all that their names do not say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy
from numpy.typing import NDArray

from numpyvit.data import Preprocessing
from numpyvit.models import Labelling, config_from_dict, family_of
from numpyvit.weights.container import WeightFile
from numpyvit.weights.json_text import parse_object

METADATA = "numpyvit"  # the entry of a safetensors file's metadata
ENTRY = "__numpyvit_record__"  # the array of an .npz, the same text in bytes
_MOST_BYTES = 1 << 22


@dataclasses.dataclass(frozen=True)
class Record:
    """A model's name, configuration, classes and preprocessing."""

    name: str
    config: Any  # a ModelConfig
    labelling: Labelling
    preprocessing: Preprocessing

    def to_text(self) -> str:
        """As JSON."""
        fields = {
            "name": self.name,
            "family": family_of(self.config),
            "config": self.config.to_dict(),
            "labelling": dataclasses.asdict(self.labelling),
            "preprocessing": self.preprocessing.to_dict(),
        }
        return json.dumps(fields)

    def to_array(self) -> NDArray[Any]:
        """As an array of bytes."""
        return numpy.frombuffer(self.to_text().encode(), numpy.uint8)

    @classmethod
    def from_text(cls, text: str) -> Record:
        """What `to_text` gave; ValueError for anything else."""
        try:
            fields = parse_object(text.encode(), "the file", "its record")
            labelling = {name: tuple(values) for name, values in fields["labelling"].items()}
            record = cls(
                str(fields["name"]),
                config_from_dict(fields.get("family", "vit"), fields["config"]),
                Labelling(**labelling),
                Preprocessing.from_dict(fields["preprocessing"]),
            )
            record.labelling.check_fits(record.config)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"[Record] expected a numpyvit record, got another ({error})"
            ) from None
        return record


def find_record(file: WeightFile) -> Record | None:
    """The record in a file that numpyvit wrote for others; None where there is no whole one."""
    text = file.values.get(f"metadata.{METADATA}")
    stored = file.arrays.get(ENTRY)
    if text is None and stored is not None and stored.dtype == numpy.uint8:
        if stored.nbytes > _MOST_BYTES:
            return None
        text = stored.read().tobytes().decode("utf-8", "replace")
    if not isinstance(text, str) or len(text) > _MOST_BYTES:
        return None
    try:
        return Record.from_text(text)
    except ValueError:
        return None


def has_record(file: WeightFile) -> bool:
    """Whether a file has a record, whole or not."""
    return f"metadata.{METADATA}" in file.values or ENTRY in file.arrays


def without_record(names: Mapping[str, Any]) -> list[str]:
    """The names of a file's arrays but for the record's."""
    return [name for name in names if name != ENTRY]
