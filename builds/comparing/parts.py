"""What two versions are built of: model files, node packs and Python packages, and what came, went or changed among them.

A lock document says it exactly; without one on both sides, models are what loader inputs name and packs
are what the canvas wrote beside its nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from builds.comparing.content import Content
from builds.links import models

ADDED, REMOVED, CHANGED = "added", "removed", "changed"
CORE = "comfy-core"
_TEXT = 300


@dataclass(frozen=True, slots=True)
class Part:
    """One model, pack or package; `before` and `after` say its make, empty on the side that lacks it or does not tell."""

    status: str
    name: str
    before: str = ""
    after: str = ""
    nodes: tuple[str, ...] = ()


def model_parts(a: Content, b: Content) -> list[Part]:
    """Model files that came, went, or are other bytes under the same name."""
    old, new = _models(a), _models(b)
    hashes_a, hashes_b = _model_hashes(a), _model_hashes(b)
    found = [Part(REMOVED, name, hashes_a.get(name, ""), "", tuple(nodes)) for name, nodes in old.items() if name not in new]
    found += [Part(ADDED, name, "", hashes_b.get(name, ""), tuple(nodes)) for name, nodes in new.items() if name not in old]
    for name, nodes in new.items():
        before, after = hashes_a.get(name, ""), hashes_b.get(name, "")
        if name in old and before and after and before != after:
            found.append(Part(CHANGED, name, before, after, tuple(nodes)))
    return found


def pack_parts(a: Content, b: Content) -> list[Part]:
    """Node packs that came, went, or stand at another version."""
    if a.resolved is not None and b.resolved is not None:
        return _compared(_locked_packs(a.resolved), _locked_packs(b.resolved))
    if a.ui_graph is None or b.ui_graph is None:
        # One side does not say which packs it uses, so that a difference would be a guess.
        return []
    return _compared(_canvas_packs(a.ui_graph), _canvas_packs(b.ui_graph))


def package_parts(a: Content, b: Content) -> list[Part]:
    """Python packages of the two freezes; none without a lock on both sides."""
    if a.resolved is None or b.resolved is None:
        return []
    return _compared(_packages(a.resolved), _packages(b.resolved))


def pack_source(a: Content, b: Content) -> str:
    """Where the packs are known from: `lock`, `canvas`, or `none` when one side does not tell."""
    if a.resolved is not None and b.resolved is not None:
        return "lock"
    return "canvas" if a.ui_graph is not None and b.ui_graph is not None else "none"


def _compared(old: Mapping[str, str], new: Mapping[str, str]) -> list[Part]:
    found = [Part(REMOVED, name, make) for name, make in sorted(old.items()) if name not in new]
    found += [Part(ADDED, name, "", make) for name, make in sorted(new.items()) if name not in old]
    return found + [Part(CHANGED, name, old[name], make) for name, make in sorted(new.items()) if name in old and old[name] != make]


def _models(content: Content) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for reference in models(content.graph):
        found.setdefault(reference.name, []).append(reference.node)
    return found


def _model_hashes(content: Content) -> dict[str, str]:
    return {str(one.get("filename", "")): str(one.get("sha256", "")) for one in _rows(content.resolved, "models")}


def _locked_packs(document: Mapping[str, Any]) -> dict[str, str]:
    comfyui = document.get("comfyui")
    found = {"ComfyUI": _make(comfyui)} if isinstance(comfyui, Mapping) else {}
    return found | {_cut(one.get("key")): _make(one) for one in _rows(document, "packs")}


def _packages(document: Mapping[str, Any]) -> dict[str, str]:
    return {_cut(one.get("name")): _cut(one.get("version")) for one in _rows(document, "python_packages")}


def _make(one: Mapping[str, Any]) -> str:
    return _cut(one.get("commit") or one.get("version"))


def _rows(document: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    rows = (document or {}).get(key)
    return [one for one in rows if isinstance(one, Mapping)] if isinstance(rows, list) else []


def _canvas_packs(canvas: Mapping[str, Any]) -> dict[str, str]:
    """Pack → the versions its nodes were saved with. Core nodes carry the version they were drawn under, which says nothing of what runs."""
    makes: dict[str, set[str]] = {}
    for node in canvas_nodes(canvas):
        properties = node.get("properties")
        if isinstance(properties, Mapping):
            name = properties.get("cnr_id") or properties.get("aux_id")
            if isinstance(name, str) and name and name != CORE:
                make = properties.get("ver")
                makes.setdefault(_cut(name), set()).update([_cut(make)] if isinstance(make, str) and make else [])
    return {name: ", ".join(sorted(found)) for name, found in makes.items()}


def canvas_nodes(canvas: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every node of a canvas file as it lies there, those inside subgraph definitions too."""
    pending: list[Mapping[str, Any]] = [canvas]
    for sheet in pending:
        nodes = sheet.get("nodes")
        yield from (node for node in nodes if isinstance(node, Mapping)) if isinstance(nodes, list) else ()
        definitions = sheet.get("definitions")
        inner = definitions.get("subgraphs") if isinstance(definitions, Mapping) else None
        pending += [one for one in inner if isinstance(one, Mapping)] if isinstance(inner, list) else []


def _cut(value: Any) -> str:
    return str(value or "")[:_TEXT]
