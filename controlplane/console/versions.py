"""The versions tab: the log with its branches, and what changed between any two versions."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from builds import heads, history, libraries, revisions
from builds.comparing import Diff, diff, telling
from builds.comparing.differences import NodeChange
from builds.comparing.parts import ADDED, Part
from builds.models import Version, Workflow
from controlplane.console import graph_view, pages, rail, roles
from controlplane.console.workflows import CHANNEL_WORDS, answer, find
from controlplane.kernel.errors import WorkflowError
from fleet import queries_workflows
from fleet.queries_workflows import Day

MOST_ROWS = 100
MOST_NODES = 80
MOST_LINES = 150
LONGEST = 140
VERDICTS = {"unchanged": ("API unchanged", "ok", "check"), "compatible": ("API compatible", "info", "check"), "breaking": ("API breaking", "bad", "xoct")}
STATUS_KINDS = {"added": "ok", "removed": "bad", "changed": "warn"}


@roles.staff
@require_GET
def log(request: HttpRequest, slug: str) -> HttpResponse:
    """All versions like a git log, what each did in the last day, the branches and the channels."""
    now = timezone.now()
    workflow = find(slug)
    chosen = request.GET.get("branch", "")[:60]
    found = history.log(workflow, branch=chosen, limit=MOST_ROWS, versions=workflow.versions.all())
    names = [line.name for line in found.branches]
    if chosen and chosen not in names:
        raise Http404
    days = queries_workflows.runs_by_version(workflow, now=now)
    rows = rail.rows((entry.version.number, entry.parents) for entry in found.entries)
    wide = rail.width(rows)
    moved = {c.name: c for c in workflow.channels.all()}
    runs = {name: f"v{found.numbers[c.version_id]}" for name, c in moved.items() if c.version_id in found.numbers}
    context = {
        "rows": [(entry, days.get(entry.version.pk, Day()), rail.picture(row, wide)) for entry, row in zip(found.entries, rows, strict=True)],
        "rail_width": wide,
        "older": found.left_out,
        "choices": list(workflow.versions.all())[:MOST_ROWS],
        "branches": found.branches,
        "branch": chosen,
        "main": heads.MAIN,
        "compare": _pair(found),
        "moves": history.moves(workflow, limit=8) if len(found.entries) > 1 or len(names) > 1 else [],
        "channel_rows": [(name, word, moved.get(name), runs.get(name, "")) for name, word in CHANNEL_WORDS.items()],
    }
    return answer(request, workflow, "console/workflow_versions.html", context, tab="versions", word="Versions", now=now)


def _pair(found: history.Log) -> tuple[int, int] | None:
    """What the comparison starts with: the newest version and what it came from."""
    newest = next((entry for entry in found.entries if entry.parents), None)
    return (newest.parents[0], newest.version.number) if newest else None


@roles.staff
@require_GET
def compare(request: HttpRequest, slug: str) -> HttpResponse:
    """What changes from a to b: the verdict on the API first, then inputs, graph, nodes, models and packs."""
    now = timezone.now()
    workflow = find(slug)
    a, b = _named(request, workflow)
    one, two = revisions.content_of(a), revisions.content_of(b)
    found = diff(one, two)
    query = f"?a={a.number}&b={b.number}&view=graph"
    inside = request.GET.get("inside", "")[:400]
    nodes, lines_left = _shown(found)
    context = {
        "a": a,
        "b": b,
        "found": found,
        "same": found.is_empty,
        "summary": telling.summary(found),
        "verdict": VERDICTS[found.api],
        "reasons": found.reasons[:100],
        "reasons_left": max(0, len(found.reasons) - 100),
        "counts": [(status, number, STATUS_KINDS[status]) for status, number in found.counts().items() if number],
        "nodes": nodes,
        "nodes_left": len(found.nodes) - len(nodes),
        "lines_left": lines_left,
        "parts": [("Models", _parts(found.models)), ("Packs", _parts(found.packs)), ("Python packages", _parts(found.packages))],
        "limits": [
            (word.removesuffix("_s").replace("_", " "), telling.shown(limit.before), telling.shown(limit.after))
            for limit in found.limits
            for word in [limit.name]
        ],
        "renumbered": len(found.renumbered),
        "picture": pages.part(request, lambda: graph_view.of_diff(one, two, found, library=libraries.current(), inside=inside, query=query)),
        "view": "list" if request.GET.get("view") == "list" else "graph",
        "choices": list(workflow.versions.all())[:MOST_ROWS],
    }
    return answer(request, workflow, "console/workflow_diff.html", context, tab="versions", word=f"v{a.number} to v{b.number}", now=now)


def _named(request: HttpRequest, workflow: Workflow) -> tuple[Version, Version]:
    """Both versions, by number, branch, channel or hash; the later one's parent where the earlier is not named."""
    a, b = (request.GET.get(side, "").strip()[:70] for side in ("a", "b"))
    try:
        later = revisions.at(workflow, b or heads.MAIN)
        if a:
            return revisions.at(workflow, a), later
    except WorkflowError:
        raise Http404 from None
    return later.parent or later, later


def _shown(found: Diff) -> tuple[list[dict[str, Any]], int]:
    """Nodes with their lines, as many as a page may hold; and how many fields did not fit."""
    left, shown, lost = MOST_LINES, [], 0
    for node in found.nodes[:MOST_NODES]:
        fields = _fields(node)
        kept = fields[: max(0, left // 2)]
        left -= 1 + sum(len(lines) for lines in kept)
        lost += len(fields) - len(kept)
        shown.append(_node(node, [line for lines in kept for line in lines]))
    return shown, lost


def _fields(node: NodeChange) -> list[list[tuple[str, str, str]]]:
    """For each field its lines: before, after, or both; of a node that came or went, what it holds."""
    if node.node is not None:
        kind = "add" if node.status == ADDED else "del"
        return [[(kind, telling.cut(str(name), 60), _value(value))] for name, value in node.node["inputs"].items()]
    names = [telling.cut(telling.field_name(one), 60) for one in node.fields]
    return [[("del", name, _value(one.before)), ("add", name, _value(one.after))] for name, one in zip(names, node.fields, strict=True)]


def _node(node: NodeChange, lines: list[tuple[str, str, str]]) -> dict[str, Any]:
    moved = node.before and node.after and node.before != node.after
    return {
        "id": f"{node.before} → {node.after}" if moved else node.id,
        "title": telling.cut(node.title, 80),
        "class_type": telling.cut(node.class_type, 80),
        "status": node.status,
        "kind": STATUS_KINDS[node.status],
        "mode": node.mode,
        "lines": lines,
    }


def _value(value: Any) -> str:
    text = telling.shown(value)
    return text if len(text) <= LONGEST else telling.cut(text, LONGEST)


def _parts(rows: list[Part]) -> list[dict[str, Any]]:
    return [
        {
            "name": telling.cut(row.name, 120),
            "status": row.status,
            "kind": STATUS_KINDS[row.status],
            "before": _make(row.before),
            "after": _make(row.after),
            "nodes": ", ".join(row.nodes[:6]),
        }
        for row in rows[:100]
    ]


def _make(text: str) -> str:
    """A commit or hash by its beginning, a version as it is."""
    return text[:12] if len(text) >= 40 and text.isalnum() else text[:60]
