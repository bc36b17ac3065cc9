"""Judge a graph for keeping: the server's own rules, and what is known of its packs and models."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from builds.dependencies import explaining
from builds.exposed import ExposedInput
from builds.findings import ERROR, MAX_FINDINGS, WARNING, Finding, findings
from builds.models import Workflow


def judge(
    graph: Mapping[str, Any],
    library: Any,
    exposed: Iterable[ExposedInput | Mapping[str, Any]] = (),
    *,
    ui_graph: Mapping[str, Any] | None = None,
    workflow: Workflow | None = None,
    fetched: Collection[str] = (),
) -> list[Finding]:
    """Every finding about `graph`, errors first; unknown classes name the packs that bring them.

    A model in `fetched` need not be on the pool: workers fetch it by its lock.
    """
    found = explaining.explained(findings(graph, library, exposed), graph=graph, ui_graph=ui_graph, workflow=workflow, library=library)
    found = [_comes(one) if one["code"] == "model_missing" and _named(one) in fetched else one for one in found]
    return sorted(found, key=lambda one: one["level"] != ERROR)[:MAX_FINDINGS]


def _named(one: Finding) -> str:
    return str(one.get("details", {}).get("model", "")).replace("\\", "/")


def _comes(one: Finding) -> Finding:
    message = f"The model {_named(one)[:200]!r} is not on the pool yet; a worker fetches it before its first job."
    return {**one, "level": WARNING, "code": "model_fetched_on_demand", "message": message, "suggestion": "Nothing to do: the lock says where it comes from."}
