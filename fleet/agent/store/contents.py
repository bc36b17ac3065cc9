"""What a file of weights really is. A pickle runs code when it is loaded, whatever its name says."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fleet.agent.store.failures import Refused
from fleet.agent.store.wanted import PICKLES, Wanted

MAX_HEADER = 100 * 1024**2  # the limit of the safetensors format itself
_ALLOW = "Use the safetensors file of this model, or allow this one by its SHA-256 in COMFYPLANE_STORE_PICKLE."


@dataclass(frozen=True)
class PicklePolicy:
    """Files that may be pickles: none, all, or those with these hashes."""

    everything: bool = False
    hashes: Collection[str] = ()

    def allows(self, sha256: str) -> bool:
        return self.everything or sha256 in self.hashes

    def check_name(self, wanted: Wanted) -> None:
        """Refuse by name before a byte is fetched. Raises Refused."""
        if wanted.suffix in PICKLES and not self.allows(wanted.sha256):
            raise Refused(f"{wanted.name} is a pickle, which runs code when it is loaded.", _ALLOW, code="model_pickle", model=wanted.name)

    def check_file(self, path: Path, wanted: Wanted) -> None:
        """Refuse by content. Raises Refused."""
        found = kind(path)
        if found == "pickle" and not self.allows(wanted.sha256):
            raise Refused(f"{wanted.name} holds a pickle, which runs code when it is loaded.", _ALLOW, code="model_pickle", model=wanted.name)
        if wanted.suffix in (".safetensors", ".sft") and found != "safetensors":
            raise Refused(
                f"{wanted.name} is no safetensors file, but {found}.", "Give the source of the real file.", code="model_not_safetensors", model=wanted.name
            )


def kind(path: Path) -> str:
    """safetensors, pickle, gguf, html, or other."""
    with path.open("rb") as file:
        head = file.read(64)
        if head[:4] == b"GGUF":
            return "gguf"
        size = path.stat().st_size
        length = int.from_bytes(head[:8], "little")
        if size >= 10 and head[8:9] == b"{" and 2 <= length <= min(size - 8, MAX_HEADER):
            file.seek(8)
            return "safetensors" if _is_header(file.read(length), size - 8 - length) else "other"
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "pickle"
    if head[:4] == b"PK\x03\x04":
        return "pickle" if _is_torch_archive(path) else "other"
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "html"
    return "other"


def _is_header(raw: bytes, body_bytes: int) -> bool:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        return False
    if not isinstance(header, dict):
        return False
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int for n in offsets) or not 0 <= offsets[0] <= offsets[1] <= body_bytes:
            return False
    return True


def _is_torch_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith((".pkl", ".pickle")) for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return True  # an archive that hides its list is trusted no more than one that shows a pickle
