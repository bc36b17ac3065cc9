"""Merge two canvas files the way their graphs were merged, sheet by sheet and node by node.

What the author of ours placed stays where it is; what is new in theirs comes with the place it has there. A canvas keeps
values without names and links by number, so this is done by position and may fail: the caller converts the outcome and
keeps it only when that gives the merged graph exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from builds.comparing.content import same
from builds.comparing.differences import ABSENT

Raw = dict[str, Any]
Convert = Callable[[Mapping[str, Any]], Mapping[str, Any]]
# Where a node lies and how it looks: ours, without a question.
_LOOKS = frozenset({"pos", "size", "flags", "order", "color", "bgcolor", "shape"})
_BORDERS = ("-10", "-20")
_LINK = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")


@dataclass(slots=True)
class _Sheet:
    """Nodes by id with their sockets' links as (source, slot), the links into the sheet's own outputs, and everything else as it lies."""

    raw: Raw
    nodes: dict[str, Raw] = field(default_factory=dict)
    feeds: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    types: dict[tuple[str, int, str, str], Any] = field(default_factory=dict)


def merged(base: Any, ours: Any, theirs: Any, *, graph: Mapping[str, Any], renumbered: Mapping[str, str]) -> Raw | None:
    """A canvas for the merged `graph`, or None where the files are too different to say. `renumbered`: their ids → ids in the result."""
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping) or any(":" in node for node in renumbered):
        return None
    base = base if isinstance(base, Mapping) else {}
    theirs = _renamed(theirs, renumbered)
    result: Raw = copy.deepcopy(dict(ours))
    inside: dict[str, list[str]] = {}
    for node in (*ours.get("nodes", ()), *theirs.get("nodes", ())):
        inside.setdefault(str(node.get("type")), []).append(f"{node.get('id')}:")
    sheet = _merge_sheet(_read(base), _read(ours), _read(theirs), graph, [""])
    result |= sheet
    old, mine, other = (_definitions(one) for one in (base, ours, theirs))
    if mine or other:
        listed = []
        for key in {**mine, **other}:
            if key in mine and key in other:
                listed.append(_merge_sheet(_read(old.get(key, {})), _read(mine[key]), _read(other[key]), graph, inside.get(key, [])))
            else:
                listed.append(copy.deepcopy(mine.get(key) or other[key]))
        result["definitions"] = {**(result.get("definitions") or {}), "subgraphs": listed}
    ids = [node["id"] for node in result["nodes"] if isinstance(node.get("id"), int)]
    result["last_node_id"] = max([*ids, *(one.get("last_node_id") for one in (ours, theirs) if isinstance(one.get("last_node_id"), int))], default=0)
    result["last_link_id"] = len(result.get("links") or ())
    return result


def _merge_sheet(base: _Sheet, ours: _Sheet, theirs: _Sheet, graph: Mapping[str, Any], prefixes: list[str]) -> Raw:
    kept: dict[str, Raw] = {}
    for node_id in {**ours.nodes, **theirs.nodes}:
        if _stays(node_id, base, ours, theirs, graph, prefixes):
            values = [value for prefix in prefixes for value in graph.get(prefix + node_id, {}).get("inputs", {}).values()]
            kept[node_id] = _node(base.nodes.get(node_id), ours.nodes.get(node_id), theirs.nodes.get(node_id), values)
    feeds: dict[tuple[str, str], tuple[str, int]] = {}
    for place in {**ours.feeds, **theirs.feeds}:
        b, o, t = (one.feeds.get(place, ABSENT) for one in (base, ours, theirs))
        # A side that has no such node has no opinion on what feeds it.
        if place[0] not in ours.nodes and place[0] not in _BORDERS:
            chosen = t
        elif place[0] not in theirs.nodes and place[0] not in _BORDERS:
            chosen = o
        else:
            chosen = o if o == t or b == t else t if b == o else _linked(place, o, t, graph, prefixes)
        if chosen is not ABSENT and (place[0] in kept or place[0] in _BORDERS) and (chosen[0] in kept or chosen[0] in _BORDERS):
            feeds[place] = chosen
    return _written(ours, theirs, base, kept, feeds)


def _stays(node_id: str, base: _Sheet, ours: _Sheet, theirs: _Sheet, graph: Mapping[str, Any], prefixes: list[str]) -> bool:
    if any(prefix + node_id in graph for prefix in prefixes):
        return True
    if node_id in ours.nodes and node_id in theirs.nodes:
        return True
    if node_id not in base.nodes:
        return True
    left = ours.nodes.get(node_id) or theirs.nodes[node_id]
    return not _alike(left, base.nodes[node_id])


def _alike(a: Raw, b: Raw) -> bool:
    skipped = _LOOKS | {"inputs", "outputs"}
    return all(same(a.get(key), b.get(key)) for key in {*a, *b} - skipped)


def _node(base: Raw | None, ours: Raw | None, theirs: Raw | None, values: list[Any]) -> Raw:
    if ours is None or theirs is None:
        return copy.deepcopy(ours or theirs or {})
    base = base or {}
    node = copy.deepcopy(ours)
    for key in {**ours, **theirs}:
        if key in _LOOKS or key in ("id", "outputs"):
            continue
        b, o, t = (one.get(key, ABSENT) for one in (base, ours, theirs))
        chosen = _three(b, o, t, values)
        if chosen is ABSENT:
            node.pop(key, None)
        else:
            node[key] = copy.deepcopy(chosen)
    if len(theirs.get("outputs") or ()) > len(ours.get("outputs") or ()):
        node["outputs"] = copy.deepcopy(theirs["outputs"])
    return node


def _three(b: Any, o: Any, t: Any, values: list[Any]) -> Any:
    """Three-way on one value; lists of one length and objects go element by element, the rest by what the merged graph holds."""
    if o is t or (ABSENT not in (o, t) and same(o, t)) or (ABSENT not in (b, t) and same(b, t)) or (b is t):
        return o
    if b is o or (ABSENT not in (b, o) and same(b, o)):
        return t
    if isinstance(o, list) and isinstance(t, list) and len(o) == len(t):
        before = b if isinstance(b, list) and len(b) == len(o) else [ABSENT] * len(o)
        return [_three(*row, values) for row in zip(before, o, t, strict=True)]
    if isinstance(o, dict) and isinstance(t, dict):
        known = b if isinstance(b, dict) else {}
        rows = {key: _three(known.get(key, ABSENT), o.get(key, ABSENT), t.get(key, ABSENT), values) for key in {**o, **t}}
        return {key: value for key, value in rows.items() if value is not ABSENT}
    wanted = [t is not ABSENT and any(same(t, value) for value in values), o is not ABSENT and any(same(o, value) for value in values)]
    return t if wanted == [True, False] else o


def _linked(place: tuple[str, str], o: Any, t: Any, graph: Mapping[str, Any], prefixes: list[str]) -> Any:
    for prefix in prefixes:
        value = graph.get(prefix + place[0], {}).get("inputs", {}).get(place[1])
        if t is not ABSENT and isinstance(value, list) and value == [prefix + t[0], t[1]]:
            return t
    return o


def _read(raw: Mapping[str, Any]) -> _Sheet:
    sheet = _Sheet(dict(raw))
    links: dict[Any, tuple[str, int, str, int, Any]] = {}
    rows = raw.get("links")
    for row in (rows.values() if isinstance(rows, Mapping) else rows) or ():
        cells: list[Any] = [row.get(name) for name in _LINK] if isinstance(row, Mapping) else [*row, None][:6]
        key, source, slot, target, at, kind = cells
        links[key] = (str(source), int(slot), str(target), int(at), kind)
    sheet.nodes = {str(node["id"]): node for node in raw.get("nodes") or ()}
    for node_id, node in sheet.nodes.items():
        for socket in node.get("inputs") or ():
            if socket.get("link") in links:
                source, slot, _, _, kind = links[socket["link"]]
                sheet.feeds[node_id, str(socket.get("name"))] = (source, slot)
                sheet.types[source, slot, node_id, str(socket.get("name"))] = kind
    for source, slot, target, at, kind in links.values():
        if target == "-20":
            sheet.feeds[target, str(at)] = (source, slot)
            sheet.types[source, slot, target, str(at)] = kind
    return sheet


def _written(ours: _Sheet, theirs: _Sheet, base: _Sheet, nodes: dict[str, Raw], feeds: Mapping[tuple[str, str], tuple[str, int]]) -> Raw:
    """The sheet with its links numbered anew, wherever they are written down: table, sockets, ports."""
    raw: Raw = copy.deepcopy(ours.raw)
    table: list[list[Any]] = []
    for node in nodes.values():
        for socket in node.get("inputs") or ():
            socket["link"] = None
        for socket in node.get("outputs") or ():
            socket["links"] = []
    for (target, name), (source, slot) in feeds.items():
        number = len(table) + 1
        if target in _BORDERS:
            at = int(name)
        else:
            sockets = nodes[target].setdefault("inputs", [])
            at = next((index for index, socket in enumerate(sockets) if socket.get("name") == name), -1)
            if at < 0:
                other = next(
                    one for side in (theirs, ours) if target in side.nodes for one in side.nodes[target].get("inputs") or () if one.get("name") == name
                )
                at = len(sockets)
                sockets.append(copy.deepcopy(other))
            sockets[at]["link"] = number
        if source in nodes and slot < len(nodes[source].get("outputs") or ()):
            nodes[source]["outputs"][slot]["links"].append(number)
        key = (source, slot, target, name)
        table.append([number, _number(source), slot, _number(target), at, theirs.types.get(key, ours.types.get(key))])
    if isinstance(ours.raw.get("links"), Mapping) or "inputs" in ours.raw:
        raw["links"] = [dict(zip(_LINK, row, strict=True)) for row in table]
        for index, port in enumerate(raw.get("inputs") or ()):
            port["linkIds"] = [row[0] for row in table if str(row[1]) == "-10" and row[2] == index]
        for index, port in enumerate(raw.get("outputs") or ()):
            port["linkIds"] = [row[0] for row in table if str(row[3]) == "-20" and row[4] == index]
    else:
        raw["links"] = table
    raw["nodes"] = list(nodes.values())
    raw["groups"] = [*(ours.raw.get("groups") or ()), *_new_groups(base, ours, theirs)]
    return raw


def _new_groups(base: _Sheet, ours: _Sheet, theirs: _Sheet) -> list[Any]:
    known = [*(base.raw.get("groups") or ()), *(ours.raw.get("groups") or ())]
    return [copy.deepcopy(group) for group in theirs.raw.get("groups") or () if not any(same(group, one) for one in known)]


def _renamed(canvas: Mapping[str, Any], table: Mapping[str, str]) -> Mapping[str, Any]:
    """The canvas with other numbers on its root sheet."""
    if not table:
        return canvas
    made: Raw = copy.deepcopy(dict(canvas))
    for node in made.get("nodes") or ():
        node["id"] = _number(table.get(str(node.get("id")), node.get("id")))
    for row in made.get("links") or ():
        for at in (1, 3) if isinstance(row, list) else ("origin_id", "target_id"):
            row[at] = _number(table.get(str(row[at]), row[at]))
    return made


def _number(node_id: Any) -> Any:
    text = str(node_id)
    return int(text) if text.lstrip("-").isdecimal() and len(text) < 16 else node_id


def _definitions(canvas: Mapping[str, Any]) -> dict[str, Raw]:
    holder = canvas.get("definitions")
    listed = holder.get("subgraphs") if isinstance(holder, Mapping) else None
    return {str(one.get("id")): dict(one) for one in listed or () if isinstance(one, Mapping)}
