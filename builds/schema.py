"""The JSON Schema (2020-12) of what a customer may send: one property for each exposed input.

It promises exactly what `builds.validation` enforces; form, OpenAPI document and docs are made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from builds.exposed import ExposedInput, load_all
from builds.validation import MAX_FILE_TEXT, MAX_TEXT

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_FILE_SENTENCE = "The id of a file sent to POST /v1/files, or a data: URL."


def schema(exposed: Iterable[ExposedInput | Mapping[str, Any]]) -> dict[str, Any]:
    """An object schema that accepts nothing it does not name."""
    items = load_all(exposed)
    return {
        "$schema": DIALECT,
        "type": "object",
        "properties": {one.name: _property(one, order) for order, one in enumerate(items)},
        "required": [one.name for one in items if one.required],
        "additionalProperties": False,
    }


def _property(one: ExposedInput, order: int) -> dict[str, Any]:
    said: dict[str, Any] = {"type": one.type, "title": one.title or one.name}
    description = " ".join(part for part in (one.description, _FILE_SENTENCE if one.is_file else "") if part)
    if description:
        said["description"] = description
    if one.default is not None:
        # A random input left out gets a fresh value, so its value in the graph is an example and no default.
        said["examples" if one.randomize else "default"] = [one.default] if one.randomize else one.default
    if one.enum is not None:
        said["enum"] = list(one.enum)
    elif one.type in ("integer", "number"):
        for key, value in (("minimum", one.minimum), ("maximum", one.maximum), ("multipleOf", one.multiple_of)):
            if value is not None:
                said[key] = value
    elif one.type == "string":
        said["maxLength"] = MAX_FILE_TEXT if one.is_file else one.max_length or MAX_TEXT
    if one.default is not None and not one.is_file:
        said["examples"] = [one.default]
    said |= {"x-node": one.node, "x-input": one.input, "x-kind": one.kind, "x-order": order}
    said |= {f"x-{flag}": True for flag in ("randomize", "multiline") if getattr(one, flag)}
    return said
