"""A customer's inputs: what a version exposes, the schema that says so, the check that enforces it, values out of forms.

The parts live in `exposed`, `schema` and `validation`; other rooms come through here.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from builds.exposed import ExposedInput, load_all
from builds.schema import schema
from builds.validation import validate, validate_some, validator

__all__ = ["ExposedInput", "exposed_of", "fill_random", "from_text", "load_all", "schema", "validate", "validate_some"]


def exposed_of(version: Any) -> list[ExposedInput]:
    """The exposed inputs of a version, kept by its id; do not change the list."""
    return validator(version).exposed


def fill_random(version: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` and, for every random input left out, a fresh value of its range."""
    filled = dict(values)
    for one in exposed_of(version):
        if one.randomize and one.name not in filled:
            # Below 2^53, so that a browser that shows the number shows the right one.
            low = max(int(one.minimum or 0), 0) if (one.maximum is None or one.maximum >= 0) else int(one.minimum or one.maximum)
            high = min(int(one.maximum), 2**53 - 1) if one.maximum is not None else 2**53 - 1
            step = one.multiple_of or 1
            low += -low % step
            high = max(high, low)
            filled[one.name] = low + step * secrets.randbelow((high - low) // step + 1)
    return filled


def from_text(version: Any, fields: Mapping[str, str]) -> dict[str, Any]:
    """Form or multipart text turned into the types the version asks for; what does not parse stays text and is refused by `validate`.

    An empty field counts as left out, except where free text is taken.
    """
    by_name = {one.name: one for one in exposed_of(version)}
    values: dict[str, Any] = {}
    for name, text in fields.items():
        one = by_name.get(name)
        if one is None:
            values[name] = text
        elif text != "" or (one.type == "string" and one.enum is None and not one.is_file and not one.required):
            values[name] = _parsed(one.type, text)
    return values


def _parsed(kind: str, text: str) -> Any:
    try:
        if kind == "integer" and len(text) <= 40:
            return int(text)
        if kind == "number" and len(text) <= 400:
            return float(text)
    except ValueError:
        return text
    if kind == "boolean":
        return {"true": True, "on": True, "1": True, "yes": True, "false": False, "off": False, "0": False, "no": False}.get(text.strip().lower(), text)
    return text
