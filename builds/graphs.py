"""Read a graph out of whatever was uploaded, as API format, and put a customer's values into it.

`parse` decides what is readable at all and bounds its size before any other work; what a readable
graph does wrong is a list of findings (`builds.findings`), so that an editor can see and mend it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from builds import containers, conversion, envelopes, nodespecs
from builds.exposed import ExposedInput, storable
from builds.findings import findings
from builds.links import cycle
from controlplane.kernel.errors import Invalid, Malformed, TooLarge

__all__ = ["MAX_BYTES", "MAX_FILE_BYTES", "bind", "canvas", "findings", "load", "parse", "refuse_cycle", "unwrap"]

MAX_BYTES = 4_000_000
MAX_FILE_BYTES = 40_000_000
MAX_NODES = 2_000
MAX_INPUTS = 500
MAX_DEPTH = 24
MAX_VALUES = 200_000
MAX_TEXT = 500_000
MAX_ID = 100
MAX_CLASS = 200

_EXPORT = "In ComfyUI choose Workflow → Export (API) and import that file."


def load(data: bytes) -> Any:
    """The JSON document in an uploaded file, or in the picture or archive it is; raises Malformed, Invalid or TooLarge."""
    if containers.is_container(data):
        if len(data) > MAX_FILE_BYTES:
            raise TooLarge("file_too_large", f"The file is larger than {MAX_FILE_BYTES:,} bytes.", "Import the workflow file itself.")
        return containers.document_in(data)
    if len(data) > MAX_BYTES:
        raise TooLarge("graph_too_large", f"The file is larger than {MAX_BYTES:,} bytes.", "Upload files as files; the graph should only name them.")
    try:
        return json.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        envelopes.refuse_placeholder_text(data.decode("utf-8", "replace"))
        raise Malformed("invalid_json", "The file is not JSON.", _EXPORT) from error


def unwrap(document: Any) -> Any:
    """The graph inside the usual envelopes, whichever format it has."""
    return envelopes.opened(document).graph


def canvas(document: Any) -> dict[str, Any] | None:
    """The canvas a document is, or carries beside its API graph."""
    found = envelopes.opened(document).canvas
    if found is None:
        return None
    _bound(found)
    return _copy(found)  # type: ignore[no-any-return]


def parse(document: Any, *, library: Any = None) -> dict[str, dict[str, Any]]:
    """A clean copy of the graph in `document`, a canvas converted by `library`; raises Invalid or TooLarge when there is none to read."""
    _bound(document)
    found = unwrap(document)
    if found is not document:
        # It may have come as text.
        _bound(found)
    drawn = conversion.is_canvas(found)
    if drawn:
        found = conversion.convert(found, _classes(library))
    if not isinstance(found, Mapping) or not found:
        raise Invalid("not_a_workflow", "This document holds no ComfyUI graph.", _EXPORT)
    if not any(isinstance(node, Mapping) and "class_type" in node for node in found.values()):
        raise Invalid("not_a_workflow", "No entry of this document has a class_type, so it is not a ComfyUI API graph.", _EXPORT)
    if len(found) > MAX_NODES:
        raise TooLarge("graph_too_large", f"The graph has {len(found):,} nodes; at most {MAX_NODES:,} are accepted.", "Split the workflow.")
    graph = {str(node_id): _node(str(node_id), node) for node_id, node in found.items()}
    if not drawn:
        envelopes.refuse_placeholders(graph)
    return graph


def refuse_cycle(graph: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `graph_cyclic` naming the nodes when data would have to flow in a circle."""
    loop = cycle(graph)
    if loop:
        shown = loop if len(loop) <= 12 else [*loop[:6], "…", *loop[-5:]]
        named = " → ".join(f"{node} ({graph[node].get('class_type', '?')})" if node in graph else node for node in shown)
        raise Invalid(
            "graph_cyclic",
            f"The graph runs in a circle: {named}.",
            "Remove one of these links, so that data flows from inputs to outputs only.",
            details={"cycle": loop[:200]},
        )


def bind(graph: Mapping[str, Mapping[str, Any]], exposed: Iterable[ExposedInput | Mapping[str, Any]], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A deep copy of `graph` with `values` put into the exposed inputs; what `values` lacks keeps the graph's own value."""
    bound = _copy(graph)
    for item in exposed:
        one = ExposedInput.load(item)
        if one.name in values:
            bound[one.node]["inputs"][one.input] = values[one.name]
    return bound  # type: ignore[no-any-return]


def _classes(library: Any) -> Mapping[str, Any]:
    info = nodespecs.info_of(library)
    if info is None:
        raise Invalid(
            "no_node_library",
            "This file is in ComfyUI's canvas format; which value belongs to which input is known from a node library only, and none is imported yet.",
            f"Import one with manage.py import_object_info. Or: {_EXPORT}",
        )
    return info


def _node(node_id: str, node: Any) -> dict[str, Any]:
    if not isinstance(node, Mapping):
        raise Invalid("not_a_workflow", f"Entry {node_id[:60]!r} is not a node.", _EXPORT, details={"node": node_id[:MAX_ID]})
    inputs = node.get("inputs", {})
    if not isinstance(inputs, Mapping):
        raise Invalid("not_a_workflow", f"Node {node_id[:60]!r} has inputs that are not an object.", _EXPORT, details={"node": node_id[:MAX_ID]})
    if len(node_id) > MAX_ID or len(inputs) > MAX_INPUTS:
        raise TooLarge("graph_too_large", f"Node {node_id[:60]!r} has an id or a list of inputs that is too long.", "Split the node.")
    clean: dict[str, Any] = {}
    class_type = node.get("class_type")
    if isinstance(class_type, str) and class_type:
        clean["class_type"] = class_type[:MAX_CLASS]
    clean["inputs"] = {str(name): _copy(value) for name, value in inputs.items()}
    meta = node.get("_meta")
    if isinstance(meta, Mapping) and isinstance(meta.get("title"), str) and meta["title"].strip():
        clean["_meta"] = {"title": meta["title"].strip()[:MAX_CLASS]}
    return clean


def _bound(document: Any) -> None:
    """Refuse what is too deep, too large, or cannot be kept by every database."""
    pending: list[tuple[Any, int]] = [(document, 0)]
    values = text = 0
    while pending:
        value, depth = pending.pop()
        values += 1
        if depth > MAX_DEPTH or values > MAX_VALUES:
            raise TooLarge("graph_too_large", "The document is nested too deeply or holds too many values.", "Export the workflow again and import that file.")
        if isinstance(value, Mapping):
            pending.extend((key, depth + 1) for key in value)
            pending.extend((inner, depth + 1) for inner in value.values())
        elif isinstance(value, list | tuple):
            pending.extend((inner, depth + 1) for inner in value)
        elif isinstance(value, str):
            text += len(value)
            if len(value) > MAX_TEXT or text > MAX_BYTES:
                raise TooLarge("graph_too_large", "The document holds too much text.", "Upload files as files; the graph should only name them.")
            if not storable(value):
                raise Invalid("invalid_text", "The document holds characters that cannot be stored.", "Remove NUL characters and lone surrogates.")
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise Invalid("not_a_number", "The document holds NaN or Infinity, which are not JSON.", "Replace them with numbers.")
        elif isinstance(value, int):
            if value.bit_length() > 64:
                raise Invalid("number_too_large", "The document holds an integer beyond 64 bits.", "Use a smaller number.")
        elif value is not None:
            raise Invalid("not_a_workflow", "The document is not plain JSON.", _EXPORT)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _copy(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(inner) for inner in value]
    return value
