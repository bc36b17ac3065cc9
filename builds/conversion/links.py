"""Follow a link to the value or the output it really means.

On the way lie things that are only drawn: reroutes, setters and getters, bypassed and muted nodes,
and the walls of subgraphs. The walk is a loop with a memory, so depth and circles do no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from builds.conversion import virtual
from builds.conversion.canvas import BYPASSED, INPUT_NODE, MUTED, Node, Slot
from builds.conversion.classes import MISSING
from builds.conversion.problems import Problem, short
from builds.conversion.scopes import Scope, Sheets


@dataclass(frozen=True, slots=True)
class Output:
    """Output `slot` of the node with id `node` in the API graph."""

    node: str
    slot: int


@dataclass(frozen=True, slots=True)
class Value:
    """The literal of a widget that an instance promotes."""

    value: Any


@dataclass(frozen=True, slots=True)
class Primitive:
    """The literal a primitive writes into the widget it is wired to."""

    value: Any


End = Output | Value | Primitive | Problem | None
BROKEN = Output("", -1)


def follow(sheets: Sheets, scope: Scope, node: Node, socket: Slot) -> End:
    """What feeds `socket` of `node`; None when nothing does."""
    seen: set[tuple[int, str, str]] = set()
    wanted = socket.type
    start, entered = scope.path(node), socket
    direct = True
    while True:
        spot = (id(scope), node.id, socket.name)
        if spot in seen:
            return _circle(start, entered)
        seen.add(spot)
        link = scope.level.links.get(socket.link) if socket.link is not None else None
        if link is None:
            return None
        if link.source == INPUT_NODE and scope.host is not None and scope.parent is not None:
            # Out through the wall: the instance's own socket, or the widget it shows for it.
            if link.slot >= len(scope.level.inputs):
                return _broken(scope.path(node), socket, f"comes from input {link.slot} of its subgraph, which has none of that number")
            port = scope.level.inputs[link.slot].name
            host = scope.host
            outer = next((one for one in sheets.sockets(scope.parent.level, host) if one.name == port), None)
            if outer is None or outer.link is None:
                shown, value = sheets.promoted(host, port)
                if shown and value is MISSING:
                    return _valueless(scope.prefix.removesuffix(":"), port)
                return Value(value) if shown else None
            scope, node, socket = scope.parent, host, outer
            direct = False
            continue
        source = scope.level.nodes.get(link.source)
        if source is None:
            return _broken(scope.path(node), socket, f"comes from node {short(link.source, 60)}, which the file does not hold")
        if source.type in virtual.PRIMITIVES:
            # The canvas writes a primitive into the widgets it is wired to, and no further: not past a reroute, not into a subgraph.
            return _primitive(scope, source) if direct else None
        step = _through(sheets, scope, source, link.slot, wanted)
        if step is BROKEN:
            return _broken(scope.path(node), socket, f"comes from output {link.slot} of node {scope.path(source)}, which has none of that number")
        if not isinstance(step, tuple):
            return step
        direct = False
        scope, node, socket = step


def _through(sheets: Sheets, scope: Scope, source: Node, slot: int, wanted: str) -> End | tuple[Scope, Node, Slot]:
    """What output `slot` of `source` is: an end, or the socket to go on from."""
    for _ in range(1000):
        if source.type in virtual.PRIMITIVES or source.mode == MUTED:
            return None
        if source.mode == BYPASSED:
            return _bypass(sheets, scope, source, slot, wanted)
        if source.type in virtual.REROUTES or source.type in virtual.SETTERS:
            inputs = sheets.sockets(scope.level, source)
            return (scope, source, inputs[0]) if inputs else None
        if source.type in virtual.GETTERS:
            return _getter(sheets, scope, source)
        if source.type in virtual.DECORATION:
            return None
        child = scope.children.get(source.id)
        if child is None:
            return Output(scope.path(source), slot)
        if slot >= len(child.level.outputs):
            return BROKEN
        link = next((child.level.links[key] for key in child.level.outputs[slot].links if key in child.level.links), None)
        if link is None:
            return None
        if link.source == INPUT_NODE:
            # Straight through the subgraph from an input to an output.
            outside = sheets.sockets(scope.level, source)
            return (scope, source, outside[link.slot]) if link.slot < len(outside) else None
        inner = child.level.nodes.get(link.source)
        if inner is None:
            return BROKEN
        scope, source, slot = child, inner, link.slot
    return None


def _bypass(sheets: Sheets, scope: Scope, source: Node, slot: int, wanted: str) -> tuple[Scope, Node, Slot] | None:
    """The input that stands in for output `slot` of a bypassed node: the one across when its type fits, else the first that fits."""
    inputs = sheets.sockets(scope.level, source)
    if wanted in ("*", ""):
        return (scope, source, inputs[slot] if slot < len(inputs) else inputs[0]) if inputs else None
    child = scope.children.get(source.id)
    drawn = sheets.drawn(source)
    given = [port.type for port in child.level.outputs] if child else drawn.outputs if drawn else [one.type for one in source.outputs]
    kind = given[slot] if slot < len(given) else wanted
    if slot < len(inputs) and fits(inputs[slot].type, kind):
        return scope, source, inputs[slot]
    exact = next((one for one in inputs if one.type == wanted), None)
    found = exact or next((one for one in inputs if fits(one.type, wanted)), None)
    return (scope, source, found) if found else None


def fits(given: str, wanted: str) -> bool:
    """Whether the canvas would let an output of type `given` feed an input of type `wanted`."""
    if given == wanted or given in ("*", "") or wanted in ("*", ""):
        return True
    return bool({one.strip().lower() for one in given.split(",")} & {one.strip().lower() for one in wanted.split(",")})


def _primitive(scope: Scope, source: Node) -> Primitive | Problem | None:
    value = source.values[0] if isinstance(source.values, list) and source.values else None
    if value is None:
        return None
    if isinstance(value, str) and "%" in value and source.properties.get("Run widget replace on values"):
        path = scope.path(source)
        return Problem(
            "replaced_text",
            f"Primitive {path} puts dates or other nodes' values into its text at the moment of queueing.",
            "Write the text itself, or switch off 'Run widget replace on values' in the node's properties.",
            node=path,
            class_type=source.type,
        )
    return Primitive(value)


def _getter(sheets: Sheets, scope: Scope, source: Node) -> Problem | tuple[Scope, Node, Slot] | None:
    path = scope.path(source)
    name = source.values[0] if isinstance(source.values, list) and source.values else None
    setters = [
        one for one in scope.level.nodes.values() if one.type in virtual.SETTERS and isinstance(one.values, list) and one.values and one.values[0] == name
    ]
    if len(setters) != 1:
        found = "no setter" if not setters else f"{len(setters)} setters"
        return Problem(
            "getter_unclear",
            f"Getter {path} asks for {short(name, 60)!r}, and there is {found} of that name beside it.",
            "Replace the pair by a link, or give each setter a name of its own.",
            node=path,
            class_type=source.type,
        )
    inputs = sheets.sockets(scope.level, setters[0])
    return (scope, setters[0], inputs[0]) if inputs else None


def _broken(path: str, socket: Slot, why: str) -> Problem:
    return Problem(
        "link_broken",
        f"The link into {short(socket.name, 60)!r} of node {path} {why}.",
        "Open the file in ComfyUI, wire that input again or clear it, save and import again.",
        node=path,
        field=socket.name,
    )


def _valueless(path: str, port: str) -> Problem:
    return Problem(
        "value_missing",
        f"Subgraph instance {path} has no saved value for {short(port, 60)!r}, and the class inside gives no default.",
        "Choose a value in ComfyUI and save the file, or import the object_info of the server that saved it.",
        node=path,
        field=port,
    )


def _circle(path: str, socket: Slot) -> Problem:
    return Problem(
        "circular_link",
        f"The link into {short(socket.name, 60)!r} on the way to node {path} runs in a circle.",
        "Remove one link of the circle in ComfyUI, save and import again.",
        node=path,
        field=socket.name,
    )
