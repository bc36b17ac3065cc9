"""What was changed lately, in sentences: from the audit log what people did, from the decisions what the scaler did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.urls import NoReverseMatch, reverse

from controlplane.console import charts
from controlplane.kernel.models import AuditEntry
from fleet.models import ScalingDecision

_PAGES = {"pool": "ops:pool", "customer": "ops:customer", "workflow": "ops:workflow", "job": "ops:job"}
_WORDS = {
    "workflow.create": "{id} was created",
    "workflow.edit": "Settings of {id} were changed",
    "channel.promote": "{id} runs v{version} in {channel}",
    "version.create": "{workflow} v{number} was imported",
    "customer.create": "Customer {name} was created",
    "customer.plan": "{id} is on {plan}",
    "customer.suspended": "{id} was suspended",
    "customer.active": "{id} was reopened",
    "pool.create": "Pool {id} was added",
    "pool.change": "Policy of pool {id} was changed",
    "pool.resume": "Pool {id} orders workers again",
    "pool.pause": "Autoscaling of {id} was paused",
    "pool.unpause": "Autoscaling of {id} acts again",
    "pool.offer_add": "A kind of machine was added to {id}",
    "pool.offer_change": "A kind of machine of {id} was changed",
    "pool.offer_remove": "A kind of machine of {id} was removed",
    "pool.offer_order": "Kinds of machine of {id} changed places",
    "pool.offer_ask_again": "A kind of machine of {id} is asked for again",
    "emergency.raise": "Capacity of {id} was raised",
    "emergency.fast": "Fast mode was switched on for {id}",
    "emergency.pause_class": "A class of jobs was paused on {id}",
    "emergency.shed": "Load is shed on {id}",
    "emergency.clear": "The queue of {id} was cleared",
    "emergency.end": "An emergency measure on {id} was ended",
    "emergency.expire": "An emergency measure on {id} ended by itself",
    "demand.announce": "A {kind} was announced for {pool}",
    "demand.cancel": "An announcement was taken back",
    "worker.cordon": "Worker {name} takes no new jobs",
    "worker.uncordon": "Worker {name} takes jobs again",
    "worker.fault": "Worker {name} was taken out",
    "worker.replace": "Worker {name} is replaced",
    "worker.drain": "Worker {name} was asked to leave",
    "library.import": "Nodes of {id} were read",
}


@dataclass(frozen=True, slots=True)
class Change:
    """Something a person or a loop did."""

    at: datetime
    glyph: str
    text: str
    by: str
    href: str = ""


def recent(decisions: Iterable[ScalingDecision], *, most: int = 6) -> list[Change]:
    """The newest changes of both kinds."""
    found = [
        Change(e.at, "deploy" if "promote" in e.action else "note", words(e), e.actor, page_of(e) or reverse("ops:audit"))
        for e in AuditEntry.objects.order_by("-seq")[:most]
    ]
    for d in decisions:
        glyph = "incident" if d.action == "halted" else d.action
        workers = "halted" if d.action == "halted" else f"{charts.signed(d.applied)} worker{'' if abs(d.applied) == 1 else 's'}"
        found.append(Change(d.at, glyph, f"{d.pool.slug} {workers}", d.reason, reverse("ops:pool", args=[d.pool.slug])))
    return sorted(found, key=lambda c: c.at, reverse=True)[:most]


def words(entry: AuditEntry) -> str:
    """What an entry says happened; one nobody gave words to says its action and object."""
    facts: Mapping[str, Any] = entry.after if isinstance(entry.after, dict) else {}
    try:
        known = _WORDS.get(entry.action) or _WORDS[entry.action.rsplit(".", 1)[0]]  # emergency.end.raise is an emergency.end
        return known.format_map({**facts, "id": entry.object_id})
    except (KeyError, ValueError):
        return f"{entry.object_type.replace('_', ' ')} {entry.object_id}: {entry.action.split('.')[-1].replace('_', ' ')}"


def page_of(entry: AuditEntry) -> str:
    """The page of the object an entry is about, where it has one."""
    facts: Mapping[str, Any] = entry.after if isinstance(entry.after, dict) else {}
    kind, name = ("workflow", str(facts.get("workflow", ""))) if entry.object_type == "version" else (entry.object_type, entry.object_id)
    try:
        return reverse(_PAGES[kind], args=[name])
    except (KeyError, NoReverseMatch):
        return ""
