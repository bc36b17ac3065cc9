"""What a graph asks for: its node classes with what the canvas says of their origin, and its model files.

Pure. The API graph is what runs; the canvas beside it knows pack ids, model links and notes. A canvas
alone is enough, even one whose classes nobody here knows: then muted and bypassed nodes are set apart
and instances of subgraphs are followed inside, whatever pack they claim to come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from builds.conversion import virtual
from builds.conversion.canvas import Node, read
from builds.conversion.classes import Classes
from builds.conversion.scopes import Sheets
from builds.dependencies import spelling
from builds.dependencies.model_needs import ModelNeed, declared, in_inputs
from builds.nodespecs import read as read_spec

MAX_NODES_LISTED = 200
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# Drawn by the web client or a pack's script; no server class stands behind them.
UI_ONLY = frozenset(
    {
        *virtual.DECORATION,
        *virtual.REROUTES,
        *virtual.PRIMITIVES,
        *virtual.SETTERS,
        *virtual.GETTERS,
        *("Display Any (rgthree) note", "workflow/note", "GroupNode", "easy note"),
    }
)


@dataclass(frozen=True)
class Hint:
    """What a canvas node says of the pack it was made with."""

    registry_id: str = ""
    repository: str = ""
    version: str = ""

    @property
    def is_core(self) -> bool:
        return self.registry_id in spelling.CORE_IDS or (not self.registry_id and spelling.repository_key(self.repository) in spelling.CORE_REPOSITORIES)

    @property
    def names_pack(self) -> bool:
        return bool(self.registry_id or self.repository) and not self.is_core


@dataclass
class ClassNeed:
    """A node class and the nodes that have it; `hints` counts what these nodes say of its pack."""

    name: str
    nodes: list[str] = field(default_factory=list)
    hints: dict[Hint, int] = field(default_factory=dict)
    asleep: bool = True
    ui_only: bool = False
    count: int = 0

    def add(self, node: str, hint: Hint | None, *, asleep: bool) -> None:
        self.count += 1
        if len(self.nodes) < MAX_NODES_LISTED:
            self.nodes.append(node)
        self.asleep = self.asleep and asleep
        if hint and (hint.registry_id or hint.repository):
            self.hints[hint] = self.hints.get(hint, 0) + 1


@dataclass
class Needs:
    """All of it. `broken` are subgraph instances whose definition is not in the file."""

    classes: dict[str, ClassNeed] = field(default_factory=dict)
    models: list[ModelNeed] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    group_nodes: list[tuple[str, str]] = field(default_factory=list)
    core_versions: dict[str, int] = field(default_factory=dict)
    graph: Mapping[str, Mapping[str, Any]] | None = None

    def add(self, name: str, node: str, hint: Hint | None, *, asleep: bool = False, ui_only: bool = False) -> None:
        need = self.classes.get(name)
        if need is None:
            need = self.classes[name] = ClassNeed(name, ui_only=ui_only)
        need.add(node, hint, asleep=asleep)
        if hint and hint.is_core and hint.version:
            self.core_versions[hint.version] = self.core_versions.get(hint.version, 0) + 1


def of(*, graph: Mapping[str, Mapping[str, Any]] | None, ui_graph: Mapping[str, Any] | None = None, info: Mapping[str, Any] | None = None) -> Needs:
    """The needs of an API graph, a canvas, or both of one workflow; raises Invalid when the canvas is damaged."""
    needs = Needs(graph=graph)
    sheets = Sheets(read(ui_graph), Classes(info or {})) if ui_graph is not None else None
    hints = _hints(sheets) if sheets else {}
    if graph is not None:
        for node_id, node in graph.items():
            kind = node.get("class_type")
            if isinstance(kind, str) and kind:
                needs.add(kind, node_id, hints.get(node_id) or _hint(node.get("_meta")), ui_only=is_ui_only(kind))
            needs.models += in_inputs(node_id, str(kind or ""), node.get("inputs") or {}, _spec(info, kind))
    if sheets:
        _canvas(needs, sheets, info, alone=graph is None)
    needs.models = _merged(needs.models)
    return needs


def is_ui_only(kind: str) -> bool:
    """Whether a node type lives on the canvas only."""
    return kind in UI_ONLY or kind in virtual.REWRITING or kind.startswith("Fast Groups ")


def is_instance(kind: str) -> bool:
    """Whether a node type is the id of a subgraph definition."""
    return _UUID.fullmatch(kind) is not None


def _canvas(needs: Needs, sheets: Sheets, info: Mapping[str, Any] | None, *, alone: bool) -> None:
    """What only the canvas says, and everything when there is no API graph beside it."""
    awake = {scope.path(node) for scope, node in sheets.awake()}
    for path, node in _nodes(sheets):
        kind = node.type
        if kind in sheets.canvas.definitions:
            continue
        if is_instance(kind):
            needs.broken.append((path, kind))
            continue
        if virtual.is_group_node(kind) or kind in sheets.canvas.group_nodes:
            needs.group_nodes.append((path, kind))
            continue
        ui_only, asleep = is_ui_only(kind), path not in awake
        if alone or ui_only or (asleep and path not in (needs.graph or {})):
            needs.add(kind, path, hint_of(node), asleep=asleep, ui_only=ui_only)
        if ui_only:
            continue
        found: list[ModelNeed] = []
        if alone or asleep:
            drawn = sheets.drawn(node)
            values = (
                drawn.values if drawn else node.values if isinstance(node.values, dict) else {f"widgets_values.{at}": v for at, v in enumerate(node.values)}
            )
            found += in_inputs(path, kind, values, _spec(info, kind))
        found += declared(path, kind, node.properties.get("models"))
        needs.models += [replace(one, asleep=True) for one in found] if asleep else found


def _nodes(sheets: Sheets) -> Iterator[tuple[str, Node]]:
    for scope in sheets.scopes:
        for node in scope.level.nodes.values():
            yield scope.path(node), node


def _hints(sheets: Sheets) -> dict[str, Hint]:
    return {path: hint for path, node in _nodes(sheets) if (hint := hint_of(node)) is not None}


def hint_of(node: Node) -> Hint | None:
    """What a canvas node says of its pack, or None."""
    return _hint(node.properties)


def _hint(said: Any) -> Hint | None:
    if not isinstance(said, Mapping):
        return None
    hint = Hint(spelling.registry_id(said.get("cnr_id")), spelling.repository(said.get("aux_id")), spelling.version(said.get("ver")))
    return hint if hint.registry_id or hint.repository else None


def _spec(info: Mapping[str, Any] | None, kind: Any) -> Any:
    return read_spec(info, kind) if info else None


def _merged(found: list[ModelNeed]) -> list[ModelNeed]:
    """One need per file and place it is loaded at; what the canvas declares is laid over the loader's word.
    What only sleeping nodes ask for stands last."""
    said: dict[str, ModelNeed] = {}
    for one in found:
        if one.is_declared:
            said.setdefault(spelling.basename(one.name), one)
    merged: dict[tuple[str, str, str], ModelNeed] = {}
    loaded: set[str] = set()
    for one in sorted((one for one in found if not one.is_declared), key=lambda one: one.asleep):
        name = spelling.basename(one.name)
        if one.asleep and name in loaded:
            continue
        loaded.add(name)
        extra = said.get(name)
        merged.setdefault((one.name, one.node, one.input), one.with_facts(extra) if extra else one)
    for one in sorted((one for one in found if one.is_declared), key=lambda one: one.asleep):
        name = spelling.basename(one.name)
        if name not in loaded:
            loaded.add(name)
            merged.setdefault((one.name, one.node, one.input), one)
    return sorted(merged.values(), key=lambda one: one.asleep)
