"""Read what a safetensors file is from its header alone; no weight is ever loaded.

The format (github.com/huggingface/safetensors, README "Format"): eight bytes little-endian length,
then that many bytes of JSON: tensor name to dtype, shape and offsets into the rest, and `__metadata__`
with texts. The file comes from strangers, so everything is checked as the reference reader does:
length within the file, offsets in order without gaps, sizes that follow from shape and dtype.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builds.dependencies import families
from controlplane.kernel.errors import Invalid, NotFound

MAX_HEADER = 25_000_000
MAX_TENSORS = 100_000
MAX_METADATA = 2_000_000
_BITS = {
    **{"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
    **{"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64},
}
_WORDS = {"F16": "fp16", "BF16": "bf16", "F32": "fp32", "F64": "fp64", "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2", "I8": "int8", "U8": "uint8", "F4": "fp4"}
# Of the metadata only what tells something of the model is kept.
_TOLD = (
    "modelspec.architecture",
    "modelspec.title",
    "modelspec.license",
    "ss_base_model_version",
    "ss_sd_model_name",
    "ss_network_dim",
    "ss_output_name",
    "format",
)


@dataclass(frozen=True)
class Header:
    """What a header tells. `size_bytes` is the whole file's; `precision` is that of most bytes; `because` names the deciding fact."""

    kind: str
    family: str
    precision: str
    because: str
    tensors: int
    parameters: int
    size_bytes: int
    licence: str
    metadata: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def from_file(path: Path) -> Header:
    """The facts of a file; raises NotFound, or Invalid `not_safetensors`."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(8)
            return read(start, stream.read(length(start, size)), size_bytes=size)
    except OSError as error:
        raise NotFound("file_unreadable", f"Cannot read {str(path)[:200]}: {error.strerror}.", "Check the path.") from error


def length(start: bytes, size_bytes: int) -> int:
    """How long the header is, from the first eight bytes of a file of that size."""
    if len(start) < 8:
        raise _refused("it is shorter than eight bytes")
    said = int.from_bytes(start, "little")
    if said > size_bytes - 8:
        raise _refused("its header is said to be longer than the file")
    if said > MAX_HEADER:
        raise _refused(f"its header is longer than {MAX_HEADER:,} bytes")
    return said


def read(start: bytes, header: bytes, *, size_bytes: int) -> Header:
    """The facts in a header; `start` are the eight bytes before it."""
    if len(header) != length(start, size_bytes) or not header.startswith(b"{"):
        raise _refused("its header is no JSON object")
    try:
        table = json.loads(header, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _refused("its header is no JSON object") from error
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refused("its metadata is not a table of texts")
    if sum(len(name) + len(value) for name, value in metadata.items()) > MAX_METADATA:
        metadata = {name: value for name, value in metadata.items() if len(value) < 1_000}
    if len(table) > MAX_TENSORS:
        raise _refused(f"it names more than {MAX_TENSORS:,} tensors")
    shapes, bits, parameters = _tensors(table, size_bytes - 8 - len(header))
    verdict = families.judge(shapes, metadata)
    most, _ = max(bits.items(), key=lambda item: (item[1], item[0]), default=("", 0))
    told = {name: metadata[name][:200] for name in _TOLD if metadata.get(name)}
    return Header(
        verdict.kind, verdict.family, _WORDS.get(most, most.lower()), verdict.because, len(shapes), parameters, size_bytes,
        metadata.get("modelspec.license", "")[:120], told,
    )  # fmt: skip


def _tensors(table: Mapping[str, Any], room: int) -> tuple[dict[str, tuple[int, ...]], Counter[str], int]:
    shapes: dict[str, tuple[int, ...]] = {}
    bits: Counter[str] = Counter()
    spans: list[tuple[int, int]] = []
    parameters = 0
    for name, entry in table.items():
        if not isinstance(entry, dict) or len(name) > 1_000:
            raise _refused("a tensor is not described by a table")
        dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
        if not isinstance(dtype, str) or dtype not in _BITS:
            raise _refused("a tensor has an unknown number format")
        if not isinstance(shape, list) or len(shape) > 16 or not all(_whole(one) for one in shape):
            raise _refused("a tensor has no shape")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(_whole(one) for one in offsets):
            raise _refused("a tensor has no place in the file")
        count = math.prod(shape)
        if (offsets[1] - offsets[0]) * 8 != -(-count * _BITS[dtype] // 8) * 8:
            raise _refused("a tensor's place does not fit its shape")
        spans.append((offsets[0], offsets[1]))
        shapes[name] = tuple(shape)
        bits[dtype] += count * _BITS[dtype]
        parameters += count
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise _refused("its tensors overlap or leave gaps")
        at = end
    if at != room:
        raise _refused("its tensors do not fill the file, so it is cut short or has something behind it")
    return shapes, bits, parameters


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice")
    return table


def _refused(why: str) -> Invalid:
    return Invalid("not_safetensors", f"This is no sound safetensors file: {why}.", "Fetch the file again, or convert it to safetensors.")
