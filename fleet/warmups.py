"""What a new worker rehearses before its first claim: smoke jobs of what its pool serves, bounded in number, seconds and bytes.

Only versions whose last smoke run passed: a graph that never worked would say nothing about the worker, and would keep
every worker of the pool from working. The most used come first, each set of models once.
"""

from __future__ import annotations

import base64
import logging
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError
from django.db.models import Sum

from builds.models import Channel, SmokeInput
from controlplane.kernel.errors import WorkflowError
from fleet import releases
from fleet.assignments import models_of
from fleet.models import MinuteRollup, Pool, SmokeRun, Worker
from fleet.smoke_files import placed

log = logging.getLogger(__name__)

USED_WITHIN = timedelta(hours=24)
TRIED_WITHIN = timedelta(days=7)  # what production runs is tried once a day
MAX_FILES = 1_000_000
MOST_CANDIDATES = 100
EMBEDDED = "embedded"
STATES = ("none", "running", "passed", "failed")


def of_pool(pool: Pool, *, engine: str, now: datetime) -> dict[str, Any]:
    """The `warmup` of a registration's answer. Never raises: a worker without a rehearsal still warms up."""
    most, within_s = bounds(engine)
    try:
        prompts = _prompts(pool, most=most, within_s=within_s, now=now) if most else []
    except (DatabaseError, WorkflowError, OSError, LookupError):
        log.exception("no rehearsal for a worker", extra={"pool": pool.slug})
        prompts = []
    return {"prompts": prompts, "within_s": max(within_s, 30.0)}


def bounds(engine: str) -> tuple[int, float]:
    """How many prompts, and how many measured seconds of them. The embedded engine loads nothing, so one that takes a moment says enough."""
    most, within_s = int(settings.WORKER["WARMUP_PROMPTS"]), settings.WORKER["WARMUP_S"]
    return (min(most, 1), min(within_s, 1.0)) if engine == EMBEDDED else (most, within_s)


def note(worker: Worker, said: dict[str, Any]) -> None:
    """Keep what a worker says of its rehearsal; written only when it changed."""
    if said.get("state") not in STATES:
        return
    kept = {"state": said["state"]}
    kept |= {name: said[name] for name in ("done", "of", "left_out") if type(said.get(name)) is int and 0 <= said[name] < 1000}
    kept |= {"seconds": round(float(said["seconds"]), 3)} if isinstance(said.get("seconds"), int | float) and 0 <= said["seconds"] < 1e6 else {}
    if isinstance(said.get("message"), str) and said["message"]:
        kept["message"] = said["message"][:500]
    if isinstance(said.get("log"), list):
        kept["log"] = [line[:500] for line in said["log"] if isinstance(line, str)][:20]
    if kept != worker.warmup and (kept["state"] != "none" or worker.warmup):
        Worker.objects.filter(id=worker.id).update(warmup=kept)


def _prompts(pool: Pool, *, most: int, within_s: float, now: datetime) -> list[dict[str, Any]]:
    live = Channel.objects.filter(name=Channel.Name.PRODUCTION, workflow__pool_slug=pool.slug, workflow__archived_at__isnull=True)
    ids = list(live.values_list("version_id", flat=True)[:MOST_CANDIDATES])
    used = dict(MinuteRollup.objects.filter(version__in=ids, minute__gte=now - USED_WITHIN).order_by().values_list("version_id").annotate(n=Sum("succeeded")))
    last: dict[Any, SmokeRun] = {}
    for run in SmokeRun.objects.filter(version__in=ids, build__isnull=True, finished_at__gte=now - TRIED_WITHIN).order_by("requested_at"):
        last[run.version_id] = run
    passed = [run for run in last.values() if run.state == SmokeRun.State.PASSED]
    inputs = dict(SmokeInput.objects.filter(version__in=[run.version_id for run in passed]).values_list("version_id", "inputs"))
    prompts: list[dict[str, Any]] = []
    left, loaded = within_s, set()
    for run in sorted(passed, key=lambda r: (-(used.get(r.version_id) or 0), str(r.version_id))):
        seconds = float(run.report.get("run_s") or 0)
        version = releases.version(run.version_id)
        if len(prompts) == most:
            break
        if run.version_id not in inputs or seconds > left or (version.warm_key and version.warm_key in loaded):
            continue
        graph, files = placed(version, inputs[run.version_id], max_bytes=MAX_FILES)
        left -= seconds
        loaded.add(version.warm_key)
        prompts.append(
            {
                "workflow": version.workflow.slug,
                "version": version.number,
                "graph": graph,
                "files": [
                    {"name": f.name, "media_type": f.media_type, "node": f.node, "input": f.input, "data": base64.b64encode(f.data).decode()} for f in files
                ],
                "warm_key": version.warm_key,
                "models": models_of(run.version_id),
            }
        )
    return prompts
