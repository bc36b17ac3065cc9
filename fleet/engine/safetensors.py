"""Read and write safetensors files: an 8-byte header length, a JSON header, raw data."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

LONGEST_HEADER = 100_000_000
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}


class BadFile(ValueError):
    """The file is not a readable safetensors file."""


def header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a file and where its data begins."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else LONGEST_HEADER + 1
        if length > min(LONGEST_HEADER, path.stat().st_size):
            raise BadFile(f"{path.name}: header length {length}")
        return json.loads(file.read(length)), 8 + length


def metadata(path: Path) -> dict[str, str]:
    return dict(header(path)[0].get("__metadata__", {}))


def load(path: Path) -> dict[str, Any]:
    """The arrays of a file by name."""
    import numpy as np

    described, start = header(path)
    raw = path.read_bytes()[start:]
    arrays: dict[str, Any] = {}
    for name, facts in described.items():
        if name == "__metadata__":
            continue
        begin, end = facts["data_offsets"]
        kind = np.dtype(TYPES[facts["dtype"]])
        if end - begin != math.prod(facts["shape"]) * kind.itemsize or end > len(raw):
            raise BadFile(f"{path.name}: {name} does not fit its shape")
        arrays[name] = np.frombuffer(raw[begin:end], dtype=kind).reshape(facts["shape"])
    return arrays


def save(path: Path, arrays: dict[str, Any], metadata: dict[str, str] | None = None) -> None:
    import numpy as np

    names = {np.dtype(code): name for name, code in TYPES.items()}
    described: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, array in arrays.items():
        described[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    head = json.dumps(described, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).tobytes())
