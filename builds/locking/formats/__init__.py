"""The field's own lock formats: what each can say is read and written, and what it cannot say is named.

`read` gives `Parts`: what the file says in our words, with findings for what it says that no lock can hold. `write`
gives the bytes and findings for what the format has no place for. Nothing is dropped in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from builds.containers import ZIP
from builds.locking import checking, document
from builds.locking.formats import comfy_build, comfy_lock, comfy_pack, manager_snapshot, texts
from builds.locking.formats.parts import Parts, Written
from controlplane.kernel.errors import Invalid, NotFound

__all__ = ["FORMATS", "Format", "Parts", "Written", "detect", "named", "read", "write"]


class Format(NamedTuple):
    """One format: its name for people, the file name it is kept under, and how it is read and written."""

    title: str
    filename: str
    read: Callable[[bytes], Parts]
    write: Callable[[Mapping[str, Any]], Written]


def _read_own(data: bytes) -> Parts:
    return Parts("comfyplane", lock=checking.check(texts.json_object(data, what="a lock")))


def _write_own(lock: Mapping[str, Any]) -> Written:
    return Written(document.text(lock).encode(), [])


FORMATS = {
    "comfyplane": Format("Comfyplane lock", "comfyplane-lock.json", _read_own, _write_own),
    "manager": Format("ComfyUI-Manager snapshot", "snapshot.json", manager_snapshot.read, manager_snapshot.write),
    "comfy-pack": Format("comfy-pack snapshot", "snapshot.json", comfy_pack.read, comfy_pack.write),
    "comfy-pack-1": Format("comfy-pack snapshot, first generation", "snapshot.json", comfy_pack.read, comfy_pack.write_first),
    "comfy-lock": Format("comfy-lock.yaml", "comfy-lock.yaml", comfy_lock.read, comfy_lock.write),
    "comfy-build": Format("comfy-build.yaml", "comfy-build.yaml", comfy_build.read, comfy_build.write),
}


def named(name: str) -> Format:
    """The format called `name`. Raises NotFound `format_unknown`."""
    if name not in FORMATS:
        raise NotFound("format_unknown", f"There is no lock format called {name[:40]!r}.", f"Formats are {', '.join(FORMATS)}.")
    return FORMATS[name]


def write(name: str, lock: Mapping[str, Any]) -> Written:
    """The lock as a file of the format."""
    return named(name).write(document.normal(lock))


def read(data: bytes, name: str = "") -> Parts:
    """What a file says, in the format `name` or the one it looks like. Raises Invalid, Malformed, TooLarge with what is wrong."""
    return named(name or detect(data)).read(data)


def detect(data: bytes) -> str:
    """Which format a file is of. Raises Invalid `format_not_recognised`."""
    if data.startswith(ZIP):
        return "comfy-pack"
    found = texts.any_object(data)
    if found.get("schema") == document.SCHEMA:
        return "comfyplane"
    if str(found.get("schema", "")).startswith("comfy-build/") or "definition" in found:
        return "comfy-build"
    if isinstance(found.get("custom_nodes"), list) or ("python" in found and "comfyui" in found):
        return "comfy-pack"
    if isinstance(found.get("custom_nodes"), Mapping) or "basic" in found:
        return "comfy-lock"
    if "git_custom_nodes" in found or "cnr_custom_nodes" in found:
        return "manager"
    keys = ", ".join(str(key)[:30] for key in list(found)[:8])
    raise Invalid(
        "format_not_recognised",
        f"This is no lock that is known here; at the top it says {json.dumps(keys)}.",
        f"Lock formats are {', '.join(one.title for one in FORMATS.values())}.",
    )
