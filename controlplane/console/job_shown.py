"""What the page of a job says: where its time went, what went in and came out, whose fault a failure was, what happened when."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from builds.inputs import ExposedInput, load_all
from controlplane.console import numbers, roles, states
from controlplane.console.graph_view import titles_of
from controlplane.console.jobs import FAILURE_WORDS
from controlplane.kernel import blobs
from controlplane.kernel.errors import WorkflowError
from controlplane.kernel.ids import parse_uuid
from fleet import downloads, held_up, queries_jobs
from fleet.models import Attempt, Job, Output

SPAN_COLORS = {"wait": "--c6", "lost": "--bad", "start": "--c3", "load": "--c4", "upload": "--c5", "other": "--line-strong"}
NODE_COLORS = ("--c1", "--c2")
FAULTS = {
    "customer_input": ("Theirs: what was sent cannot run", "The seconds used are billed."),
    "customer_cancel": ("Theirs: canceled on request", "Not billed."),
    "workflow": ("Ours: the workflow failed on valid inputs", "Not billed."),
    "quality": ("Ours: the output did not pass its checks", "Not billed."),
    "platform": ("Ours: the platform failed", "Not billed."),
    "capacity": ("Ours: not enough capacity", "Not billed."),
    "external": ("A service outside failed", "Not billed."),
}
ORIGINS = {"api": "by API", "console": "from the console", "demo": "made by the demo", "cache": "from the result cache", "smoke": "as a smoke run"}
TEXT_PREVIEW_BYTES = 4_000


@dataclass(frozen=True, slots=True)
class Shown:
    """An output as the page shows it."""

    output: Output
    url: str
    inline: bool
    preview: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Given:
    """An input as the page shows it; `hidden` text needs asking for."""

    name: str
    title: str
    value: str
    hidden: bool
    seed: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the timeline."""

    at: datetime
    title: str
    text: str
    kind: str
    icon: str


def context(request: HttpRequest, job: Job, *, now: datetime, readable: bool = False, brief: bool = False) -> dict[str, Any]:
    """What the page and its live part show; `brief` leaves out the timeline and the ledger."""
    attempts, outputs = list(job.attempts.all()), [o for o in job.outputs.all() if o.published or not job.is_terminal]
    word, kind, icon = states.words(job.status)
    titles = titles_of(job.version.graph)
    may_act, see_money = roles.may(request, "operator"), roles.sees_money(request)
    exposed = load_all(job.version.inputs)
    given = _given(job, exposed, readable=readable)
    context: dict[str, Any] = {
        "job": job,
        "job_url": reverse("ops:job", args=[job.id]),
        "short": str(job.id)[:18],
        "state": {"word": word, "kind": kind, "icon": icon},
        "total_s": ((job.finished_at or now) - job.created_at).total_seconds(),
        "bar": time_bar(job, attempts, titles=titles, now=now),
        "ahead": queries_jobs.ahead(job) if job.status == Job.Status.QUEUED else None,
        "waiting": held_up.of(job, now=now),
        "node_title": titles.get(job.node, job.node),
        "attempts": [_try(a) for a in attempts],
        "outputs": [_shown(o) for o in outputs],
        "given": given,
        "has_hidden": any(g.hidden for g in given),
        "readable": readable,
        "may_act": may_act,
        "events": [] if brief else _events(job, attempts),
        "origin": ORIGINS.get(job.source, job.source),
        "curl": _curl(job, exposed) if may_act else "",
        "retry_of": parse_uuid(job.metadata.get("retry_of")) if isinstance(job.metadata, dict) else None,
    }
    if job.error or job.failure_class:
        fault, billed = FAULTS.get(job.failure_class, ("Not judged", ""))
        charged = bool(job.price_microusd)
        context["failure"] = {
            "code": str((job.error or {}).get("code", "")) or "no code",
            "message": str((job.error or {}).get("message", "")) or "No message was given.",
            "suggestion": str((job.error or {}).get("suggestion", "")),
            "details": json.dumps(details, indent=1, ensure_ascii=False)[:2_000] if (details := (job.error or {}).get("details")) else "",
            "fault": fault,
            "billed": "Billed for the seconds used." if charged else "Not billed." if job.is_terminal else billed,
            "class": FAILURE_WORDS.get(job.failure_class, job.failure_class),
        }
    if see_money and not brief:
        context["usage"] = queries_jobs.usage_lines(job.id)
        context["margin"] = (job.price_microusd - job.cost_microusd) / job.price_microusd if job.price_microusd else None
    return context


def time_bar(job: Job, attempts: list[Attempt], *, titles: dict[str, str], now: datetime) -> list[dict[str, Any]]:
    """The parts of the one bar, with their colours."""
    parts, nodes = [], 0
    spans = queries_jobs.spans(job, attempts, titles=titles, now=now)
    total = sum(s.seconds for s in spans) or 1.0
    for span in spans:
        color = SPAN_COLORS.get(span.kind)
        if color is None:
            color = NODE_COLORS[nodes % len(NODE_COLORS)]
            nodes += 1
        share = span.seconds / total
        parts.append(
            {"label": span.label, "kind": span.kind, "seconds": span.seconds, "share": share, "width": round(share * 100, 3), "color": color, "node": span.node}
        )
    return parts


def _try(attempt: Attempt) -> dict[str, Any]:
    """An attempt as the table shows it; its report came from a worker, so nothing about its shape is trusted."""
    timings = attempt.timings if isinstance(attempt.timings, dict) else {}
    error = attempt.error if isinstance(attempt.error, dict) else {}
    seconds = {name: float(v) if isinstance(v := timings.get(f"{name}_s"), int | float) else None for name in ("load", "run", "upload")}
    return {"attempt": attempt, "code": str(error.get("code", "")), "message": str(error.get("message", "")), **seconds}


def _given(job: Job, exposed: list[ExposedInput], *, readable: bool) -> list[Given]:
    known = {e.name: e for e in exposed}
    order = [*(e.name for e in exposed if e.name in job.inputs), *(name for name in job.inputs if name not in known)]
    shown = []
    for name in order:
        value, about = job.inputs[name], known.get(name)
        text = isinstance(value, str) and not (about and about.enum)
        hidden = (text or isinstance(value, dict | list)) and not readable
        if value is None:
            words = "none"
        elif isinstance(value, bool):
            words = "yes" if value else "no"
        elif hidden:
            words = f"hidden, {numbers.plural(len(value), 'character')}" if isinstance(value, str) else "hidden"
        else:
            words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        shown.append(Given(name=name, title=(about.title if about else "") or name, value=words, hidden=hidden, seed=bool(about and about.randomize)))
    return shown


def _shown(output: Output) -> Shown:
    m = output.measurements if isinstance(output.measurements, dict) else {}
    facts = [("Size", numbers.size(output.size_bytes)), ("Type", output.media_type)]
    if output.width and output.height:
        facts.append(("Pixels", f"{output.width:,} × {output.height:,}"))
    if output.duration_s is not None:
        facts.append(("Length", numbers.dur(output.duration_s)))
    if isinstance(m.get("frames"), int) and m["frames"] > 1:
        facts.append(("Frames", f"{m['frames']:,}"))
    if isinstance(m.get("sharpness"), int | float):
        facts.append(("Sharpness", f"{m['sharpness']:,.1f}"))
    bad = [word for name, word in (("blank", "blank"), ("flat", "flat colour"), ("has_nan", "holds NaN")) if m.get(name)]
    if m.get("decodes") is False:
        bad.insert(0, "does not decode")
    if m:
        facts.append(("Checks", ", ".join(bad) or "decodes, not blank"))
    if isinstance(m.get("phash"), str) and m["phash"]:
        facts.append(("Perceptual hash", m["phash"][:32]))
    return Shown(
        output=output,
        url=reverse("ops:job_output", args=[output.job_id, output.id]),
        inline=downloads.opens_in_browser(output.media_type),
        preview=_preview(output),
        facts=facts,
    )


def _preview(output: Output) -> str:
    """The beginning of a text output."""
    if output.kind != "text" and not output.media_type.startswith(("text/", "application/json")):
        return ""
    try:
        with blobs.open(output.blob_id) as stream:
            raw = stream.read(TEXT_PREVIEW_BYTES)
    except (OSError, WorkflowError):
        return ""
    return raw.decode("utf-8", "replace") + ("…" if output.size_bytes > TEXT_PREVIEW_BYTES else "")


def _events(job: Job, attempts: list[Attempt]) -> list[Event]:
    origin = ORIGINS.get(job.source, job.source)
    found = [Event(job.created_at, "Accepted", f"{origin[:1].upper()}{origin[1:]}, priority {job.get_priority_display()}.", "info", "plus")]
    for attempt in attempts:
        found.append(Event(attempt.claimed_at, f"Attempt {attempt.number} started", f"On worker {attempt.worker.name}.", "acc", "play"))
        if attempt.ended_at is not None:
            word, kind, icon = states.words(attempt.state)
            said = str((attempt.error or {}).get("message", "")) if isinstance(attempt.error, dict) else ""
            found.append(Event(attempt.ended_at, f"Attempt {attempt.number}: {word.lower()}", said, kind, icon))
    if job.cancel_asked_at is not None:
        found.append(Event(job.cancel_asked_at, "Cancel asked", "The worker stops between two nodes.", "warn", "pause"))
    for entry in queries_jobs.audit_lines(job.id):
        said = {"job.cancel": "Canceled from the console", "job.retry": "Started again as a new job", "job.inputs_read": "Inputs read"}.get(
            entry.action, entry.action
        )
        found.append(Event(entry.at, said, f"By {entry.actor}.", "", "users"))
    if job.finished_at is not None:
        word, kind, icon = states.words(job.status)
        said = str((job.error or {}).get("message", ""))
        found.append(Event(job.finished_at, f"Job {word.lower()}", "" if any(e.text == said for e in found) else said, kind, icon))
    return sorted(found, key=lambda e: e.at)


def _curl(job: Job, exposed: list[ExposedInput]) -> str:
    """The call that would make this job again, with hidden text left as names."""
    known = {e.name: e for e in exposed}
    values = {name: f"<{name}>" if isinstance(value, str) and not (name in known and known[name].enum) else value for name, value in job.inputs.items()}
    body = json.dumps({"inputs": values, "version": job.version.number}, ensure_ascii=False)
    return (
        f"curl {settings.PUBLIC_URL}/v1/workflows/{job.workflow.slug}/jobs \\\n"
        '  -H "Authorization: Bearer $COMFYPLANE_KEY" \\\n  -H "Content-Type: application/json" \\\n'
        f"  -d {shlex.quote(body)}"
    )
