"""What is wrong with a graph's needs, each with node, field and fix, in the form every page shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from builds.dependencies import spelling
from builds.dependencies.known import Facts
from builds.dependencies.needs import Hint, Needs
from builds.dependencies.report import AMBIGUOUS, CORE, MISSING, ClassUse
from builds.findings import ERROR, WARNING, finding

INFO = "info"
MAX_FINDINGS = 200
_SHOWN = 80


def findings(needs: Needs, facts: Facts, uses: Iterable[ClassUse], hints: Mapping[str, set[Hint]]) -> list[dict[str, Any]]:
    """Everything about classes and packs; models are told by `builds.dependencies.modeling`."""
    found: list[dict[str, Any]] = []
    if not facts.has_lists:
        found.append(
            finding(
                WARNING,
                "node_lists_missing",
                "No public node list is imported, so packs are known only where the graph names them.",
                "Import one: manage.py import_node_lists PATH or URL.",
            )
        )
    for path, kind in needs.broken:
        message = f"Node {short(path)} is an instance of subgraph {short(kind)}, whose definition is not in the file."
        found.append(finding(ERROR, "subgraph_missing", message, "Open the file in ComfyUI, save it again and import that file.", node=path))
    for path, kind in needs.group_nodes:
        message = f"Node {short(path)} is a group node of the old kind; what is inside is not looked at."
        found.append(
            finding(WARNING, "group_node", message, "In ComfyUI convert it to nodes or to a subgraph, save and import again.", node=path, class_type=kind[:200])
        )
    for use in uses:
        found += _class(use, facts)
        found += _contradictions(use, hints.get(use.name, set()))
    return found


def _class(use: ClassUse, facts: Facts) -> list[dict[str, Any]]:
    where = {"node": use.nodes[0] if use.nodes else "", "field": "class_type"}
    level = INFO if use.asleep else ERROR
    name = short(use.name)
    if use.status == CORE and facts.target.name and use.name not in facts.core:
        message = f"{name} belongs to ComfyUI itself, but {facts.target.name} does not have it."
        suggestion = "Choose a ComfyUI that has it: import its object_info with manage.py import_object_info, or replace the node."
        return [finding(level, "core_class_not_in_target", message, suggestion, **where, class_type=use.name)]
    if use.status == MISSING:
        return [finding(level, "pack_unknown", f"Nobody here knows which pack brings {name}.", missing_fix(use.name), **where, class_type=use.name)]
    if use.status == AMBIGUOUS:
        message = f"{name}: {use.why}"
        packs = [one.pack.key for one in use.candidates[:5]]
        return [finding(level, "pack_ambiguous", message, choose_fix(use), **where, class_type=use.name, candidates=packs)]
    return []


def missing_fix(name: str) -> str:
    """What to do about a class nobody knows."""
    return f"Import newer lists with manage.py import_node_lists, or say which pack it is: manage.py pin {short(name)!r} PACK --reason …"


def choose_fix(use: ClassUse) -> str:
    """What to do about an ambiguous class."""
    shown = ", ".join(one.pack.title or one.pack.key for one in use.candidates[:3])
    return f"Choose one with your reason (best first: {shown}); the choice is kept."


def explained(use: ClassUse) -> str:
    """The suggestion for a class the node library does not know, from what the lists say."""
    if use.pack:
        version = f" at {use.pack.version}" if use.pack.version else ""
        said = any(one.kind == "graph" for one in use.candidates[0].evidence) if use.candidates else False
        return (
            f"Install the pack {named(use)}{version}, as the graph says."
            if said
            else f"Install the pack {named(use)}{version}: {use.why[:1].lower()}{use.why[1:]}"
        )
    if use.status == AMBIGUOUS:
        return f"{use.why} {choose_fix(use)}"
    if use.status == CORE:
        return f"{use.why} Choose a ComfyUI version that has it."
    return missing_fix(use.name)


def named(use: ClassUse) -> str:
    """The pack of a class, as people know it."""
    pack = use.pack
    if pack is None:
        return ""
    address = pack.registry_id or pack.repository or pack.key
    return f"{pack.title} ({address})" if pack.title and pack.title != address else address


def _contradictions(use: ClassUse, hints: set[Hint]) -> list[dict[str, Any]]:
    where = {"node": use.nodes[0] if use.nodes else "", "field": "properties"}
    found = []
    if use.status == CORE and hints:
        said = sorted(one.registry_id or one.repository for one in hints)[0]
        message = f"The graph says {short(use.name)} comes from {said}, but it is a class of ComfyUI itself, which no pack can replace."
        found.append(finding(INFO, "pack_id_on_core_class", message, "Nothing to do; that pack is not installed for it.", **where))
    sources = {one.registry_id or spelling.repository_key(one.repository) for one in hints}
    if use.status != CORE and len(sources) > 1:
        message = f"Nodes of class {short(use.name)} name different packs: {', '.join(sorted(sources)[:4])}."
        found.append(finding(WARNING, "pack_ids_differ", message, "Pin the right one with a reason.", **where, class_type=use.name))
    versions = sorted({one.version for one in hints if one.version})
    if use.status != CORE and len(sources) == 1 and len(versions) > 1:
        message = f"Nodes of class {short(use.name)} were saved with different versions of their pack: {', '.join(versions[:4])}."
        taken = chosen_version(versions)
        found.append(finding(WARNING, "pack_versions_differ", message, f"{taken} is taken; pin another where that is wrong.", **where, class_type=use.name))
    return found


def chosen_version(versions: list[str]) -> str:
    """One of several: the newest release, and where only commits are known the most frequent."""
    releases = [one for one in versions if not spelling.is_commit(one)]
    if releases:
        return max(releases, key=_order)
    return max(sorted(set(versions)), key=lambda one: (versions.count(one), len(one)), default="")


def newest(versions: Mapping[str, int]) -> str:
    """The newest release among them, or empty."""
    return max((one for one in versions if not spelling.is_commit(one)), key=_order, default="")


def _order(version: str) -> tuple[tuple[int, ...], bool, str]:
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    parts = tuple(int(part[:9]) for part in numbers.group().split(".")) if numbers else ()
    rest = version[numbers.end() :] if numbers else version
    # 1.0.0 is newer than 1.0.0rc1.
    return parts, not rest, rest


def short(text: str) -> str:
    """Text of strangers as it may stand in a message: one line, bounded."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
