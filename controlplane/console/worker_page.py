"""One worker: what is it doing, is it healthy, what did it run; and what may be done to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from controlplane.console import actions, numbers, pages, roles
from controlplane.console.overview import address
from controlplane.kernel.errors import NotFound
from fleet import membership, queries_workers, replacing
from fleet.buckets import BUCKETS
from fleet.models import Worker
from fleet.queries_workers import Moment, OneWorker

SILENT_S = 15.0
COLOURS = {"starting": "--c5", "loading": "--c3", "busy": "--c1", "idle": "--line-strong", "draining": "--c6", "faulted": "--bad"}
WORDS = {"starting": "Starting", "loading": "Loading models", "busy": "Running jobs", "idle": "Idle", "draining": "Draining", "faulted": "Faulted"}
MOMENTS = {
    "ordered": "Ordered from its provider",
    "registered": "Its agent signed in",
    "ready": "Ready for jobs",
    "drain": "Asked to leave",
    "preempt": "Its provider takes it away",
    "stopped": "Stopped",
    "lost": "Lost",
    "starting": "ComfyUI comes up again",
    "loading": "Warm-up runs again",
    "cordoned": "Cordoned: no new jobs",
    "uncordoned": "Takes jobs again",
    "faulted": "Taken out as faulty",
    "cleared": "Put back to work",
    "notice": "Told that it is taken away",
    "replacing": "To be replaced",
}
ACTS: tuple[tuple[str, str, str], ...] = (
    ("cordon", "Cordon", "It gets no new jobs; the one it runs goes on"),
    ("uncordon", "Uncordon", "It takes jobs again"),
    ("replace", "Replace", "Another one is started, then this one finishes its job and leaves"),
    ("drain", "Drain", "It finishes its job and leaves"),
)
SAID = {
    "cordon": "{} gets no new jobs.",
    "uncordon": "{} takes jobs again.",
    "drain": "{} finishes its job and leaves.",
    "replace": "Another worker is started; then {} finishes its job and leaves.",
}


def acts() -> list[tuple[str, str, str]]:
    """What may be done to a worker here."""
    return [act for act in ACTS if act[0] in _calls()]


def _calls() -> dict[str, Callable[..., Any]]:
    return {"cordon": membership.cordon, "uncordon": membership.uncordon, "drain": membership.drain, "replace": replacing.ask}


@roles.staff
def worker(request: HttpRequest, worker_id: UUID) -> HttpResponse:
    now = timezone.now()
    try:
        one = queries_workers.one(worker_id, now=now)
    except NotFound as gone:
        raise Http404(f"{gone.message} {gone.suggestion}") from None
    w = one.worker
    state = "cordoned" if w.cordoned_at is not None and w.state in Worker.READY and w.drain_asked_at is None else w.state
    context: dict[str, Any] = {
        "one": one,
        "w": w,
        "state": state,
        "gone": w.state in Worker.GONE,
        "headline": _doing(one),
        "acts": [a for a in acts() if _possible(a[0], one)],
        "may_operate": roles.may(request, "operator") or roles.may(request, "fleet"),
        "parts": [(WORDS[b], one.split.ms[b] / 1000, COLOURS[b]) for b in BUCKETS],
        "buckets": [(WORDS[b], one.split.ms[b] / 1000, one.split.microusd[b]) for b in BUCKETS if one.split.ms[b]],
        "life": _life(one),
        "timeline": [(MOMENTS.get(m.kind, m.kind), _note(m, w), m) for m in reversed(one.timeline)],
        "facts": _facts(one),
        "health": _health(one),
        "silent": one.health.silent_s is not None and one.health.silent_s > SILENT_S,
        "age": ((w.stopped_at or now) - w.ordered_at).total_seconds(),
        "jobs_url": address("ops:jobs"),
        "idle_share": one.split.ms["idle"] / one.split.total_ms if one.split.total_ms else None,
    }
    crumbs = [("Fleet", reverse("ops:fleet")), (w.pool.slug, reverse("ops:pool", args=[w.pool.slug])), (w.name, "")]
    return pages.page(request, "console/worker.html", context, title=w.name, active="fleet", crumbs=crumbs, fragment="console/_worker.html", now=now)


def _possible(act: str, one: OneWorker) -> bool:
    w = one.worker
    aside = w.cordoned_at is not None or w.faulted_at is not None or w.preempt_at is not None
    if w.state in Worker.GONE or w.drain_asked_at is not None:
        return False
    return aside if act == "uncordon" else not (act == "cordon" and aside)


def _doing(one: OneWorker) -> str:
    """What it is doing, in a sentence."""
    w = one.worker
    if w.state in Worker.GONE:
        why = w.stop_message or w.stop_reason.replace("_", " ") or "no reason was given"
        return f"It is gone: {why}"
    if one.running is not None:
        job = one.running
        return f"Runs {job.workflow.slug} v{job.version.number}, {numbers.pct(job.progress)} done"
    if w.state == Worker.State.FAULTED:
        return f"Taken out: {w.stop_message or 'kept to be looked at'}"
    if w.state in Worker.COMING:
        return {"ordered": "Waits for its machine", "starting": "Its ComfyUI comes up"}.get(w.state, "Loads its models")
    if w.state == Worker.State.DRAINING:
        return "Leaves now"
    return "Has nothing to do" + (", and gets no new jobs" if w.cordoned_at is not None else "")


def _life(one: OneWorker) -> list[dict[str, Any]]:
    """Its last hours as stretches of a bar."""
    total = sum(s.seconds for s in one.stretches) or 1.0
    return [
        {"width": round(s.seconds / total * 100, 3), "color": COLOURS[s.bucket], "label": f"{WORDS[s.bucket]} {numbers.dur(s.seconds)} from {s.since:%H:%M}"}
        for s in one.stretches
    ]


def _note(moment: Moment, w: Worker) -> str:
    """What is said beside a moment; an end has its reason in words."""
    if moment.kind in ("stopped", "lost"):
        return w.stop_message or w.stop_reason.replace("_", " ")
    return moment.note


def _facts(one: OneWorker) -> list[tuple[str, str]]:
    w, print_ = one.worker, one.worker.fingerprint if isinstance(one.worker.fingerprint, dict) else {}
    usage = w.usage if isinstance(w.usage, dict) else {}

    def size(name: str) -> int | None:
        value = usage.get(name)
        return value if type(value) is int and 0 <= value <= 2**60 else None

    found = [("Pool", w.pool.slug), ("GPU", w.gpu or w.pool.gpu), ("Market", w.get_market_display())]
    found += [("Zone", w.zone)] if w.zone else []
    used, total = size("vram_used_bytes"), size("vram_total_bytes")
    found += [("Graphics memory", f"{numbers.size(used)} of {numbers.size(total)}")] if total else []
    found += [("Memory", numbers.size(size("ram_used_bytes")))] if size("ram_used_bytes") else []
    found += [("Image", w.image[:120])] if w.image else []
    found += [(label, str(print_[key])[:80]) for key, label in (("comfyui", "ComfyUI"), ("agent", "Agent"), ("python", "Python")) if print_.get(key)]
    found += [("Models loaded", numbers.count(len(one.warm)))] if one.warm else []
    return [*found, ("Instance", w.instance)]


def _health(one: OneWorker) -> tuple[str, str, str]:
    """(word, kind, sentence): its failures beside those of its neighbours."""
    h = one.health
    if one.worker.state in Worker.GONE:
        return "Gone", "", "Nothing is measured of a worker that is gone."
    if h.silent_s is not None and h.silent_s > SILENT_S:
        return "Silent", "warn", f"Nothing was heard of it for {numbers.dur(h.silent_s)}."
    if one.worker.faulted_at is not None:
        return "Faulted", "bad", one.worker.stop_message or "It was taken out by hand."
    if not h.ended:
        return "Nothing to judge by", "", "It ended no job in the last 30 minutes."
    mine = h.failed / h.ended
    others = h.others_failed / h.others_ended if h.others_ended else None
    said = f"{numbers.count(h.failed)} of its last {numbers.plural(h.ended, 'job')} failed in 30 minutes"
    beside = f"; {numbers.pct(others)} on the others of its pool." if others is not None else "; no other worker of its pool ended one."
    bad = h.failed >= 3 and mine > 2 * (others or 0.0) + 0.1
    return ("Worse than its neighbours", "bad", said + beside) if bad else ("Healthy", "ok", said + beside)


@require_POST
@roles.staff
def act(request: HttpRequest, worker_id: UUID, what: str) -> HttpResponse:
    """Cordon, uncordon, drain or replace a worker."""
    if not (roles.may(request, "operator") or roles.may(request, "fleet")):
        return roles.refuse(request, "operator", f"To {what} a worker")
    call = _calls().get(what)
    if call is None:
        raise Http404(f"Nothing called {what} can be done to a worker.")
    held = get_object_or_404(Worker.objects.select_related("pool"), id=worker_id)

    def do() -> str:
        call(held, actor=actions.actor(request), reason=actions.reason(request), now=timezone.now())
        return SAID[what].format(held.name)

    back = reverse("ops:worker", args=[held.id]) if request.POST.get("back") == "worker" else reverse("ops:pool", args=[held.pool.slug])
    return actions.done(request, do, back=back)
