"""Results of the last prompt, found by what a node computes and not by its id.

A node's signature is its class, its inputs, and the same of everything upstream.
Only signatures of the newest prompt are kept, as on a real server.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fleet.engine.memory import FLOAT_BYTES
from fleet.engine.order import is_link
from fleet.engine.specs import NODES

Stamp = Callable[[str], Any]


@dataclass(frozen=True)
class Entry:
    """What a node returned: its outputs and what it shows to people."""

    outputs: tuple[Any, ...]
    ui: dict[str, Any] | None
    nbytes: int


class Cache:
    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._signatures: dict[str, str] = {}

    def begin(self, prompt: Mapping[str, Any], *, stamp: Stamp) -> None:
        """Take up a prompt: sign its nodes, forget what no node of it computes."""
        self._signatures = signatures(prompt, stamp=stamp)
        wanted = set(self._signatures.values())
        self._entries = {signature: entry for signature, entry in self._entries.items() if signature in wanted}

    def get(self, node_id: str) -> Entry | None:
        return self._entries.get(self._signatures.get(node_id, ""))

    def put(self, node_id: str, entry: Entry) -> None:
        self._entries[self._signatures[node_id]] = entry

    def clear(self) -> None:
        self._entries.clear()

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self._entries.values())


def signatures(prompt: Mapping[str, Any], *, stamp: Stamp) -> dict[str, str]:
    """The signature of every node of a prompt."""
    signed: dict[str, str] = {}
    for start in prompt:
        # Depth first without recursion: a chain may be longer than the stack.
        stack = [start]
        seen: set[str] = set()
        while stack:
            node_id = stack[-1]
            links = [value[0] for value in prompt[node_id].get("inputs", {}).values() if is_link(value) and value[0] in prompt]
            missing = [source for source in links if source not in signed and source not in seen]
            seen.add(node_id)
            if missing and node_id not in signed:
                stack += missing
                continue
            stack.pop()
            if node_id not in signed:
                signed[node_id] = _sign(prompt, node_id, signed, stamp)
    return signed


def _sign(prompt: Mapping[str, Any], node_id: str, signed: Mapping[str, str], stamp: Stamp) -> str:
    node = prompt[node_id]
    known = NODES.get(node["class_type"])
    inputs = {
        name: {"from": signed.get(value[0], value[0]), "slot": value[1]} if is_link(value) else value for name, value in sorted(node.get("inputs", {}).items())
    }
    own_id = node_id if known is not None and known.wants_node_id else None
    text = json.dumps([node["class_type"], own_id, stamp(node_id), inputs], default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def array_bytes(values: Any) -> int:
    """How many bytes the arrays and texts inside a node's outputs take."""
    if isinstance(values, str):
        return FLOAT_BYTES * len(values)
    if hasattr(values, "nbytes"):
        return int(values.nbytes)
    if isinstance(values, dict):
        return sum(array_bytes(value) for value in values.values())
    if isinstance(values, list | tuple):
        return sum(array_bytes(value) for value in values)
    return 0
