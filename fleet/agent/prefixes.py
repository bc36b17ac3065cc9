"""File name prefixes made unique to one attempt, and the customer's own names given back. Pure.

Without this ComfyUI's cache answers a repeated prompt with the name of an old file, which may be
gone. A unique folder in front changes the output node's cache key and nothing upstream of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

MARK = "cpjob-"


def folder(job: str, attempt: int) -> str:
    return f"{MARK}{''.join(c for c in job if c.isalnum())[:32]}-{attempt}"


def make_unique(graph: Mapping[str, Any], unique: str) -> dict[str, Any]:
    """A copy of the graph in which every written `filename_prefix` starts with the folder `unique`."""
    result: dict[str, Any] = {}
    for node_id, node in graph.items():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if not isinstance(inputs, dict):
            result[node_id] = node
            continue
        prefix = inputs.get("filename_prefix")
        # A prefix that leaves the output directory is refused by ComfyUI; a folder in front would hide that.
        if not isinstance(prefix, str) or prefix.startswith(("/", "\\")) or ".." in prefix:
            result[node_id] = node
        else:
            result[node_id] = {**node, "inputs": {**inputs, "filename_prefix": f"{unique}/{prefix}"}}
    return result


def customer_folder(subfolder: str, unique: str) -> str:
    """The subfolder as the customer's own prefix would have made it."""
    parts = PurePosixPath(subfolder.replace("\\", "/")).parts
    return "/".join(p for p in parts if p != unique)
