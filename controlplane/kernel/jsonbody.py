"""Read a JSON body strictly: what could mean two things, or could not be kept, is refused before anything looks at it.

Refused: what is not UTF-8, NaN and Infinity, a field given twice, nesting past 64, NUL characters and half
character pairs (no database keeps them), and anything but an object at the top.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any

from controlplane.kernel.errors import Invalid, Malformed

MAX_DEPTH = 64


def load(raw: bytes) -> dict[str, Any]:
    """The object in `raw`; no bytes at all is an empty object."""
    if not raw:
        return {}
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_once, parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError:
        raise Malformed("body_not_utf8", "The body is not UTF-8.", "Encode the JSON as UTF-8.") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as exc:
        at = f" (line {exc.lineno}, column {exc.colno})" if isinstance(exc, json.JSONDecodeError) else ""
        raise Malformed("json_invalid", f"The body is not valid JSON{at}.", "Send one JSON object.") from None
    if not isinstance(value, dict):
        raise Malformed("json_not_object", "The body is not a JSON object.", 'Send an object, for instance {"inputs": {}}.')
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH or b"\\u" in raw:
        _check(value)
    return value


def only(body: dict[str, Any], known: Collection[str]) -> None:
    """Raise Invalid for a field that is not one of `known`."""
    if unknown := [name for name in body if name not in known]:
        import difflib

        near = difflib.get_close_matches(unknown[0][:100], known, n=1)
        raise Invalid(
            "unknown_field",
            f"There is no field {unknown[0][:100]!r} here.",
            f"Did you mean {near[0]}?" if near else f"Fields are: {', '.join(sorted(known))}.",
            details={"field": unknown[0][:100]},
        )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Malformed("json_duplicate_field", f"The field {twice[:100]!r} is given twice.", "Give each field once.", details={"field": clean(twice[:100])})
    return made


def _refuse_constant(name: str) -> Any:
    raise Malformed("json_not_a_number", f"{name} is not JSON.", "Send finite numbers only.")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Malformed("json_not_a_number", f"The number {text[:40]} is too large.", "Send finite numbers only.")
    return value


def _check(top: Any) -> None:
    """Depth and storable text, without recursion."""
    layer, depth = [top], 0
    while layer:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        below: list[Any] = []
        for value in layer:
            if isinstance(value, dict):
                for name in value:
                    _check_text(name)
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str):
                _check_text(value)
        layer = below


def _check_text(text: str) -> None:
    if "\x00" in text or clean(text) != text:
        raise Malformed("json_text_invalid", "A text in the body holds a NUL character or half a character pair.", "Send clean Unicode text.")


def clean(text: str) -> str:
    """`text` without half character pairs, so that it can be written out."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _too_deep() -> Malformed:
    return Malformed("json_too_deep", f"The body is nested more than {MAX_DEPTH} levels deep.", "Send a flatter object.")
