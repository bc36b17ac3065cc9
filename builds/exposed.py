"""One node input that customers may set: where it sits in the graph, and what it accepts.

Kept as a plain list of objects on the version, because it is part of what the version is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

KINDS = ("value", "image", "audio", "video", "file")
TYPES = ("string", "integer", "number", "boolean")


@dataclass(frozen=True)
class ExposedInput:
    """`type` is a JSON Schema type; a choice is a type with an `enum`; a file has a `kind` other than value."""

    name: str
    node: str
    input: str
    type: str
    title: str = ""
    description: str = ""
    default: Any = None
    minimum: int | float | None = None
    maximum: int | float | None = None
    step: int | float | None = None
    enum: list[Any] | None = None
    required: bool = False
    kind: str = "value"
    randomize: bool = False
    multiline: bool = False
    max_length: int | None = None

    @classmethod
    def load(cls, item: ExposedInput | Mapping[str, Any]) -> ExposedInput:
        """From its stored form; keys of later releases are ignored."""
        if isinstance(item, ExposedInput):
            return item
        return cls(**{key: item[key] for key in _FIELDS if key in item})

    def dump(self) -> dict[str, Any]:
        """Its stored form."""
        return asdict(self)

    @property
    def is_file(self) -> bool:
        return self.kind != "value"

    @property
    def multiple_of(self) -> int | None:
        """The step, where every value of the range and the default lie on it; ComfyUI itself never enforces one."""
        if self.type != "integer" or self.enum is not None or not isinstance(self.step, int) or self.step <= 1:
            return None
        on_step = all(isinstance(value, int) and value % self.step == 0 for value in (self.minimum, self.default) if value is not None)
        return self.step if on_step else None


_FIELDS = tuple(field.name for field in fields(ExposedInput))


def load_all(items: Iterable[ExposedInput | Mapping[str, Any]]) -> list[ExposedInput]:
    """The exposed inputs of a version, in order."""
    return [ExposedInput.load(item) for item in items]


def storable(text: str) -> bool:
    """Whether every database can keep `text`: no NUL, no lone surrogate."""
    if "\x00" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
