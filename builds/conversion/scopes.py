"""Unfold subgraphs: one scope per instance, each with its own promoted values.

A definition is one sheet that may stand in many places; a node inside is named by the way to it,
`7:3` for node 3 inside instance 7. An instance may carry its own values for the widgets it promotes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from builds.conversion import virtual
from builds.conversion.canvas import BYPASSED, INPUT_NODE, MAX_NODES, MUTED, Canvas, Level, Node, Slot
from builds.conversion.classes import MISSING, Classes
from builds.conversion.problems import refuse, short
from builds.conversion.widgets import Drawn, draw

MAX_DEPTH = 40
# How an instance names itself in its list of proxied widgets.
SELF = "-1"


@dataclass(slots=True, eq=False)
class Scope:
    """A sheet in its place: the root, or one instance of a definition."""

    level: Level
    prefix: str = ""
    parent: Scope | None = None
    host: Node | None = None
    children: dict[str, Scope] = field(default_factory=dict)

    def path(self, node: Node) -> str:
        """The node's id in the API graph."""
        return self.prefix + node.id


class Sheets:
    """The unfolded canvas, and each of its nodes as drawn."""

    def __init__(self, canvas: Canvas, classes: Classes) -> None:
        self.canvas = canvas
        self.classes = classes
        self.root = Scope(canvas.root)
        self.scopes: list[Scope] = [self.root]
        self._drawn: dict[int, Drawn | None] = {}
        self._sockets: dict[int, list[Slot]] = {}
        self._unclaimed: dict[int, dict[str, list[tuple[int | str, int]]]] = {}
        self._promoted: dict[str, list[tuple[str, Node | None, str]]] = {}
        self._proxied: dict[int, dict[tuple[str, str], Any]] = {}
        self._names: frozenset[str] | None = None
        self._unfold()

    def _unfold(self) -> None:
        count = len(self.root.level.nodes)
        for scope in self.scopes:
            for node in scope.level.nodes.values():
                inner = self.canvas.definitions.get(node.type)
                if inner is None:
                    continue
                inside = _inside(scope)
                if inner.id in inside or len(inside) > MAX_DEPTH:
                    raise refuse(
                        "subgraph_recursive",
                        f"Subgraph {short(inner.name, 60)!r} contains itself, or subgraphs are nested more than {MAX_DEPTH} deep.",
                        "Take the inner copy out in ComfyUI, save and import again.",
                        node=scope.path(node),
                        class_type=node.type,
                    )
                count += len(inner.nodes)
                if count > MAX_NODES:
                    raise refuse("graph_too_large", f"Unfolded, the subgraphs hold more than {MAX_NODES:,} nodes.", "Split the workflow.")
                child = Scope(inner, f"{scope.prefix}{node.id}:", scope, node)
                scope.children[node.id] = child
                self.scopes.append(child)

    def awake(self) -> Iterator[tuple[Scope, Node]]:
        """Every node in every place, without what is muted or bypassed.

        An instance that is switched off on the root sheet takes its inside with it; one within a subgraph does not, and
        the client sends what stands in it.
        """
        asleep: set[Scope | None] = set()
        for scope in self.scopes:
            if scope.host is not None and (scope.parent in asleep or (scope.parent is self.root and scope.host.mode in (MUTED, BYPASSED))):
                asleep.add(scope)
                continue
            for node in scope.level.nodes.values():
                if node.mode not in (MUTED, BYPASSED):
                    yield scope, node

    def drawn(self, node: Node) -> Drawn | None:
        """The node as drawn; None when its class is not known or it is an instance."""
        key = id(node)
        if key not in self._drawn:
            known = None if node.type in self.canvas.definitions else self.classes.get(node.type)
            self._drawn[key] = draw(node, known) if known else None
        return self._drawn[key]

    def sockets(self, level: Level, node: Node) -> list[Slot]:
        """The inputs of a node in the canvas's order; one that forgot its link has it back from the table of links."""
        key = id(node)
        if key not in self._sockets:
            inner = self.canvas.definitions.get(node.type)
            drawn = self.drawn(node)
            if inner is not None:
                saved = {slot.name: slot for slot in reversed(node.inputs)}
                inputs = [saved.get(port.name) or Slot(port.name, port.type) for port in inner.inputs]
            else:
                inputs = drawn.inputs if drawn else node.inputs
                if not inputs and node.type in virtual.REROUTES:
                    inputs = [Slot("", "*")]
            for link, at in self._lost(level).get(node.id, ()):
                if at < len(inputs) and inputs[at].link is None:
                    inputs[at].link = link
            self._sockets[key] = inputs
        return self._sockets[key]

    def _lost(self, level: Level) -> dict[str, list[tuple[int | str, int]]]:
        """Links of a sheet that their target does not name: target → link and slot."""
        key = id(level)
        if key not in self._unclaimed:
            named = {(node.id, slot.link) for node in level.nodes.values() for slot in node.inputs}
            lost: dict[str, list[tuple[int | str, int]]] = {}
            for link_id, link in level.links.items():
                if (link.target, link_id) not in named and link.target in level.nodes:
                    lost.setdefault(link.target, []).append((link_id, link.target_slot))
            self._unclaimed[key] = lost
        return self._unclaimed[key]

    def promotes(self, level: Level) -> list[tuple[str, Node | None, str]]:
        """For each input port of a definition, the inner node and the widget (or inner port) it promotes, if it does."""
        if level.id not in self._promoted:
            # Guards against definitions that promote each other in a circle.
            self._promoted[level.id] = []
            self._promoted[level.id] = [(port.name, *self._behind(level, at)) for at, port in enumerate(level.inputs)]
        return self._promoted[level.id]

    def _behind(self, level: Level, at: int) -> tuple[Node | None, str]:
        for key in level.inputs[at].links:
            link = level.links.get(key)
            node = level.nodes.get(link.target) if link and link.source == INPUT_NODE else None
            if node is None or link is None:
                continue
            name = next((slot.name for slot in self.sockets(level, node) if slot.link == key), "")
            inner = self.canvas.definitions.get(node.type)
            if inner is not None:
                if any(port == name and target for port, target, _ in self.promotes(inner)):
                    return node, name
            else:
                drawn = self.drawn(node)
                if drawn and name in drawn.widgets:
                    return node, name
        return None, ""

    def promoted(self, host: Node, port: str) -> tuple[bool, Any]:
        """Whether instance `host` shows a widget for `port`, and that widget's value."""
        shown = [entry for entry in self.promotes(self.canvas.definitions[host.type]) if entry[1]]
        proxied = self.proxied(host)
        for at, (name, inner, widget) in enumerate(shown):
            if name != port or inner is None:
                continue
            for key in ((SELF, port), (inner.id, widget)):
                if proxied and proxied.get(key, MISSING) is not MISSING:
                    return True, proxied[key]
            if isinstance(host.values, list) and at < len(host.values):
                return True, host.values[at]
            if inner.type in self.canvas.definitions:
                return self.promoted(inner, widget)
            drawn = self.drawn(inner)
            return (True, drawn.values[widget]) if drawn else (False, None)
        return False, None

    def proxied(self, host: Node) -> dict[tuple[str, str], Any] | None:
        """What an instance of the earlier kind shows, by inner node and widget, with its value or MISSING; None for the later kind."""
        entries = host.properties.get("proxyWidgets")
        if not isinstance(entries, list):
            return None
        key = id(host)
        if key not in self._proxied:
            values = host.values if isinstance(host.values, list) else []
            found: dict[tuple[str, str], Any] = {}
            for at, entry in enumerate(entries):
                if isinstance(entry, list) and len(entry) >= 2:
                    value = values[at] if at < len(values) else MISSING
                    for spot in self._fed_by_primitive(host, str(entry[0])) or [(str(entry[0]), str(entry[1]))]:
                        found.setdefault(spot, value)
            self._proxied[key] = found
        return self._proxied[key]

    def _fed_by_primitive(self, host: Node, node_id: str) -> list[tuple[str, str]]:
        """The widgets that an inner primitive is wired to: an instance that shows the primitive shows them."""
        level = self.canvas.definitions[host.type]
        inner = level.nodes.get(node_id)
        if inner is None or inner.type not in virtual.PRIMITIVES:
            return []
        targets = [(level.nodes[link.target], key) for key, link in level.links.items() if link.source == node_id and link.target in level.nodes]
        return [(node.id, slot.widget or slot.name) for node, key in targets for slot in self.sockets(level, node) if slot.link == key]

    def override(self, scope: Scope, drawn: Drawn, widget: str) -> tuple[bool, Any]:
        """Whether the instance around a node shows this widget of it, and the value it has there."""
        if scope.host is None:
            return False, None
        proxied = self.proxied(scope.host)
        key = (drawn.node.id, widget)
        if not proxied or key not in proxied:
            return False, None
        value = proxied[key]
        return True, drawn.values[widget] if value is MISSING else value

    def names(self) -> frozenset[str]:
        """What the nodes of the root sheet go by, in texts that quote their widgets."""
        if self._names is None:
            found: set[str] = set()
            for node in self.canvas.root.nodes.values():
                known = self.classes.get(node.type)
                found |= {node.type, node.title, str(node.properties.get("Node name for S&R") or ""), known.title if known else ""}
            self._names = frozenset(found - {""})
        return self._names


def _inside(scope: Scope) -> set[str]:
    ids = set()
    above: Scope | None = scope
    while above is not None and above.host is not None:
        ids.add(above.level.id)
        above = above.parent
    return ids
