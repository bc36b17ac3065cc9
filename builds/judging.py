"""Judge a graph for keeping: the server's own rules, and what is known of its packs and models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from builds.dependencies import explaining
from builds.exposed import ExposedInput
from builds.findings import ERROR, MAX_FINDINGS, Finding, findings
from builds.models import Workflow


def judge(
    graph: Mapping[str, Any],
    library: Any,
    exposed: Iterable[ExposedInput | Mapping[str, Any]] = (),
    *,
    ui_graph: Mapping[str, Any] | None = None,
    workflow: Workflow | None = None,
) -> list[Finding]:
    """Every finding about `graph`, errors first; unknown classes name the packs that bring them."""
    found = explaining.explained(findings(graph, library, exposed), graph=graph, ui_graph=ui_graph, workflow=workflow, library=library)
    return sorted(found, key=lambda one: one["level"] != ERROR)[:MAX_FINDINGS]
