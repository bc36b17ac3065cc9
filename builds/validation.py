"""Check what a customer sends against a version's exposed inputs, exactly and fast.

A version never changes, so its compiled checks are kept per version id. Types are strict as in JSON:
true is no number, "512" is no number at all; 512.0 is the whole number 512, as JSON Schema says.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from threading import Lock
from typing import Any

from builds.exposed import ExposedInput, load_all, storable
from controlplane.kernel.errors import Invalid
from controlplane.kernel.ids import parse_uuid

MAX_TEXT = 10_000
MAX_FILE_TEXT = 12_000_000
MAX_SHOWN = 20
KEPT = 1_000

Check = Callable[[Any], Any]

_UUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_DATA = re.compile(r"data:([a-zA-Z0-9.+-]{1,40}/[a-zA-Z0-9.+-]{1,80})((?:;[a-zA-Z0-9_.+=-]{1,80})*);base64,")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_NAMES = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}


class Fault(Exception):
    """One value that is not accepted."""

    def __init__(self, code: str, message: str, suggestion: str, **details: Any) -> None:
        super().__init__(code)
        self.code, self.message, self.suggestion, self.details = code, message, suggestion, details


class Validator:
    """The compiled checks of one version."""

    def __init__(self, exposed: list[ExposedInput]) -> None:
        self.exposed = exposed
        self.checks: dict[str, Check] = {one.name: compile_field(one) for one in exposed}
        self.required = [one for one in exposed if one.required]
        # Read once: only immutable values are defaults, so no copy is needed.
        self.defaults = {one.name: one.default for one in exposed if one.default is not None and not one.randomize and not one.required}

    def __call__(self, values: Any) -> dict[str, Any]:
        """A normalised copy with defaults filled in, in the order of the exposed inputs."""
        if not isinstance(values, Mapping):
            raise Invalid("inputs_not_object", "inputs is not an object.", 'Send {"inputs": {"name": value, …}}.', details={"field": "inputs"})
        given, faults = self._checked(values)
        for one in self.required:
            if one.name not in values:
                what = f"a {one.kind} file" if one.is_file and one.kind != "file" else "a file" if one.is_file else _NAMES[one.type]
                faults.append((one.name, Fault("missing_file" if one.is_file else "missing_field", f"{one.name} is missing.", f"Send {one.name}: {what}.")))
        if faults:
            raise _refusal(faults)
        defaults = self.defaults
        return {name: given[name] if name in given else defaults[name] for name in self.checks if name in given or name in defaults}

    def some(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Only what is given, normalised: nothing counts as missing and no default is filled in."""
        given, faults = self._checked(values)
        if faults:
            raise _refusal(faults)
        return given

    def _checked(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[tuple[str, Fault]]]:
        given: dict[str, Any] = {}
        faults: list[tuple[str, Fault]] = []
        for name, value in values.items():
            check = self.checks.get(name)
            if check is None:
                faults.append((_safe(name), self._unknown(name)))
                if len(faults) > MAX_SHOWN:
                    break
                continue
            try:
                given[name] = check(value)
            except Fault as fault:
                faults.append((name, fault))
        return given, faults

    def _unknown(self, name: Any) -> Fault:
        near = difflib.get_close_matches(str(name)[:100], self.checks, n=1)
        suggestion = (
            f"Did you mean {near[0]}?"
            if near
            else f"It takes: {', '.join(list(self.checks)[:MAX_SHOWN])}."
            if self.checks
            else "This workflow takes no inputs."
        )
        return Fault("unknown_field", f"There is no input called {_safe(name)}.", suggestion, known=list(self.checks)[:MAX_SHOWN])


_kept: dict[Any, Validator] = {}
_lock = Lock()


def validator(version: Any) -> Validator:
    """The compiled checks of `version`, kept by its id."""
    found = _kept.get(version.pk)
    if found is None:
        found = Validator(load_all(version.inputs))
        with _lock:
            if len(_kept) >= KEPT:
                _kept.clear()
            _kept[version.pk] = found
    return found


def validate(version: Any, inputs: Any) -> dict[str, Any]:
    """`inputs` normalised, defaults filled in; random inputs left out stay out. Raises Invalid naming the field."""
    return validator(version)(inputs)


def validate_some(version: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """These values as the version takes them, whatever else it asks for. Raises Invalid naming the field."""
    return validator(version).some(values)


def compile_field(one: ExposedInput) -> Check:
    """The check of one exposed input: returns the normalised value or raises Fault."""
    if one.is_file:
        return partial(_file, one)
    if one.enum is not None:
        return partial(_choice, one, {(_kind(option), option): option for option in one.enum})
    if one.type == "integer":
        return partial(_integer, one, one.minimum, one.maximum, one.multiple_of)
    if one.type == "number":
        return partial(_number, one, one.minimum, one.maximum)
    if one.type == "boolean":
        return partial(_boolean, one)
    return partial(_text, one, one.max_length or MAX_TEXT)


def _integer(one: ExposedInput, low: Any, high: Any, step: int | None, value: Any) -> int:
    value = _whole(value)
    if type(value) is not int:
        raise _wrong_type(one, value)
    if (low is not None and value < low) or (high is not None and value > high) or value.bit_length() > 64:
        raise _out_of_range(one, value)
    if step is not None and value % step:
        below = value - value % step
        near = [candidate for candidate in (below, below + step) if (low is None or candidate >= low) and (high is None or candidate <= high)]
        raise Fault("not_a_multiple", f"{one.name} is not a multiple of {step}.", f"Choose {' or '.join(map(str, near))}.", multiple_of=step)
    return value


def _number(one: ExposedInput, low: Any, high: Any, value: Any) -> float:
    if type(value) is int:
        if value.bit_length() > 900:
            raise _out_of_range(one, value)
    elif type(value) is not float:
        raise _wrong_type(one, value)
    elif not math.isfinite(value):
        raise Fault("not_a_number", f"{one.name} is NaN or Infinity.", "Send a finite number.")
    value = float(value)
    if (low is not None and value < low) or (high is not None and value > high):
        raise _out_of_range(one, value)
    return value


def _boolean(one: ExposedInput, value: Any) -> bool:
    if type(value) is not bool:
        raise _wrong_type(one, value)
    return value


def _text(one: ExposedInput, limit: int, value: Any) -> str:
    if type(value) is not str:
        raise _wrong_type(one, value)
    if len(value) > limit:
        raise Fault("too_long", f"{one.name} has {len(value):,} characters; at most {limit:,} are accepted.", "Shorten it.", max_length=limit)
    if not storable(value):
        raise Fault("invalid_text", f"{one.name} holds a NUL character or half a character pair.", "Send clean Unicode text.")
    return value


def _choice(one: ExposedInput, allowed: dict[tuple[str, Any], Any], value: Any) -> Any:
    if one.type == "integer":
        value = _whole(value)
    kind = _kind(value)
    if kind != one.type and not (one.type == "number" and kind == "integer"):
        raise _wrong_type(one, value)
    for key in ((kind, value), ("number", value), ("integer", value)):
        if key in allowed:
            return allowed[key]
    options = [option for _, option in allowed]
    near = difflib.get_close_matches(_shown(value), [str(option) for option in options], n=1)
    suggestion = f"Did you mean {near[0]}?" if near else f"Choose one of: {', '.join(str(option) for option in options[:MAX_SHOWN])}."
    raise Fault("not_in_list", f"{one.name} cannot be {_shown(value)}.", suggestion, allowed=options[:100])


def _file(one: ExposedInput, value: Any) -> str:
    if type(value) is not str:
        raise _wrong_type(one, value)
    if _UUID.fullmatch(value):
        return str(parse_uuid(value))
    if value == one.default:
        return value
    head = _DATA.match(value[:400])
    if head is None:
        raise Fault("not_a_file", f"{one.name} is neither a file id nor a data: URL.", "Send the file to POST /v1/files and give its id here.", kind=one.kind)
    if len(value) > MAX_FILE_TEXT:
        raise Fault("file_too_large", f"{one.name} is too large to travel inside the request.", "Send it to POST /v1/files and give its id here.")
    if not _BASE64.fullmatch(value, head.end()):
        raise Fault("not_a_file", f"{one.name} is not valid base64.", "Encode the file as base64, without line breaks.", kind=one.kind)
    family = head.group(1).lower().partition("/")[0]
    if one.kind in ("image", "audio", "video") and family not in (one.kind, "application"):
        raise Fault("wrong_media_type", f"{one.name} takes {one.kind} files, not {head.group(1)}.", f"Send {one.kind} data.", kind=one.kind)
    return value


def _whole(value: Any) -> Any:
    """512.0 as 512; anything else as it is. JSON Schema counts a number without a fraction as an integer."""
    return int(value) if type(value) is float and value.is_integer() else value


def _kind(value: Any) -> str:
    return {bool: "boolean", int: "integer", float: "number", str: "string"}.get(type(value), "")


def _wrong_type(one: ExposedInput, value: Any) -> Fault:
    got = {bool: "a boolean", int: "a number", float: "a number with a fraction part", str: "text", list: "a list", dict: "an object", type(None): "null"}
    wanted = "a file id" if one.is_file else _NAMES[one.type]
    return Fault("wrong_type", f"{one.name} is {got.get(type(value), 'something else')}, but takes {wanted}.", f"Send {wanted}.", expected=one.type)


def _out_of_range(one: ExposedInput, value: Any) -> Fault:
    low, high = one.minimum, one.maximum
    reach = f"at least {low}" if high is None else f"at most {high}" if low is None else f"{low} to {high}"
    return Fault("out_of_range", f"{one.name} is {_shown(value)}, outside its range.", f"Send {reach}.", minimum=low, maximum=high)


def _refusal(faults: list[tuple[str, Fault]]) -> Invalid:
    name, first = faults[0]
    details: dict[str, Any] = {"field": name, **first.details}
    if len(faults) > 1:
        details["errors"] = [
            {"field": field, "code": fault.code, "message": fault.message, "suggestion": fault.suggestion} for field, fault in faults[:MAX_SHOWN]
        ]
    return Invalid(first.code, first.message, first.suggestion, details=details)


def _shown(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 200:
        return "a very large number"
    return _safe(value, 60)


def _safe(value: Any, limit: int = 100) -> str:
    return str(value)[:limit].encode("ascii" if not storable(str(value)[:limit]) else "utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
