"""The audit trail: who did what to which thing, when, from where and why.

Entries are chained: each hash covers its own fields and the hash before it, so that a changed,
removed or inserted entry shows. The head's row lock orders writers, and the entry belongs to the
transaction of the change it describes. Personal data goes in only as a `commitment`: whoever
knows the value can prove it was meant, and once the value is erased elsewhere nobody can read it
here, while the chain stays valid.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction

from controlplane.kernel.models import AuditEntry, AuditHead

GENESIS = "0" * 64
_FIELDS = ("seq", "actor", "action", "object_type", "object_id", "before", "after", "reason", "origin", "request_id", "prev_hash")


@dataclass(frozen=True)
class Verdict:
    """What a walk over the chain found; `broken_at` is the first sequence number that does not hold."""

    entries: int
    broken_at: int | None = None
    why: str = ""

    @property
    def intact(self) -> bool:
        return self.broken_at is None


def record(
    *,
    actor: str,
    action: str,
    object_type: str,
    object_id: object,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    reason: str = "",
    origin: str = "",
    request_id: str = "",
    now: datetime,
) -> AuditEntry:
    """Append one entry, in the caller's transaction when there is one. Long texts are cut, never refused.

    Other audited writers wait until that transaction ends: call it last.
    """
    with transaction.atomic():
        head = _locked_head()
        entry = AuditEntry(
            seq=head.seq + 1,
            at=now,
            actor=_fit("actor", actor),
            action=_fit("action", action),
            object_type=_fit("object_type", object_type),
            object_id=_fit("object_id", object_id),
            before=_plain(before),
            after=_plain(after),
            reason=_fit("reason", reason),
            origin=_fit("origin", origin),
            request_id=_fit("request_id", request_id),
            prev_hash=head.hash,
        )
        entry.hash = digest(entry)
        entry.save(force_insert=True)
        head.seq, head.hash = entry.seq, entry.hash
        head.save(update_fields=["seq", "hash"])
    return entry


def verify(*, since: int = 0, batch: int = 1000) -> Verdict:
    """Walk the chain from the entry after `since` to the head and report the first link that does not hold."""
    head = AuditHead.objects.filter(id=1).first() or AuditHead()  # later entries are left for the next walk
    count, seq, previous = 0, since, GENESIS
    if since:
        before = AuditEntry.objects.filter(seq=since).first()
        if before is None:
            return Verdict(0, since, "the entry is missing")
        previous = before.hash
    while rows := list(AuditEntry.objects.filter(seq__gt=seq, seq__lte=max(head.seq, seq)).order_by("seq")[:batch]):
        for entry in rows:
            if entry.seq != seq + 1:
                return Verdict(count, seq + 1, "the entry is missing")
            if entry.prev_hash != previous:
                return Verdict(count, entry.seq, "it does not follow from the entry before it")
            if entry.hash != digest(entry):
                return Verdict(count, entry.seq, "its content is not what was recorded")
            count, seq, previous = count + 1, entry.seq, entry.hash
    if seq != head.seq:
        return Verdict(count, seq + 1, "the chain ends before its head")
    if previous != head.hash:
        return Verdict(count, seq, "the head names another last entry")
    if AuditEntry.objects.filter(seq__gt=AuditHead.objects.filter(id=1).values("seq")).exists():
        return Verdict(count, seq + 1, "an entry lies beyond the head")
    return Verdict(count)


def commitment(value: str) -> str:
    """A keyed fingerprint of personal data, the same for the same value; unreadable and not guessable without the key."""
    key = hmac.digest(settings.SECRET_KEY.encode(), b"comfyplane audit commitment 1", "sha256")
    return f"commit:{hmac.new(key, value.encode(), hashlib.sha256).hexdigest()}"


def digest(entry: AuditEntry) -> str:
    """The hash of an entry: SHA-256 over the canonical JSON of its fields, the previous hash among them."""
    fields = {name: getattr(entry, name) for name in _FIELDS} | {"at": entry.at.astimezone(UTC).isoformat(timespec="microseconds")}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()


def _locked_head() -> AuditHead:
    locked = AuditHead.objects.select_for_update()
    head = locked.filter(id=1).first()
    if head is None:  # made by the migration; a database emptied since then has none
        AuditHead.objects.get_or_create(id=1)
        head = locked.get(id=1)
    return head


def _fit(field: str, value: object) -> str:
    longest: int = getattr(AuditEntry._meta.get_field(field), "max_length")  # noqa: B009 - the stubs do not know it
    return _clean(str(value))[:longest]


def _clean(text: str) -> str:
    """Text that both databases take: no NUL, no lone surrogate."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _plain(value: dict[str, Any] | None) -> dict[str, Any]:
    """What the JSON column gives back, so that the hash of what is written equals the hash of what is read."""
    plain: dict[str, Any] = _settled(json.loads(json.dumps(value or {}, cls=DjangoJSONEncoder)))
    return plain


def _settled(value: Any) -> Any:
    match value:
        case dict():
            return {_clean(key): _settled(item) for key, item in value.items()}
        case list():
            return [_settled(item) for item in value]
        case str():
            return _clean(value)
        case float() if not math.isfinite(value):
            return str(value)
        case float() if value.is_integer():
            return int(value)  # jsonb writes 1e16 without its exponent, which reads back as an integer
    return value
