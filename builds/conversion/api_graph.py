"""Write the API graph: every node that runs, its widgets' values and its links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builds.conversion import virtual
from builds.conversion.canvas import INPUT_NODE, Node, Slot, read
from builds.conversion.classes import MISSING, Classes
from builds.conversion.links import Output, Primitive, Value, follow
from builds.conversion.problems import Inexact, Problem, short
from builds.conversion.scopes import Scope, Sheets
from builds.conversion.widgets import Drawn, sent

ApiGraph = dict[str, dict[str, Any]]


def convert(document: Mapping[str, Any], object_info: Mapping[str, Any]) -> ApiGraph:
    """The API graph of a canvas file, as the web client in front of that server would send it; raises Inexact."""
    sheets = Sheets(read(document), Classes(object_info))
    graph: ApiGraph = {}
    problems: list[Problem] = []
    for scope, node in sheets.awake():
        if node.id in scope.children or _is_drawn_only(node):
            continue
        drawn = sheets.drawn(node)
        if drawn is None:
            problems.append(_unknown(sheets, scope, node))
            continue
        path = scope.path(node)
        problems += drawn.problems
        graph[path] = {"inputs": _inputs(sheets, scope, drawn, path, problems), "class_type": node.type, "_meta": _meta(drawn)}
    if problems:
        raise Inexact(problems)
    if not graph:
        raise Inexact([Problem("canvas_empty", "The canvas holds no node that runs.", "Unmute a node in ComfyUI, save and import again.")])
    for entry in graph.values():
        gone = [name for name, value in entry["inputs"].items() if isinstance(value, list) and value[0] not in graph]
        for name in gone:
            del entry["inputs"][name]
    return graph


def _inputs(sheets: Sheets, scope: Scope, drawn: Drawn, path: str, problems: list[Problem]) -> dict[str, Any]:
    """Widgets first and then links, as the canvas writes them; a link wins over the value of its widget."""
    linked: dict[str, Any] = {}
    written: dict[str, Any] = {}
    for socket in sheets.sockets(scope.level, drawn.node):
        if socket.link is None or _is_shown_outside(sheets, scope, drawn, socket):
            continue
        end = follow(sheets, scope, drawn.node, socket)
        if isinstance(end, Output):
            linked[socket.name] = [end.node, end.slot]
        elif isinstance(end, Value):
            linked[socket.name] = _literal(end.value)
        elif isinstance(end, Primitive):
            written[socket.widget or socket.name] = end.value
        elif isinstance(end, Problem):
            problems.append(end)
            linked[socket.name] = None
    inputs: dict[str, Any] = {}
    for name in drawn.values:
        if name in linked:
            inputs[name] = linked.pop(name)
            continue
        shown, value = sheets.override(scope, drawn, name)
        if shown and value is not MISSING:
            inputs[name] = _literal(value)
            continue
        value = sent(drawn, name, written.get(name, drawn.values[name]), node_id=path, names=sheets.names())
        if isinstance(value, Problem):
            problems.append(value)
        else:
            inputs[name] = value
    return inputs | linked


def _is_shown_outside(sheets: Sheets, scope: Scope, drawn: Drawn, socket: Slot) -> bool:
    """Whether the instance around a node shows this widget, which cuts the link that fed it from within."""
    name = socket.widget or socket.name
    if scope.host is None or name not in drawn.values or not sheets.override(scope, drawn, name)[0]:
        return False
    link = scope.level.links.get(socket.link) if socket.link is not None else None
    return link is not None and link.source != INPUT_NODE


def _literal(value: Any) -> Any:
    """What an instance shows for a node inside is sent as it is; only a list is wrapped, so that it cannot be taken for a link."""
    return {"__value__": value} if isinstance(value, list) else value


def _meta(drawn: Drawn) -> dict[str, Any]:
    meta = {"title": drawn.title}
    for key in ("cnr_id", "aux_id", "ver"):
        value = drawn.node.properties.get(key)
        if isinstance(value, str) and value:
            meta[key] = value
    return meta


def _is_drawn_only(node: Node) -> bool:
    kind = node.type
    return kind in virtual.DECORATION or kind in virtual.REROUTES or kind in virtual.PRIMITIVES or kind in virtual.SETTERS or kind in virtual.GETTERS


def _unknown(sheets: Sheets, scope: Scope, node: Node) -> Problem:
    path = scope.path(node)
    said = f"Node {path} ({short(node.title or node.type, 60)})"
    where = {"node": path, "class_type": node.type}
    if node.type in virtual.REWRITING:
        return Problem(
            "rewrites_the_graph", f"{said} changes the graph when a person presses Queue, which a file cannot show.", virtual.REWRITING[node.type], **where
        )
    if virtual.is_group_node(node.type) or node.type in sheets.canvas.group_nodes:
        return Problem("group_node", f"{said} is a group node of the old kind.", virtual.GROUP_NODE_FIX, **where)
    return Problem(
        "unknown_node_class",
        f"{said} is of class {short(node.type, 80)!r}, which the current node library does not know, so its values have no names.",
        "Import the object_info of a ComfyUI that has the pack: manage.py import_object_info; or remove or bypass the node.",
        **where,
    )
