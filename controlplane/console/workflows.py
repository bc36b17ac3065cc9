"""Workflows: the list with health and money, and each one's overview, versions, jobs and settings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from builds import editing, libraries, versions
from builds.models import Version, Workflow
from controlplane.console import graph_view, jobs, numbers, pages, ranges, rates, roles
from controlplane.kernel import money
from controlplane.kernel.envelope import request_id_of
from controlplane.kernel.errors import WorkflowError
from fleet import queries_workflows
from fleet.queries_workflows import Day, Listed

CHANNEL_WORDS = {"lab": "Lab", "staging": "Staging", "limited": "Limited", "production": "Production"}


@roles.staff
@require_GET
def listing(request: HttpRequest) -> HttpResponseBase:
    """Every workflow with its last 24 hours; most failing first."""
    now = timezone.now()
    text, category = request.GET.get("q", "").strip()[:80], request.GET.get("category", "")[:40]
    rows = queries_workflows.listed(now=now, text=text, category=category)
    with_money = roles.sees_money(request)
    if request.GET.get("format") == "csv":
        return pages.csv_file(f"workflows-{now:%Y%m%dT%H%MZ}", _csv_head(with_money), _csv(rows, with_money=with_money))
    query = request.GET.copy()
    query["format"] = "csv"
    context = {
        "rows": rows,
        "text": text,
        "category": category,
        "categories": [("", "All categories"), *((c, c) for c in queries_workflows.categories())],
        "total": len(rows) if not (text or category) else Workflow.objects.filter(archived_at__isnull=True).count(),
        "headline": _headline(rows) if not (text or category) else f"{len(rows):,} workflow{'' if len(rows) == 1 else 's'}",
        "may_import": roles.may(request, "release"),
    }
    return pages.page(
        request, "console/workflows.html", context, title="Workflows", active="workflows", csv_href=f"?{query.urlencode()}" if rows else "", now=now
    )


def _headline(rows: list[Listed]) -> str:
    failing = [r for r in rows if r.day.success is not None and r.day.success < rates.TARGET]
    if not rows:
        return "Workflows"
    if failing:
        return f"{len(failing):,} of {len(rows):,} workflows below 95% success"
    return f"{len(rows):,} workflow{'' if len(rows) == 1 else 's'}, " + ("none below 95% success" if any(r.day.jobs for r in rows) else "none ran in 24 h")


def _csv_head(with_money: bool) -> list[str]:
    head = ["slug", "name", "category", "stable_version", "newest_version", "jobs_24h", "success_share_24h", "run_p95_s", "wait_p95_s"]
    return head + (["cost_per_job_usd", "price_per_job_usd", "margin_share"] if with_money else [])


def _csv(rows: list[Listed], *, with_money: bool) -> Iterator[list[Any]]:
    def rounded(value: float | None, digits: int) -> float | None:
        return None if value is None else round(value, digits)

    for r in rows:
        d = r.day
        line: list[Any] = [r.workflow.slug, r.workflow.name, r.workflow.category, r.stable.number if r.stable else None, r.latest.number if r.latest else None]
        line += [d.jobs, rounded(d.success, 6), rounded(d.run_p95, 3), rounded(d.wait_p95, 3)]
        if with_money:
            line += [*(None if v is None else money.to_usd(v) for v in (d.cost_per_job, d.price_per_job)), rounded(d.margin, 6)]
        yield line


def find(slug: str) -> Workflow:
    """The workflow with its versions, or 404."""
    workflow = queries_workflows.by_slug(slug)
    if workflow is None:
        raise Http404
    return workflow


def shell(request: HttpRequest, workflow: Workflow, *, tab: str) -> dict[str, Any]:
    """What the head of every page of a workflow shows."""
    known = {v.id: v for v in workflow.versions.all()}
    channels = {c.name: known[c.version_id] for c in workflow.channels.all() if c.version_id in known}
    tabs = [("overview", "Overview", "ops:workflow"), ("api", "API", "ops:workflow_api"), ("versions", "Versions", "ops:workflow_versions")]
    tabs += [("dependencies", "Dependencies", "ops:workflow_dependencies"), ("lock", "Lock", "ops:workflow_lock")]
    tabs += [("builds", "Builds", "ops:workflow_builds"), ("smoke", "Smoke runs", "ops:workflow_smoke")]
    tabs += [("jobs", "Jobs", "ops:workflow_jobs"), ("settings", "Settings", "ops:workflow_settings")]
    stable, newest = channels.get("production"), next(iter(known.values()), None)
    return {
        "workflow": workflow,
        "stable": stable,
        "stable_word": f"v{stable.number} in production" if stable else "",
        "newest": newest,
        "draft_word": f"v{newest.number} is a draft" if newest else "",
        "channel_of": {v.id: [CHANNEL_WORDS[name] for name in CHANNEL_WORDS if channels.get(name) == v] for v in known.values()},
        "channels": channels,
        "tab": tab,
        "tab_items": [(word, reverse(name, args=[workflow.slug]), key == tab, len(known) if key == "versions" else None) for key, word, name in tabs],
        "may_release": roles.may(request, "release"),
        "may_run": roles.may(request, "operator"),
    }


def answer(
    request: HttpRequest, workflow: Workflow, template: str, context: dict[str, Any], *, tab: str, word: str = "", now: datetime, **more: Any
) -> HttpResponse:
    """A page of one workflow."""
    crumbs = [("Workflows", reverse("ops:workflows")), (workflow.slug, reverse("ops:workflow", args=[workflow.slug])), *([(word, "")] if word else [])]
    title = f"{word}, {workflow.slug}" if word else workflow.slug
    return pages.page(request, template, {**shell(request, workflow, tab=tab), **context}, title=title, active="workflows", crumbs=crumbs, now=now, **more)


@roles.staff
@require_GET
def overview(request: HttpRequest, slug: str) -> HttpResponse:
    """Health tiles, findings and the graph of the version that matters: production's, or the newest."""
    now = timezone.now()
    workflow = find(slug)
    number = request.GET.get("v", "")
    version = queries_workflows.version(workflow, int(number) if number.isdecimal() and len(number) < 7 else None)
    if number and version is None:
        raise Http404
    day = queries_workflows.day_of({v.id: workflow.id for v in workflow.versions.all()}, now=now).get(workflow.id, Day())
    context: dict[str, Any] = {
        "day": day,
        "version": version,
        "tiles": _tiles(request, workflow, day),
        "view": "list" if request.GET.get("view") == "list" else "graph",
    }
    if version is not None:
        times = queries_workflows.node_times(version.id)
        context["times"] = times
        inside, query = request.GET.get("inside", "")[:400], f"?v={version.number}&view=graph"
        context["picture"] = pages.part(request, lambda: graph_view.picture(version, times=times, library=libraries.current(), inside=inside, query=query))
        context["findings"] = sorted(version.findings, key=lambda f: f.get("level") != "error")
        context["errors"] = sum(f.get("level") == "error" for f in version.findings)
    return answer(request, workflow, "console/workflow.html", context, tab="overview", now=now)


def _tiles(request: HttpRequest, workflow: Workflow, day: Day) -> list[dict[str, Any]]:
    n = numbers
    ended = f"{n.count(day.customers)} customer{'' if day.customers == 1 else 's'}" if day.jobs else "none ended"
    tiles: list[dict[str, Any]] = [
        {
            "label": "Success, 24 h",
            "value": rates.success(day.success) if day.success is not None else "no runs",
            "detail": f"{n.count(day.failed + day.expired)} failed or expired" if day.jobs else "target 95%",
        },
        {
            "label": "Run time p95",
            "value": n.dur(day.run_p95, tile=True, missing="no runs"),
            "detail": f"wait p95 {n.dur(day.wait_p95)}" if day.wait_p95 is not None else "in 24 h",
        },
        {"label": "Jobs, 24 h", "value": n.count(day.jobs), "detail": ended, "spark": day.hourly if day.jobs else ()},
    ]
    waiting = queries_workflows.jobs_by_status(workflow)
    tiles.append({"label": "Now", "value": n.count(waiting.get("running", 0)), "unit": "running", "detail": f"{n.count(waiting.get('queued', 0))} waiting"})
    if roles.sees_money(request):
        detail = f"price {n.usd(day.price_per_job)}, margin {n.pct(day.margin)}" if day.succeeded else "no good job in 24 h"
        tiles.append({"label": "Cost per job", "value": n.usd(day.cost_per_job, tile=True, missing="no runs"), "detail": detail})
    if day.success is not None and day.success < rates.TARGET:
        tiles[0] |= {"kind": "bad", "detail": f"{tiles[0]['detail']}, target 95%"}
    return tiles


@roles.needs("release", "Promoting a version")
@require_POST
def promote(request: HttpRequest, slug: str) -> HttpResponse:
    """Move a channel to a version."""
    workflow = find(slug)
    back = redirect("ops:workflow_versions", slug=slug)
    number, channel = request.POST.get("version", ""), request.POST.get("channel", "")
    version = next((v for v in workflow.versions.all() if str(v.number) == number), None)
    if version is None:
        messages.error(request, "That version does not exist. Choose one from the list.")
        return back
    before = next((c for c in workflow.channels.all() if c.name == channel), None)
    if before is not None and before.version_id == version.id:
        messages.info(request, f"{CHANNEL_WORDS.get(channel, channel)} runs v{number} already.")
        return back
    try:
        versions.promote(workflow=workflow, channel=channel, version=version, actor=request.user.get_username(), now=timezone.now())
    except WorkflowError as error:
        messages.error(request, f"{error.message} {error.suggestion}".strip())
    else:
        messages.success(request, f"{CHANNEL_WORDS[channel]} now runs v{number}. Jobs accepted before keep their version.")
    return back


@roles.staff
@require_GET
def version_graph(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """The graph of a version as the file ComfyUI reads."""
    version = Version.objects.filter(workflow__slug=slug, number=number).only("graph").first()
    if version is None:
        raise Http404
    body = json.dumps(version.graph, indent=2, ensure_ascii=False)
    headers = {"Content-Disposition": f'attachment; filename="{slug}-v{number}.json"'}
    return HttpResponse(body, content_type="application/json; charset=utf-8", headers=headers)


@roles.staff
@require_GET
def job_list(request: HttpRequest, slug: str) -> HttpResponse:
    """The workflow's jobs, with the filters of the jobs page."""
    now = timezone.now()
    workflow = find(slug)
    span = ranges.parse(request.GET, now=now, default="7d")
    chosen = jobs.wanted(request, span, workflow=slug)
    context = jobs.list_context(request, span=span, chosen=chosen, now=now)
    base = jobs.query(chosen, span)
    context |= {"in_workflow": True, "statuses": jobs.status_chips(chosen, span), "all_url": f"{reverse('ops:jobs')}?{base}"}
    if not jobs.is_fragment(request):
        context |= jobs.filter_choices(workflow=False)
    csv = f"{reverse('ops:jobs_csv')}?{base}"
    return answer(
        request, workflow, "console/workflow_jobs.html", context, tab="jobs", word="Jobs", now=now, span=span, fragment="console/jobs_rows.html", csv_href=csv
    )


@roles.staff
@require_http_methods(["GET", "HEAD", "POST"])
def settings(request: HttpRequest, slug: str) -> HttpResponse:
    """Name, description, category and result cache."""
    now = timezone.now()
    workflow = find(slug)
    values = {"name": workflow.name, "description": workflow.description, "category": workflow.category, "result_cache_s": str(workflow.result_cache_s)}
    errors: dict[str, str] = {}
    if request.method == "POST":
        if not roles.may(request, "release"):
            return roles.refuse(request, "release", "Changing a workflow")
        values = {name: request.POST.get(name, "")[:2_000].replace("\0", "") for name in values}
        seconds = values["result_cache_s"].strip()
        if not seconds.isdecimal() or len(seconds) > 9:
            errors["result_cache_s"] = "Give whole seconds. 0 turns the cache off."
        else:
            try:
                editing.edit(
                    slug=slug, name=values["name"], description=values["description"], category=values["category"], result_cache_s=int(seconds),
                    actor=request.user.get_username(), request_id=request_id_of(request), now=now,
                )  # fmt: skip
            except WorkflowError as error:
                errors[str(error.details.get("field", "name"))] = f"{error.message} {error.suggestion}".strip()
            else:
                messages.success(request, "Settings kept.")
                return redirect("ops:workflow_settings", slug=slug)
    context = {"values": values, "errors": errors, "categories": queries_workflows.categories(), "known_categories": ["image", "video", "audio", "text"]}
    return answer(request, workflow, "console/workflow_settings.html", context, tab="settings", word="Settings", now=now, status=422 if errors else 200)
