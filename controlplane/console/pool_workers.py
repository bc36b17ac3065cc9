"""Rows of a pool's workers for its page: what each does, how healthy it is, what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controlplane.console import numbers
from fleet import queries_pools
from fleet.models import Pool, Worker

SILENT_S = 15.0
SHOWN = 12
MOST = 60
"""Beyond so many a page would be heavy; the filters find the rest."""
KINDS = (("", "All"), ("busy", "Busy"), ("not_ready", "Not ready"))
NOT_READY = ("ordered", "starting", "loading", "draining", "faulted")


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A live worker as the table shows it."""

    w: Worker
    job: dict[str, Any] | None
    age_s: float
    idle_s: float | None
    fetching: tuple[int, int] | None
    memory: float | None
    memory_used: int
    ram_used: int
    per_hour: int
    silent: bool
    price: int

    @property
    def leaving(self) -> bool:
        return self.w.drain_asked_at is not None

    @property
    def state(self) -> str:
        """Its state; cordoned where it would take jobs otherwise."""
        return "cordoned" if self.w.cordoned_at is not None and self.w.state in Worker.READY and not self.leaving else self.w.state

    @property
    def place(self) -> str:
        """Zone and market, where they are known."""
        found = [self.w.zone] if self.w.zone else []
        found += ["spot"] if self.w.market == Worker.Market.SPOT else []
        return ", ".join(found)

    @property
    def doing(self) -> str:
        """What it does when it runs no job."""
        w, warmup = self.w, self.w.warmup if isinstance(self.w.warmup, dict) else {}
        if w.state in Worker.COMING:
            if warmup.get("state") == "running":
                return f"warming up, {warmup.get('done', 0)} of {warmup.get('of', 0)}"
            return {"ordered": "waits for its machine", "starting": "its ComfyUI comes up"}.get(w.state, "loads its models")
        if w.state == Worker.State.FAULTED:
            return w.stop_message or "taken out, kept for study"
        if w.state == Worker.State.DRAINING:
            return "leaves now"
        return f"none, idle {numbers.dur(self.idle_s)}" if self.idle_s is not None else "none"


def rows(workers: Sequence[Worker], pool: Pool, running: dict[Any, dict[str, Any]], now: datetime) -> list[WorkerRow]:
    return [_row(w, pool, running.get(w.id), now) for w in workers]


def is_of(row: WorkerRow, kind: str) -> bool:
    """Whether a row belongs to a kind of KINDS."""
    return not kind or (row.w.state == "busy" if kind == "busy" else row.w.state in NOT_READY)


def listed(found: Sequence[WorkerRow], kind: str, *, everything: bool) -> list[WorkerRow]:
    """Those of a kind, unusual ones first; a long list is cut until everything is asked for."""
    chosen = [r for r in found if is_of(r, kind)]
    chosen.sort(key=lambda r: not (r.silent or r.w.state == "faulted" or r.state == "cordoned"))
    return chosen[:MOST] if everything else chosen[:SHOWN]


def _row(w: Worker, pool: Pool, job: dict[str, Any] | None, now: datetime) -> WorkerRow:
    since = w.ready_at or w.ordered_at
    hours = (now - since).total_seconds() / 3600
    used, size = _bytes(w.usage, "vram_used_bytes"), _bytes(w.usage, "vram_total_bytes")
    silent = w.seen_at is not None and (now - w.seen_at).total_seconds() > SILENT_S
    return WorkerRow(
        w=w,
        job=job,
        age_s=(now - w.ordered_at).total_seconds(),
        idle_s=(now - w.idle_since).total_seconds() if w.idle_since and w.state == "idle" else None,
        fetching=_fetching(w) if job is not None and not silent else None,
        memory=(used / size) if size else None,
        memory_used=used,
        ram_used=_bytes(w.usage, "ram_used_bytes"),
        per_hour=round(w.jobs_done / hours) if hours > 0.05 and w.jobs_done else w.jobs_done,
        silent=silent,
        price=queries_pools.price(w, pool),
    )


def _bytes(usage: Any, name: str) -> int:
    """A figure a worker reported, when it is one."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value <= 2**60 else 0


def _fetching(w: Worker) -> tuple[int, int] | None:
    """Bytes here and in all of the models that the worker's job waits for, as its last heartbeat said."""
    store = w.usage.get("store") if isinstance(w.usage, dict) else None
    loading = store.get("loading") if isinstance(store, dict) else None
    done, total = (loading.get("done_bytes"), loading.get("total_bytes")) if isinstance(loading, dict) else (None, None)
    if type(done) is not int or type(total) is not int or not 0 <= done <= total <= 2**60:
        return None
    return done, total
