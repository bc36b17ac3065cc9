"""Tell customers that a job ended: signed, through the outbox, again and again until they have it.

An entry of topic "webhook" names the address and either the job it is about or a body as it shall be
sent. The message id is the entry's id, the same at every attempt, so a receiver can tell a repeat.
Nothing waits for a receiver inside a transaction: claim, send, settle.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError

from controlplane.kernel import errors, outbound, outbox, signing
from controlplane.kernel.loops import Tick
from controlplane.kernel.models import OutboxEntry
from fleet import presenting, webhook_retry
from fleet.models import Job, Output

log = logging.getLogger(__name__)

TOPIC = "webhook"
AT_ONCE = 8
BUDGET_S = 20.0
GIVE_UP_ON_AFTER = 2  # messages of one tick that a receiver left without an answer


@dataclass(frozen=True)
class Message:
    """What goes over the wire: the exact bytes, and who signs."""

    entry: OutboxEntry
    url: str
    secrets: list[str]
    body: bytes


@dataclass(frozen=True)
class Outcome:
    """What became of one attempt to send."""

    status: int | None
    error: str = ""
    retry_after_s: float | None = None
    hopeless: bool = False
    silent: bool = False


def step(tick: Tick) -> str:
    """Send what is due, a few at a time, for at most `BUDGET_S` plus one time-out; says what happened.

    A receiver that does not answer is asked no more in this tick: its other messages count as failed
    too, so that it cannot hold up everybody else's.
    """
    started, said = time.monotonic(), {"done": 0, "retry": 0, "dead": 0}
    silent: Counter[str] = Counter()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as threads:
        while time.monotonic() - started < BUDGET_S:
            elapsed_s = time.monotonic() - started
            now = tick.now + timedelta(seconds=elapsed_s)
            if elapsed_s > tick.lease_s / 3:
                tick.keep(now)
            entries = outbox.claim(topic=TOPIC, limit=AT_ONCE, now=now, hold_s=2 * settings.WEBHOOK_TIMEOUT_S + 30)
            if not entries:
                break
            messages = [_unless_silent(compose(entry), silent) for entry in entries]
            for entry, outcome in zip(entries, threads.map(partial(_send, now=now), messages), strict=True):
                silent[_receiver(entry.payload.get("url"))] += outcome.silent
                said[_settle(entry, outcome, now=tick.now + timedelta(seconds=time.monotonic() - started))] += 1
    return ", ".join(f"{n} {what}" for what, n in said.items() if n) or "nothing due"


def deliver(entry: OutboxEntry, now: datetime) -> str:
    """Send one claimed entry and settle it: "done", "retry" or "dead"."""
    return _settle(entry, _send(compose(entry), now), now=now)


def compose(entry: OutboxEntry) -> Message | Outcome:
    """The bytes to send, or why there are none."""
    try:
        payload: dict[str, Any] = entry.payload
        if "body" in payload:
            customer, epoch, content = payload["customer"], payload["epoch"], payload["body"]
        else:
            job = Job.objects.select_related("customer", "workflow", "version").get(id=payload["job"])
            customer, epoch, content = job.customer_id, job.customer.webhook_epoch, _about(job, payload["type"])
        body = json.dumps(content, separators=(",", ":"), ensure_ascii=True).encode()
        return Message(entry, payload["url"], signing.current(customer, epoch), body)
    except (Job.DoesNotExist, ValidationError, KeyError, TypeError, ValueError) as error:
        log.exception("webhook cannot be composed", extra={"entry": str(entry.id)})
        return Outcome(None, f"the message could not be made: {type(error).__name__}: {error}", hopeless=True)


def _about(job: Job, kind: str) -> dict[str, Any]:
    outputs: Iterable[Output] = job.outputs.filter(published=True).order_by("index") if job.status == "succeeded" else ()
    shape = presenting.job(job, outputs=outputs, base_url=settings.PUBLIC_URL)
    return {"type": kind, "timestamp": shape["finished_at"], "data": shape}


def _send(message: Message | Outcome, now: datetime) -> Outcome:
    """One POST. Runs in a thread of its own and touches no database."""
    if isinstance(message, Outcome):
        return message
    signed = signing.headers(secrets=message.secrets, message_id=str(message.entry.id), body=message.body, now=now)
    headers = {"Content-Type": "application/json", "User-Agent": "Comfyplane-Webhooks/1", **signed}
    try:
        answer = outbound.post(message.url, body=message.body, headers=headers, timeout_s=settings.WEBHOOK_TIMEOUT_S)
    except errors.Invalid as refused:
        return Outcome(None, refused.message, hopeless=True)
    except outbound.Failed as failed:
        return Outcome(None, str(failed), silent=True)
    except Exception as unexpected:
        log.exception("webhook failed unexpectedly", extra={"entry": str(message.entry.id)})
        return Outcome(None, f"{type(unexpected).__name__}: {unexpected}")
    wait = answer.headers.get("retry-after", "")
    said = answer.body[:200].decode("utf-8", "replace")
    return Outcome(answer.status, f"HTTP {answer.status}: {said}", float(wait) if wait.isascii() and wait.isdigit() and len(wait) < 10 else None)


def _unless_silent(message: Message | Outcome, silent: Counter[str]) -> Message | Outcome:
    if isinstance(message, Message) and silent[_receiver(message.url)] >= GIVE_UP_ON_AFTER:
        return Outcome(None, "not sent: the receiver left other messages without an answer a moment ago")
    return message


def _receiver(url: object) -> str:
    return str(url).partition("://")[2].partition("/")[0].lower()


def _settle(entry: OutboxEntry, outcome: Outcome, *, now: datetime) -> str:
    decision = webhook_retry.decide(attempt=entry.attempts, status=outcome.status, jitter=random.random(), retry_after_s=outcome.retry_after_s)
    if outcome.hopeless:
        decision = webhook_retry.Decision("dead")
    if decision.then == "done":
        outbox.done(entry, now=now)
    elif decision.then == "retry":
        outbox.retry(entry, delay_s=decision.delay_s, error=outcome.error, now=now)
    else:
        outbox.dead(entry, error=outcome.error, now=now)
        log.warning("webhook given up", extra={"entry": str(entry.id), "attempts": entry.attempts, "error": outcome.error[:200]})
    return decision.then
