"""Values as text, the way a real server prints them: arrays look like PyTorch's tensors there."""

from __future__ import annotations

from typing import Any

import numpy as np

EDGE, LONG, DIGITS = 3, 1000, 4


def text(value: Any) -> str:
    """What `str` gives on a real server for a node's output."""
    if isinstance(value, np.ndarray):
        return _tensor(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_part(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_part(item) for item in value) + "]"
    return str(value)


def _part(value: Any) -> str:
    return text(value) if isinstance(value, np.ndarray | dict | list) else repr(value)


def _tensor(array: np.ndarray[Any, Any]) -> str:
    digits = 0 if bool(np.all(array == np.round(array))) else DIGITS
    body = np.array2string(array, separator=", ", precision=digits, floatmode="fixed", threshold=LONG, edgeitems=EDGE, max_line_width=80, prefix="tensor(")
    return f"tensor({body})"
