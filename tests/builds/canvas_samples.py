"""Small canvas files and the node classes they use, and when two API graphs are the same work."""

from __future__ import annotations

import gzip
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


@cache
def recorded() -> dict[str, Any]:
    """Own graphs with what the web client (1.58.1) made of them, and their node classes."""
    return json.loads(gzip.decompress((DATA / "canvas_cases.json.gz").read_bytes()))


def classes() -> dict[str, Any]:
    return recorded()["classes"]


def node_class(required: dict[str, Any] | None = None, *, output: tuple[str, ...] = ("IMAGE",), module: str = "nodes", **optional: Any) -> dict[str, Any]:
    return {"input": {"required": required or {}, "optional": optional}, "output": list(output), "display_name": "", "python_module": module}


def socket(name: str, kind: str, link: int | None = None, *, widget: bool = False) -> dict[str, Any]:
    return {"name": name, "type": kind, "link": link} | ({"widget": {"name": name}} if widget else {})


def node(node_id: Any, kind: str, values: Any = None, inputs: Any = (), *, mode: int = 0, outputs: Any = None, **more: Any) -> dict[str, Any]:
    if outputs is None:
        outputs = [{"name": one, "type": one, "links": []} for one in classes().get(kind, {}).get("output", [])]
    made = {"id": node_id, "type": kind, "mode": mode, "inputs": list(inputs), "outputs": outputs, "properties": {}, **more}
    return made if values is None else made | {"widgets_values": values}


def canvas(nodes: Any, links: Any = (), subgraphs: Any = (), **more: Any) -> dict[str, Any]:
    made = {"nodes": list(nodes), "links": [list(link) for link in links], "version": 0.4, **more}
    return made | ({"definitions": {"subgraphs": list(subgraphs)}} if subgraphs else {})


def chain(kind: str, values: Any = None, *, mode: int = 0, inputs: Any = None) -> dict[str, Any]:
    """A picture, one node between, and the node that saves it."""
    inputs = [socket("image", "IMAGE", 1)] if inputs is None else inputs
    between = node(2, kind, values, inputs, mode=mode, outputs=[{"name": "out", "type": "IMAGE", "links": [2]}])
    ends = [node(1, "EmptyImage", [64, 32, 1, 0]), node(3, "SaveImage", ["p"], [socket("images", "IMAGE", 2)])]
    return canvas([*ends, between], [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]])


def same_work(graph: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both hold the same nodes, wired alike; ids do not count, for the client gives new ones when two clash."""
    return _signatures(graph) == _signatures(other)


def _signatures(graph: dict[str, Any]) -> list[str]:
    known: dict[str, str] = {}

    def sign(node_id: str, above: tuple[str, ...]) -> str:
        if node_id in above:
            return "circle"
        if node_id not in known:
            entry = graph[node_id]
            inputs = {
                name: ["link", sign(value[0], (*above, node_id)), value[1]] if isinstance(value, list) and value[0] in graph else _number(value)
                for name, value in entry["inputs"].items()
            }
            known[node_id] = hashlib.sha256(json.dumps([entry["class_type"], inputs], sort_keys=True).encode()).hexdigest()
        return known[node_id]

    return sorted(sign(node_id, ()) for node_id in graph)


def _number(value: Any) -> Any:
    """JavaScript knows one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
