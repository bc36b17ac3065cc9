"""Find the graph inside what people really have: worker payloads, API calls, exports of other products.

Of everything around the graph only the canvas beside it is kept. A graph with `{{placeholders}}` is
somebody's template and not a workflow: it is refused, with the way to say the same thing here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builds.conversion import is_canvas
from controlplane.kernel.errors import Invalid

# In the order of trust: what ran, then what a canvas saved.
_KEYS = ("input", "prompt", "output", "workflow_api", "workflow_json", "workflow", "graph")
_AS_TEXT = frozenset({"prompt", "workflow_api", "workflow_json", "workflow"})
_DEPTH = 4
_PLACEHOLDER = re.compile(r"\{\{\{?\s*[A-Za-z_][\w.\- ]{0,80}\s*\}?\}\}")
_FILL = "Put a real value in place of each placeholder, import, and expose that input under the placeholder's name (--expose NODE.INPUT=NAME)."


@dataclass(frozen=True)
class Opened:
    """The graph, whichever format, and the canvas it was drawn on when that came along."""

    graph: Any
    canvas: Mapping[str, Any] | None


def opened(document: Any) -> Opened:
    """The graph inside the usual envelopes, or the document itself."""
    beside: Mapping[str, Any] | None = None
    for _ in range(_DEPTH):
        if is_canvas(document):
            return Opened(document, document)
        if not isinstance(document, Mapping) or _is_node_table(document):
            break
        beside = _canvas_beside(document) or beside
        for key in _KEYS:
            inner = _mapping(document.get(key), key)
            if inner is not None and "class_type" not in inner:
                document = inner
                break
        else:
            break
    return Opened(document, document if is_canvas(document) else beside)


def refuse_placeholders(graph: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `placeholders_in_graph` when an input's whole value is a `{{name}}`."""
    found = [
        (node_id, name, value)
        for node_id, node in graph.items()
        for name, value in node.get("inputs", {}).items()
        if isinstance(value, str) and "{{" in value and _PLACEHOLDER.fullmatch(value.strip())
    ]
    if found:
        node_id, name, value = found[0]
        message = f"Input {name[:60]} of node {node_id[:60]} holds the placeholder {value.strip()[:60]}, so this is a template and not a workflow."
        listed = [{"node": node, "field": field, "placeholder": text.strip()[:120]} for node, field, text in found[:50]]
        raise Invalid("placeholders_in_graph", message, _FILL, details={"node": node_id, "field": name, "placeholders": listed})


def refuse_placeholder_text(text: str) -> None:
    """The same for a file that is not JSON because its placeholders stand without quotes."""
    found = re.search(r":\s*(" + _PLACEHOLDER.pattern + r")\s*[,}\]]", text)
    if found and "class_type" in text:
        raise Invalid("placeholders_in_graph", f"The file holds the placeholder {found.group(1)[:60]}, so it is a template and not a workflow.", _FILL)


def _canvas_beside(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    extra = document.get("extra_data")
    info = extra.get("extra_pnginfo") if isinstance(extra, Mapping) else document.get("extra_pnginfo")
    for holder in (document, info):
        if isinstance(holder, Mapping):
            found = _mapping(holder.get("workflow"), "workflow")
            if found is not None and is_canvas(found):
                return found
    return None


def _mapping(value: Any, key: str) -> Mapping[str, Any] | None:
    if isinstance(value, str) and key in _AS_TEXT and value.lstrip()[:1] == "{":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, Mapping) else None


def _is_node_table(document: Mapping[str, Any]) -> bool:
    return any(isinstance(node, Mapping) and isinstance(node.get("class_type"), str) for node in document.values())
