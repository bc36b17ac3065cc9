"""Measures by kind and plain terms, as scripts, the console and the command line say them: read the terms once, preview or take.

Terms, by kind; every measure but clear takes `for_s` or `until` (RFC 3339):
raise {base, max}; fast {workflow, version, overrides, force, overflow_s, include_waiting}; pause {priority};
shed {priority, overflow_s}; clear {workflow, customer, priority, older_than_s}.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.utils.dateparse import parse_datetime

from billing.models import Customer
from builds import queries
from builds.models import Workflow
from controlplane.kernel.errors import Invalid, NotFound
from fleet import clearing, consequences, emergencies, emergency_rows, fast_waiting
from fleet.consequences import Consequence
from fleet.models import EmergencyAction, Pool

TERMS: dict[str, tuple[str, ...]] = {
    "raise": ("base", "max", "for_s", "until"),
    "fast": ("workflow", "version", "overrides", "force", "overflow_s", "include_waiting", "for_s", "until"),
    "pause": ("priority", "for_s", "until"),
    "shed": ("priority", "overflow_s", "for_s", "until"),
    "clear": ("workflow", "customer", "priority", "older_than_s"),
}
WORDS = {"raise": "Raise capacity", "fast": "Fast mode", "pause": "Pause a class", "shed": "Shed load", "clear": "Clear the queue"}
NEEDS = {"raise": "fleet", "fast": "operator", "pause": "operator", "shed": "operator", "clear": "operator"}
"""Who may: capacity is the fleet's, jobs are the operators'."""


def preview(pool: Pool, kind: str, terms: Mapping[str, Any], *, now: datetime) -> Consequence:
    """What it would do. Raises what taking it would raise."""
    _known(kind, terms)
    if kind == "clear":
        return consequences.of(clearing.planned(pool, **_clear_terms(terms), now=now), now=now)
    ends = _ends(terms, now)
    if kind == "raise":
        row = emergency_rows.raised(pool, base=_whole(terms, "base"), maximum=_whole(terms, "max"), expires_at=ends, now=now)
    elif kind == "fast":
        row = emergency_rows.fast(_workflow_of(pool, terms), **_fast_terms(terms), expires_at=ends, now=now)
    elif kind == "pause":
        row = emergency_rows.paused(pool, priority=_text(terms, "priority"), expires_at=ends, now=now)
    else:
        row = emergency_rows.shedding(pool, priority=_text(terms, "priority"), overflow_s=terms.get("overflow_s"), expires_at=ends, now=now)  # type: ignore[arg-type]
    return consequences.of(row, now=now)


def take(pool: Pool, kind: str, terms: Mapping[str, Any], *, actor: str, reason: str = "", once: str = "", now: datetime) -> EmergencyAction:
    """Take it. Raises a WorkflowError for terms that cannot be."""
    _known(kind, terms)
    said: dict[str, Any] = {"actor": actor, "reason": reason, "once": once, "now": now}
    if kind == "clear":
        return clearing.clear_queue(pool, **_clear_terms(terms), **said)
    if once and (before := emergencies.earlier(once)) is not None:  # before its end is judged again: it may be near by now
        return before
    said["expires_at"] = _ends(terms, now)
    if kind == "raise":
        return emergencies.raise_capacity(pool, base=_whole(terms, "base"), maximum=_whole(terms, "max"), **said)
    if kind == "fast":
        return emergencies.fast_mode(_workflow_of(pool, terms), **_fast_terms(terms), **said)
    if kind == "pause":
        return emergencies.pause_class(pool, priority=_text(terms, "priority"), **said)
    return emergencies.shed(pool, priority=_text(terms, "priority"), overflow_s=terms.get("overflow_s"), **said)  # type: ignore[arg-type]


def shown(action: EmergencyAction, *, now: datetime) -> dict[str, Any]:
    """A measure as JSON."""
    return {
        "id": str(action.id),
        "kind": {"pause_class": "pause"}.get(action.kind, action.kind),
        "pool": action.pool.slug,
        "state": state(action, now=now),
        "said": said(action),
        "workflow": action.workflow.slug if action.workflow else None,
        "version": action.version.number if action.version else None,
        "base": action.base,
        "max": action.max,
        "priority": None if action.priority is None else ("high", "normal", "low")[action.priority],
        "overrides": action.overrides,
        "overflow_s": action.overflow_s,
        "terms": {name: value for name, value in action.terms.items() if name not in ("customer_id", "resubmit_after", "walk")},
        "progress": fast_waiting.progress(action),
        "cleared": action.cleared,
        "starts_at": _stamp(action.starts_at),
        "expires_at": _stamp(action.expires_at),
        "ended_at": _stamp(action.ended_at),
        "ended_by": action.ended_by,
        "actor": action.actor,
        "reason": action.reason,
    }


def state(action: EmergencyAction, *, now: datetime) -> str:
    """active, ended (by hand), expired; of a cleared queue clearing, cleared, undoing or undone."""
    if action.kind == EmergencyAction.Kind.CLEAR:
        asked = action.terms.get("resubmit")
        return {"asked": "undoing", "done": "undone"}.get(str(asked), "cleared" if action.terms.get("done") else "clearing")
    if action.ended_at is not None:
        return "expired" if action.ended_by == emergencies.EXPIRED else "ended"
    return "active" if action.expires_at > now else "expired"


def said(action: EmergencyAction) -> str:
    """The measure in one sentence."""
    if action.kind == "raise":
        return f"At least {action.base:,} and up to {action.max:,} workers"
    if action.kind == "fast":
        how = [f"as version {action.version.number}"] if action.version else []
        how += ["with " + ", ".join(f"{name} {str(value)[:40]}" for name, value in action.overrides.items())] if action.overrides else []
        slug = action.workflow.slug if action.workflow else "jobs"
        return f"{slug} runs {' and '.join(how)} where it would wait longer than {consequences.duration(action.overflow_s or 0)}"
    which = "low" if action.priority == 2 else "normal and low"
    if action.kind == "pause_class":
        return f"Jobs of priority {which} are not served"
    if action.kind == "shed":
        return f"New jobs of priority {which} are turned away where they would wait longer than {consequences.duration(action.overflow_s or 0)}"
    parts = [f"of {action.workflow.slug}"] if action.workflow else []
    parts += [f"of {action.terms['customer']}"] if action.terms.get("customer") else []
    parts += [f"of priority {('high', 'normal', 'low')[action.priority]}"] if action.priority is not None else []
    return f"{action.cleared:,} waiting jobs {' '.join(parts)}".rstrip() + " were ended"


def progress(action: EmergencyAction) -> str:
    """How far fast mode has come with the jobs that waited, in one sentence; empty for other measures."""
    found = fast_waiting.progress(action)
    if found is None:
        return ""
    done = f"{found['restored']:,} put back" if action.ended_at is not None else f"{found['changed']:,} changed"
    if found["doing"] is None:
        return f"Of the jobs that waited, {done}."
    return f"{found['seen']:,} of {found['of']:,} waiting jobs looked at, {done} so far."


def workflows_of(pool: Pool) -> list[Workflow]:
    """What runs on the pool."""
    return list(Workflow.objects.filter(pool_slug=pool.slug, archived_at__isnull=True).order_by("slug")[:200])


def _known(kind: str, terms: Mapping[str, Any]) -> None:
    if kind not in TERMS:
        raise NotFound("measure_unknown", f"There is no measure {str(kind)[:40]!r}.", f"Choose from {', '.join(TERMS)}.")
    for name in terms:
        if name not in TERMS[kind]:
            raise Invalid("unknown_field", f"{kind} takes no {str(name)[:60]!r}.", f"It takes {', '.join(TERMS[kind])}.", details={"field": str(name)[:60]})


def _ends(terms: Mapping[str, Any], now: datetime) -> datetime:
    until = terms.get("until")
    at = None
    if until is not None:
        try:
            at = parse_datetime(until) if isinstance(until, str) else None
        except ValueError:
            at = None
        if at is None:
            raise Invalid("expiry_invalid", "until is not a time.", "Send RFC 3339, such as 2026-03-02T06:00:00Z.", details={"field": "until"})
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return emergency_rows.expiry(for_s=terms.get("for_s"), until=at, now=now)


def _fast_terms(terms: Mapping[str, Any]) -> dict[str, Any]:
    force = terms.get("force") or []
    if not isinstance(force, list) or not all(isinstance(name, str) for name in force):
        raise Invalid("wrong_type", "force must be a list of input names.", 'Send ["steps"].', details={"field": "force"})
    include = terms.get("include_waiting", False)
    if not isinstance(include, bool):
        raise Invalid("wrong_type", "include_waiting must be true or false.", "Leave it out for false.", details={"field": "include_waiting"})
    return {
        "version": _whole(terms, "version"),
        "overrides": terms.get("overrides"),
        "force": force,
        "overflow_s": terms.get("overflow_s"),
        "include_waiting": include,
    }


def _clear_terms(terms: Mapping[str, Any]) -> dict[str, Any]:
    slug = terms.get("customer")
    customer = Customer.objects.filter(slug=str(slug)[:200]).first() if slug else None
    if slug and customer is None:
        raise Invalid("customer_unknown", f"There is no customer {str(slug)[:60]!r}.", "Check the name.", details={"field": "customer"})
    return {
        "workflow": queries.workflow(str(terms["workflow"])[:200]) if terms.get("workflow") else None,
        "customer": customer,
        "priority": _text(terms, "priority") if terms.get("priority") else None,
        "older_than_s": terms.get("older_than_s"),
    }


def _workflow_of(pool: Pool, terms: Mapping[str, Any]) -> Workflow:
    slug = _text(terms, "workflow")
    if not slug:
        raise Invalid("workflow_missing", "Fast mode is for one workflow, and none is named.", "Name it.", details={"field": "workflow"})
    workflow = queries.workflow(slug)
    if workflow.pool_slug != pool.slug:
        raise Invalid("workflow_elsewhere", f"{slug} does not run on {pool.slug}.", f"It runs on {workflow.pool_slug}.", details={"field": "workflow"})
    return workflow


def _whole(terms: Mapping[str, Any], name: str) -> int | None:
    value = terms.get(name)
    if value is not None and type(value) is not int:
        raise Invalid("wrong_type", f"{name} must be a whole number.", f"Send {name} as a number, or leave it out.", details={"field": name})
    return value


def _text(terms: Mapping[str, Any], name: str) -> str:
    value = terms.get(name)
    if value is not None and not isinstance(value, str):
        raise Invalid("wrong_type", f"{name} must be text.", "Send a string.", details={"field": name})
    return (value or "")[:200]


def _stamp(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
