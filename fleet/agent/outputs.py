"""Which outputs a finished prompt has. Pure: history and events in, a list to fetch out.

Policy for previews: files of type `temp` are outputs only when the prompt saved no file of type
`output`; a graph that ends in PreviewImage still delivers, one that saves does not bill its previews.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from fleet.agent import prefixes


@dataclass(frozen=True)
class Found:
    """One output to store: a file that ComfyUI serves, or bytes that came in a message."""

    node: str
    name: str
    filename: str = ""
    subfolder: str = ""
    location: str = "output"
    data: bytes | None = None


@dataclass(frozen=True)
class Collected:
    outputs: tuple[Found, ...]
    skipped_previews: int
    ignored: tuple[str, ...]  # "node.key" of values that are neither files nor text
    reported: bool  # whether any node reported anything at all


def merge(history: Mapping[str, Any], executed: Mapping[str, Any]) -> dict[str, Any]:
    """History is the truth; cached outputs that history lacks are taken from `executed` messages."""
    merged = {str(n): out for n, out in executed.items() if out}
    merged.update({str(n): out for n, out in history.items() if out})
    return merged


def collect(reported: Mapping[str, Any], *, unique: str = "", frames: Sequence[tuple[str, bytes]] = ()) -> Collected:
    """Everything to store, in a stable order, each under a name that is unique in the job."""
    saved: list[Found] = []
    previews: list[Found] = []
    texts: list[Found] = []
    ignored: list[str] = []
    seen: set[tuple[str, str, str]] = set()
    for node in sorted(reported, key=_natural):
        ui = reported[node]
        for key, values in ui.items() if isinstance(ui, dict) else ():
            number = 0
            for value in _flat(values):
                if isinstance(value, dict) and isinstance(value.get("filename"), str) and value["filename"]:
                    found = _file(node, value, unique)
                    identity = (found.location, found.subfolder, found.filename)
                    if identity not in seen:
                        seen.add(identity)
                        (saved if found.location == "output" else previews).append(found)
                elif isinstance(value, str):
                    number += 1
                    texts.append(Found(node, f"{key}_{_safe(node)}_{number:05}.txt", data=value.encode("utf-8", "replace")))
                elif not isinstance(value, bool) and value is not None:  # booleans are flags such as `animated`
                    ignored.append(f"{node}.{key}")
    streamed = [Found(node, f"frame_{_safe(node)}_{i:05}.png", data=data) for i, (node, data) in enumerate(frames, 1)]
    saved += streamed
    chosen = (saved or previews) + texts
    return Collected(tuple(_distinct(chosen, unique)), len(previews) if saved else 0, tuple(sorted(set(ignored))), bool(reported) or bool(frames))


def _file(node: str, value: Mapping[str, Any], unique: str) -> Found:
    location = str(value.get("type") or "output")
    filename = str(value["filename"])
    return Found(node, PurePosixPath(filename.replace("\\", "/")).name or "output", filename, str(value.get("subfolder") or ""), location)


def _distinct(found: list[Found], unique: str) -> Iterator[Found]:
    taken: set[str] = set()
    for item in found:
        name = item.name
        if name in taken:
            own = prefixes.customer_folder(item.subfolder, unique).replace("/", "-")
            name = f"{own or _safe(item.node)}-{item.name}"
        number = 1
        while name in taken:
            number += 1
            name = f"{number}-{item.name}"
        taken.add(name)
        yield replace(item, name=name)


def _flat(values: Any) -> Iterator[Any]:
    for value in values if isinstance(values, list | tuple) else [values]:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _natural(node: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() and len(part) < 18 else (1, 0, part) for part in re.split(r"(\d+)", node) if part]


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", text)[:40]
