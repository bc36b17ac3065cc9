"""What a workflow needs to run: its node classes with the packs that bring them, and its model files.

`of_graph` and `of_version` give the report (`builds.dependencies.report.Report`); the rest of the package is
pure but for `facts`, `importing`, `pins` and `model_facts`, which know the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from builds import graphs, libraries
from builds.conversion.problems import Inexact, Problem
from builds.dependencies import facts, needs, resolving
from builds.dependencies.report import Report
from builds.findings import WARNING, finding
from builds.models import Version, Workflow
from builds.nodespecs import info_of
from controlplane.kernel.errors import Invalid

__all__ = ["Report", "of_document", "of_graph", "of_version"]

_CURRENT: Any = object()


def of_graph(
    *, graph: Mapping[str, Any] | None, ui_graph: Mapping[str, Any] | None = None, workflow: Workflow | None = None, library: Any = _CURRENT
) -> Report:
    """The report on an API graph, a canvas (`ui_graph` with `graph=None`), or both of one workflow; `library` is the target ComfyUI."""
    target = libraries.current() if library is _CURRENT else library
    wanted = needs.of(graph=graph, ui_graph=ui_graph, info=info_of(target))
    return resolving.resolve(wanted, facts.load(wanted, library=target, workflow=workflow))


def of_version(version: Version) -> Report:
    """The report on a kept version, against the current node library."""
    return of_graph(graph=version.graph, ui_graph=version.ui_graph, workflow=version.workflow)


def of_document(*, document: Any, workflow: Workflow | None = None, library: Any = _CURRENT) -> Report:
    """The report on an uploaded document, even one that cannot be converted for want of node classes; raises Malformed, Invalid or TooLarge."""
    target = libraries.current() if library is _CURRENT else library
    drawn = graphs.canvas(document)
    problems: list[Problem] = []
    graph: Mapping[str, Any] | None = None
    try:
        graph = graphs.parse(document, library=target)
    except Inexact as error:
        if drawn is None:
            raise
        problems = error.problems
    except Invalid as error:
        if drawn is None or error.code != "no_node_library":
            raise
    report = of_graph(graph=graph, ui_graph=drawn, workflow=workflow, library=target)
    told = {"unknown_node_class", "group_node"}
    more = [finding(WARNING, one.code, one.message, one.suggestion, node=one.node, field=one.field) for one in problems if one.code not in told]
    return replace(report, findings=(*report.findings, *more))
