"""Read what agents send. An agent passes on words of ComfyUI and of customers' graphs: whatever they hold must be storable.

What is odd in it (NUL characters, half character pairs) is taken out and what is long is cut, so that a job's end is
never lost to the text of an error; what is wrong in the protocol itself is refused.
"""

from __future__ import annotations

import json
import math
from typing import Any

from controlplane.kernel.errors import Invalid, Malformed
from controlplane.kernel.jsonbody import clean

MAX_BODY_BYTES = 4_000_000
MAX_DEPTH = 64
MAX_DETAILS_BYTES = 16_000
MAX_ITEMS = 1000
MAX_SECONDS = 1e8
_SEE = "See docs/worker-protocol.md."


def read_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`; raises Malformed."""
    if len(raw) > MAX_BODY_BYTES:
        raise Malformed("body_too_large", "The body is too large.", "Send less per call.")
    try:
        value = json.loads(raw or b"{}", parse_constant=_no_constant, parse_float=_finite_float)
    except (ValueError, RecursionError):
        raise Malformed("malformed_body", "The body is not valid JSON.", "Send a JSON object.") from None
    if not isinstance(value, dict):
        raise Malformed("malformed_body", "The body is not a JSON object.", "Send a JSON object.")
    nested = raw.count(b"{") + raw.count(b"[") > MAX_DEPTH
    tidied: dict[str, Any] = _tidy(value, MAX_DEPTH) if nested or b"\\u" in raw else value
    return tidied


def listed_outputs(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The outputs a completion names, each with its index and hash; raises Invalid."""
    listed = objects(body, "outputs")
    for item in listed:
        if type(item.get("index")) is not int or not isinstance(item.get("sha256"), str) or not isinstance(item.get("measurements") or {}, dict):
            raise Invalid("output_malformed", "An output lacks its index or hash.", _SEE)
    return listed


def failure(body: dict[str, Any]) -> dict[str, Any] | None:
    """The error of a completion as it is kept: plain texts of a bounded length, details of a bounded size."""
    said = body.get("error")
    if not isinstance(said, dict):
        return None
    details = mapping(said, "details")
    if len(json.dumps(details)) > MAX_DETAILS_BYTES:
        details = {"left_out": f"more than {MAX_DETAILS_BYTES:,} bytes"}
    return {
        "code": text(said, "code", 64) or "unknown",
        "message": text(said, "message", 2000),
        "suggestion": text(said, "suggestion", 1000),
        "details": details,
    }


def timings(body: dict[str, Any]) -> dict[str, float]:
    """Measured seconds by name; what is no duration is left out."""
    return {name[:40]: float(value) for name, value in list(mapping(body, "timings").items())[:40] if _duration(value)}


def nodes(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Seconds per node, in the shape `Attempt.nodes` promises."""
    return [
        {
            "node": text(item, "node", 120),
            "class_type": text(item, "class_type", 120),
            "start_s": float(item["start_s"]) if _duration(item.get("start_s")) else 0.0,
            "run_s": float(item["run_s"]) if _duration(item.get("run_s")) else 0.0,
            "cached": item.get("cached") is True,
        }
        for item in objects(body, "nodes")
    ]


def objects(body: dict[str, Any], field: str) -> list[dict[str, Any]]:
    value = body.get(field)
    return [item for item in value[:MAX_ITEMS] if isinstance(item, dict)] if isinstance(value, list) else []


def mapping(body: dict[str, Any], field: str) -> dict[str, Any]:
    value = body.get(field)
    return value if isinstance(value, dict) else {}


def texts(body: dict[str, Any], field: str, size: int, most: int) -> list[str]:
    """The strings in a list, cut to `size`; empty when it is none."""
    value = body.get(field)
    return [item[:size] for item in value if isinstance(item, str)][:most] if isinstance(value, list) else []


def text(body: dict[str, Any], field: str, size: int) -> str:
    value = body.get(field)
    return value[:size] if isinstance(value, str) else ""


def small(body: dict[str, Any], field: str, default: int = 0) -> int:
    """A whole number that fits every column; raises Invalid."""
    value = body.get(field, default)
    if type(value) is not int or not 0 <= value < 2**15:
        raise Invalid("field_invalid", f"{field} must be a small whole number.", _SEE, details={"field": field})
    return value


def countdown(body: dict[str, Any], field: str) -> float | None:
    """Seconds until something happens, at most a day; None when it is not said, or is no number."""
    value = body.get(field)
    return seconds(value, most=86_400) if _number(value) else None


def share(value: object) -> float:
    """A number from 0 to 1."""
    return min(max(float(value), 0.0), 1.0) if _number(value) else 0.0  # type: ignore[arg-type]


def seconds(value: object, *, most: float) -> float:
    """A duration from 0 to `most`; 0 when it is none."""
    return min(max(float(value), 0.0), most) if _number(value) else 0.0  # type: ignore[arg-type]


def header(value: str, size: int) -> str:
    """A header's text without what no database keeps."""
    return clean(value.replace("\x00", ""))[:size]


def _number(value: object) -> bool:
    """Whether it is a number that a float can hold."""
    return math.isfinite(value) if type(value) is float else type(value) is int and value.bit_length() < 512


def _duration(value: object) -> bool:
    return _number(value) and 0 <= value <= MAX_SECONDS  # type: ignore[operator]


def _tidy(value: Any, depth: int) -> Any:
    """`value` with NUL characters and half pairs taken out of every text; raises Malformed when it is nested too deeply."""
    if isinstance(value, str):
        return clean(value.replace("\x00", ""))
    if isinstance(value, dict | list) and depth == 0:
        raise Malformed("body_too_deep", f"The body is nested more than {MAX_DEPTH} levels deep.", "Send a flatter object.")
    if isinstance(value, list):
        return [_tidy(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {_tidy(name, 1): _tidy(item, depth - 1) for name, item in value.items()}
    return value


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(digits)
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)
