"""A diff in words and as JSON. Texts out of graphs are cut here, so that no edge has to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from builds.comparing.differences import ABSENT, CLASS, TITLE, Diff, FieldChange, NodeChange
from builds.comparing.parts import ADDED, CHANGED, REMOVED, Part
from builds.comparing.schemas import BREAKING, COMPATIBLE, UNCHANGED

MOST_NODES = 500
MOST_FIELDS = 60
MOST_PARTS = 200
LONGEST = 400
API_WORDS = {UNCHANGED: "API unchanged", COMPATIBLE: "API compatible", BREAKING: "API breaking"}


def summary(found: Diff) -> str:
    """One sentence, the verdict on the API first."""
    if found.is_empty:
        return "Nothing differs."
    said = []
    counts = found.counts()
    for status, word in ((CHANGED, "changed"), (ADDED, "added"), (REMOVED, "removed")):
        if counts[status]:
            said.append(f"{_count(counts[status], 'node')} {word}")
    for word, rows in (("model", found.models), ("pack", found.packs), ("Python package", found.packages)):
        if rows:
            said.append(f"{_count(len(rows), word)} {_how(rows)}")
    if found.limits:
        said.append("limits changed")
    if not said:
        said = (
            ["only node numbers differ"]
            if found.renumbered
            else ["only the drawing differs"]
            if found.canvas_changed and not found.reasons
            else ["inputs differ"]
        )
    elif found.renumbered:
        said.append(f"{_count(len(found.renumbered), 'node')} renumbered")
    return f"{API_WORDS[found.api]}; {', '.join(said)}."


def as_json(found: Diff, *, whole: bool = False) -> dict[str, Any]:
    """The diff for programs. Long lists and values are cut and say so; with `whole` nothing is."""
    most = None if whole else MOST_NODES
    return {
        "same": found.is_empty,
        "runs_alike": found.runs_alike,
        "summary": summary(found),
        "api": {
            "verdict": found.api,
            "reasons": [asdict(reason) | {"before": _value(reason.before, whole), "after": _value(reason.after, whole)} for reason in found.reasons],
        },
        "nodes": [_node(one, whole) for one in found.nodes[:most]],
        "nodes_left_out": 0 if whole else max(0, len(found.nodes) - MOST_NODES),
        "counts": found.counts(),
        "renumbered": found.renumbered if whole or len(found.renumbered) <= MOST_NODES else dict(list(found.renumbered.items())[:MOST_NODES]),
        "models": _parts(found.models, whole),
        "packs": _parts(found.packs, whole),
        "pack_source": found.pack_source,
        "python_packages": _parts(found.packages, whole),
        "limits": {one.name: {"before": _value(one.before, whole), "after": _value(one.after, whole)} for one in found.limits},
        "canvas_changed": found.canvas_changed,
        "unchanged": found.unchanged,
    }


def lines(found: Diff) -> list[str]:
    """The diff as text for a terminal: the sentence, then what differs, `-` before and `+` after."""
    said = [summary(found)]
    said += [f"  {reason.level}: {reason.message} [{reason.code}]" for reason in found.reasons]
    for node in found.nodes[:MOST_NODES]:
        said += _node_lines(node)
    if len(found.nodes) > MOST_NODES:
        said.append(f"… and {len(found.nodes) - MOST_NODES:,} more nodes")
    for word, rows in (("models", found.models), ("packs", found.packs), ("Python packages", found.packages)):
        if rows:
            said.append(f"{word}:")
            said += _part_lines(rows)
    for limit in found.limits:
        said += [f"{limit.name}:", f"  - {shown(limit.before)}", f"  + {shown(limit.after)}"]
    same = ", ".join(f"{_count(number, word[:-1])}" for word, number in found.unchanged.items())
    return [one_line(line) for line in [*said, f"unchanged: {same}"]]


def shown(value: Any) -> str:
    """A value in one line of bounded length; a link as `node 4, output 0`."""
    if value is ABSENT or value is None:
        return "nothing"
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int) and not isinstance(value[1], bool):
        return f"node {cut(value[0], 100)}, output {value[1]}"
    return cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def cut(text: str, limit: int = LONGEST) -> str:
    """`text`, or its beginning with how much is missing."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit:,} more characters)"


def one_line(text: str) -> str:
    """Without line breaks and other characters that steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def field_name(change: FieldChange) -> str:
    return {CLASS: "class", TITLE: "title"}.get(change.kind, change.field)


def _node_lines(node: NodeChange) -> list[str]:
    mark = {ADDED: "+", REMOVED: "-", CHANGED: "~"}[node.status]
    number = f"#{node.after}" if node.before in ("", node.after) else f"#{node.before} → #{node.after}" if node.after else f"#{node.before}"
    mode = f", {node.mode} in the canvas" if node.mode else ""
    said = [f"{mark} {number} {cut(node.title, 120)} ({cut(node.class_type, 120)}){mode}"]
    for change in node.fields[:MOST_FIELDS]:
        said.append(f"    {cut(field_name(change), 120)}: {shown(change.before)} → {shown(change.after)}")
    if len(node.fields) > MOST_FIELDS:
        said.append(f"    … and {len(node.fields) - MOST_FIELDS} more fields")
    return said


def _part_lines(rows: list[Part]) -> list[str]:
    said = []
    for part in rows[:MOST_PARTS]:
        mark = {ADDED: "+", REMOVED: "-", CHANGED: "~"}[part.status]
        make = f" {part.before} → {part.after}" if part.status == CHANGED else f" {part.before or part.after}".rstrip()
        said.append(f"  {mark} {cut(part.name, 200)}{make}")
    return said + ([f"  … and {len(rows) - MOST_PARTS} more"] if len(rows) > MOST_PARTS else [])


def _node(node: NodeChange, whole: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"status": node.status, "before": node.before, "after": node.after, "class_type": node.class_type, "title": node.title}
    if node.mode:
        said["mode"] = node.mode
    if node.node is not None and whole:
        said["node"] = node.node
    fields = node.fields if whole else node.fields[:MOST_FIELDS]
    if fields:
        said["fields"] = [_field(change, whole) for change in fields]
    return said


def _field(change: FieldChange, whole: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"kind": change.kind, "field": change.field}
    said |= {side: _value(value, whole) for side, value in (("before", change.before), ("after", change.after)) if value is not ABSENT}
    return said


def _value(value: Any, whole: bool) -> Any:
    if whole or value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return cut(value)
    return value if len(json.dumps(value, default=str)) <= 2 * LONGEST else shown(value)


def _parts(rows: list[Part], whole: bool) -> dict[str, Any]:
    kept = rows if whole else rows[:MOST_PARTS]
    said: dict[str, Any] = {status: [_part(part) for part in kept if part.status == status] for status in (ADDED, REMOVED, CHANGED)}
    if len(kept) < len(rows):
        said["left_out"] = len(rows) - len(kept)
    return said


def _part(part: Part) -> dict[str, Any]:
    said: dict[str, Any] = {"name": part.name}
    said |= {side: make for side, make in (("before", part.before), ("after", part.after)) if make}
    return said | ({"nodes": list(part.nodes[:20])} if part.nodes else {})


def _how(rows: Iterable[Part]) -> str:
    kinds = {row.status for row in rows}
    return kinds.pop() if len(kinds) == 1 else "changed"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
