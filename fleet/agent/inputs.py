"""Bring a job's input files to ComfyUI under the names its graph uses."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from fleet.agent import classify
from fleet.agent.classify import Failure
from fleet.agent.comfy import Comfy
from fleet.agent.control import Refused, Unavailable

TRIES = 4
Fetch = Callable[[str, int], Awaitable[bytes]]


class InputFailed(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def safe_name(name: str) -> tuple[str, str]:
    """Subfolder and file name; raises ValueError for a name that would leave the input directory."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.parts or path.is_absolute() or ".." in path.parts or any(ord(c) < 32 for c in name) or name.endswith("/") or ":" in path.parts[0]:
        raise ValueError(f"unsafe file name {name!r}")
    folder = str(path.parent)
    return ("" if folder == "." else folder), path.name


async def place(files: Sequence[Mapping[str, Any]], graph: Mapping[str, Any], *, comfy: Comfy, fetch: Fetch, max_bytes: int) -> dict[str, Any]:
    """The graph with every file in place. Raises InputFailed, or Stale and Retired from `fetch`."""
    renamed = await asyncio.gather(*(_place(f, comfy=comfy, fetch=fetch, max_bytes=max_bytes) for f in files))
    changes = [(f, name) for f, name in zip(files, renamed, strict=True) if name != f["name"]]
    if not changes:
        return dict(graph)
    changed = copy.deepcopy(dict(graph))
    for file, name in changes:
        node = changed.get(str(file.get("node")))
        if node is not None and file.get("input") in node.get("inputs", {}):
            node["inputs"][file["input"]] = name
    return changed


async def _place(file: Mapping[str, Any], *, comfy: Comfy, fetch: Fetch, max_bytes: int) -> str:
    name, size = str(file["name"]), int(file.get("size_bytes") or 0)
    try:
        folder, base = safe_name(name)
    except ValueError as error:
        raise InputFailed(classify.platform("input_name_unsafe", str(error))) from error
    if size > max_bytes:
        raise InputFailed(
            Failure(
                "input_too_large",
                f"{name} has {size} bytes; the worker accepts {max_bytes}.",
                "customer_input",
                "Send a smaller file.",
            )
        )
    data = await _fetched(str(file["sha256"]), name, fetch, size or max_bytes)
    return await comfy.upload(base, data, str(file.get("media_type") or "application/octet-stream"), folder)


async def _fetched(sha256: str, name: str, fetch: Fetch, max_bytes: int) -> bytes:
    reason = ""
    for attempt in range(TRIES):
        try:
            return await fetch(sha256, max_bytes)
        except ValueError as error:
            # Bytes may be damaged under way once; twice means that the stored file is wrong.
            reason = str(error)
            if attempt:
                raise InputFailed(classify.platform("input_corrupt", f"{name}: {reason}")) from error
        except Refused as error:
            raise InputFailed(classify.platform("input_missing", f"{name}: {error}")) from error
        except Unavailable as error:
            reason = str(error)
            await asyncio.sleep(0.2 * 2**attempt)
    raise InputFailed(classify.platform("input_missing", f"{name} could not be fetched: {reason}"))
