"""An editor's wishes for one exposed input, laid over what the node offers: narrower is fine, wider is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from builds.exposed import KINDS, TYPES, ExposedInput, storable
from builds.validation import Fault, compile_field
from controlplane.kernel.errors import Invalid

MAX_TEXT_EVER = 100_000
_BLOB = re.compile(r"blob:[0-9a-f]{64}")


def overlay(offered: ExposedInput, wanted: Mapping[str, Any], *, known: bool) -> ExposedInput:
    """`offered` with the keys of `wanted` applied; `known` says whether a node library vouches for the offered type."""
    values = offered.dump()
    for key, limit in (("title", 120), ("description", 500)):
        text = wanted.get(key)
        if text is not None and text != "":
            if not isinstance(text, str) or not storable(text):
                raise _refused("expose_malformed", offered, f"The {key} of {offered.name} is not plain text.", "Write it as text.")
            values[key] = text[:limit]
    values["type"] = _type(offered, wanted.get("type"), known=known)
    values["kind"] = _kind(offered, wanted.get("kind"))
    if values["kind"] != "value":
        values.update(enum=None, minimum=None, maximum=None, step=None, randomize=False)
    values |= _range(offered, wanted, values["type"])
    values["enum"] = _enum(offered, wanted.get("enum"))
    if wanted.get("max_length") is not None:
        length = wanted["max_length"]
        if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= MAX_TEXT_EVER:
            raise _refused(
                "expose_malformed", offered, f"max_length of {offered.name} is not a whole number from 1 to {MAX_TEXT_EVER:,}.", "Choose one in that range."
            )
        values["max_length"] = length
    for flag in ("multiline", "randomize"):
        if isinstance(wanted.get(flag), bool):
            values[flag] = wanted[flag] and (flag == "multiline" or (values["type"] == "integer" and values["enum"] is None))
    return _default(ExposedInput.load(values), offered, wanted)


def _type(offered: ExposedInput, wanted: Any, *, known: bool) -> str:
    if wanted in (None, "", offered.type):
        return offered.type
    narrower = (offered.type, wanted) == ("number", "integer")
    guessed = not known and (offered.type, wanted) == ("integer", "number")
    if wanted not in TYPES or not (narrower or guessed):
        raise _refused("expose_wrong_type", offered, f"{offered.name} takes {offered.type}, not {wanted}.", f"Leave the type out, or say {offered.type}.")
    return str(wanted)


def _kind(offered: ExposedInput, wanted: Any) -> str:
    if wanted in (None, "", offered.kind):
        return offered.kind
    # A file input never becomes free text: a customer could then name any file on the worker.
    if wanted not in KINDS or offered.type != "string" or wanted == "value" or offered.enum is not None:
        raise _refused("expose_wrong_kind", offered, f"{offered.name} is of kind {offered.kind} and cannot become {wanted}.", "Leave the kind out.")
    return str(wanted)


def _range(offered: ExposedInput, wanted: Mapping[str, Any], type_name: str) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for key in ("minimum", "maximum", "step"):
        value = wanted.get(key)
        if value is None:
            continue
        whole = isinstance(value, int)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300 or (type_name == "integer" and not whole):
            raise _refused("expose_malformed", offered, f"{key} of {offered.name} is not a number of its type.", "Give a number.")
        if type_name not in ("integer", "number"):
            raise _refused("expose_malformed", offered, f"{offered.name} is {type_name}, which has no {key}.", f"Leave {key} out.")
        changed[key] = value
    if "step" in changed and changed["step"] <= 0:
        raise _refused("expose_malformed", offered, f"The step of {offered.name} is not above 0.", "Give a step above 0.")
    low, high = changed.get("minimum", offered.minimum), changed.get("maximum", offered.maximum)
    too_low = offered.minimum is not None and low is not None and low < offered.minimum
    too_high = offered.maximum is not None and high is not None and high > offered.maximum
    if too_low or too_high:
        raise _refused(
            "range_wider_than_node",
            offered,
            f"{offered.name} would accept {low} to {high}, but its node allows {offered.minimum} to {offered.maximum}.",
            "Stay inside the node's range.",
            minimum=offered.minimum,
            maximum=offered.maximum,
        )
    if low is not None and high is not None and low > high:
        raise _refused("range_empty", offered, f"Nothing lies between {low} and {high}.", f"Swap minimum and maximum of {offered.name}.")
    return changed


def _enum(offered: ExposedInput, wanted: Any) -> list[Any] | None:
    if wanted is None or wanted == offered.enum:
        return offered.enum
    if not isinstance(wanted, list | tuple) or not wanted or offered.type == "boolean" or offered.is_file:
        raise _refused("expose_malformed", offered, f"The choices of {offered.name} are not a list of values.", "Give a list with at least one value.")
    check = compile_field(offered)
    for value in wanted:
        try:
            check(value)
        except Fault as fault:
            raise _refused(
                "range_wider_than_node", offered, f"{offered.name} would offer a value its node refuses: {fault.message}", fault.suggestion
            ) from None
    return list(wanted)


def _default(one: ExposedInput, offered: ExposedInput, wanted: Mapping[str, Any]) -> ExposedInput:
    values = one.dump()
    default = wanted.get("default", one.default)
    if wanted.get("default") is None and offered.default is not None and not _accepts(one, offered.default):
        default = None
    if default is not None:
        if one.is_file:
            if not isinstance(default, str) or not _BLOB.fullmatch(default):
                raise _refused("default_not_a_blob", one, f"The default of {one.name} is not a stored file.", "Give blob:<sha256> of a stored file.")
        else:
            try:
                default = compile_field(one)(default)
            except Fault as fault:
                raise _refused(
                    f"default_{fault.code}", one, f"The default of {one.name} is not accepted by its own rules: {fault.message}", fault.suggestion
                ) from None
    values["default"] = default
    values["required"] = bool(wanted.get("required")) or (default is None and not one.randomize)
    return ExposedInput.load(values)


def _accepts(one: ExposedInput, value: Any) -> bool:
    try:
        compile_field(one)(value)
    except Fault:
        return False
    return True


def _refused(code: str, one: ExposedInput, message: str, suggestion: str, **details: Any) -> Invalid:
    return Invalid(code, message, suggestion, details={"field": one.name, "node": one.node, "input": one.input, **details})
