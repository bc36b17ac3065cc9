"""Say in a graph's findings what its dependencies know: the pack that brings an unknown class, and a LoRA made for another base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from builds.conversion.problems import Inexact
from builds.dependencies import facts, needs, resolving, spelling, telling
from builds.dependencies.report import Report
from builds.findings import Finding
from builds.models import Workflow
from builds.nodespecs import info_of

_CARRIED = frozenset({"lora_base_mismatch", "model_path_unsafe"})
UNKNOWN = "unknown_node"
UNKNOWN_DRAWN = "unknown_node_class"


def explained(
    found: list[Finding], *, graph: Mapping[str, Any], ui_graph: Mapping[str, Any] | None = None, workflow: Workflow | None = None, library: Any
) -> list[Finding]:
    """`found` with packs named where a class is unknown, and with what makes the models unfit to run."""
    wanted = needs.of(graph=graph, ui_graph=_readable(ui_graph), info=info_of(library))
    unknown = any(one["code"] == UNKNOWN for one in found)
    if not unknown and not any(one.directory == "loras" or spelling.unsafe_path(one.name) for one in wanted.models):
        return found
    report = resolving.resolve(wanted, facts.load(wanted, library=library, workflow=workflow))
    told = [_told(one, report) if one["code"] == UNKNOWN else one for one in found]
    return [*(dict(one) for one in report.findings if one["code"] in _CARRIED), *told]


def refusal(error: Inexact, *, ui_graph: Mapping[str, Any] | None, workflow: Workflow | None = None, library: Any) -> Inexact:
    """The same refusal of a canvas, with packs named at the classes nobody knows."""
    drawn = _readable(ui_graph)
    if drawn is None or not any(one.code == UNKNOWN_DRAWN for one in error.problems):
        return error
    wanted = needs.of(graph=None, ui_graph=drawn, info=info_of(library))
    report = resolving.resolve(wanted, facts.load(wanted, library=library, workflow=workflow))
    by_class = {use.name: use for use in report.classes}
    after = " Then import the object_info of a ComfyUI that has it (manage.py import_object_info); or remove or bypass the node."
    problems = [
        replace(one, suggestion=telling.explained(by_class[one.class_type]) + after) if one.code == UNKNOWN_DRAWN and one.class_type in by_class else one
        for one in error.problems
    ]
    return Inexact(problems)


def _told(one: Finding, report: Report) -> Finding:
    name = one.get("details", {}).get("class_type", "")
    use = next((use for use in report.classes if use.name == name), None)
    if use is None:
        return one
    packs = [use.pack.as_json()] if use.pack else [candidate.as_json() for candidate in use.candidates[:5]]
    if not packs and one["suggestion"].startswith("Did you mean"):
        return one
    return {**one, "suggestion": telling.explained(use), "details": {**one.get("details", {}), "status": use.status, "packs": packs}}


def _readable(ui_graph: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The canvas when it can be read at all; what else is wrong with it is told by the conversion."""
    if ui_graph is None:
        return None
    try:
        needs.of(graph=None, ui_graph=ui_graph)
    except Inexact:
        return None
    return ui_graph
