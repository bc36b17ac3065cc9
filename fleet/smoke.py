"""Smoke runs: a small job of a version through the real queue, or on the image itself, and what came of it.

A run is asked for once and is a row; one loop (`step`) asks for those that are due, starts a bounded number of them and
ends those whose job is over. Its job is ours (the house pays nothing), of the lowest priority, and counted by nobody but
the catalogue. A run passes only when its job succeeded and every output was measured to be good.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from billing import customers
from billing.models import Customer
from builds import smoke_keeping
from builds.models import Build, SmokeInput, Version
from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict, LimitExceeded, Unavailable, WorkflowError
from fleet import admission, queries_smoke, smoke_rule
from fleet.models import Attempt, Job, Output, SmokeRun

State, Trigger = SmokeRun.State, SmokeRun.Trigger
BY = "smoke"
PER_POOL = 1
"""Runs of a pool at a time: a smoke job may take the place of nobody for long."""
MOST_OPEN = 16
MOST_REQUESTS = 50
DEADLINE = timedelta(hours=1)
"""How long a run may wait for a worker."""
IMAGE_LEASE = timedelta(minutes=45)
"""A run on an image that is not done by then was lost with its process."""
BUILDS_SINCE = timedelta(days=7)


def request(*, version: Version, build: Build | None = None, trigger: str, actor: str, now: datetime) -> SmokeRun:
    """Ask for a smoke run; the open one of the same version and image when there is one. Raises Conflict for what cannot run."""
    if not version.runnable:
        raise Conflict(
            "version_not_runnable",
            f"v{version.number} of {version.workflow.slug} has errors and cannot run.",
            "Mend what its findings say and import it again.",
        )
    if build is not None and build.state != Build.State.SUCCEEDED:
        raise Conflict("build_not_succeeded", f"The build is {build.state}; there is no image to run.", "Wait for the build, or build it again.")
    for _ in range(3):
        try:
            with transaction.atomic():
                run = SmokeRun.objects.create(version=version, build=build, trigger=trigger, requested_at=now, requested_by=actor[:120])
                if trigger == Trigger.PERSON:
                    audit.record(
                        actor=actor,
                        action="smoke.run",
                        object_type="version",
                        object_id=str(version.pk),
                        after={"workflow": version.workflow.slug, "number": version.number, "build": str(build.pk) if build else None},
                        now=now,
                    )
            return run
        except IntegrityError:
            held = SmokeRun.objects.filter(version=version, build=build, state__in=SmokeRun.OPEN).first()
            if held is not None:
                return held
            # It ended in between: ask again.
    raise Conflict("smoke_busy", "Smoke runs of this version come and go at this moment.", "Ask again in a moment.")


def record_inputs(*, job: Job, actor: str, now: datetime) -> SmokeInput:
    """Let a version's smoke job run with the inputs of a test run that went well. What customers sent is never kept as a test."""
    if job.status != Job.Status.SUCCEEDED:
        raise Conflict("job_not_succeeded", f"The job is {job.status}; only one that succeeded shows inputs that work.", "Choose another job.")
    if job.customer.slug != customers.HOUSE:
        raise Conflict(
            "job_of_customer",
            "The job belongs to a customer, and what customers send is not kept as a test.",
            "Run it once from the API tab and record that job.",
        )
    return smoke_keeping.write(version=job.version, inputs=job.inputs, origin=SmokeInput.Origin.RECORDED, actor=actor, reason=f"job {job.id}", now=now)


def step(*, fence: Callable[[], None], now: datetime, hand_over: Callable[[UUID], None] | None = None) -> str:
    """One round: end what is over, ask for what is due, start what may run. `hand_over` gives a run on an image to another process."""
    done = asked = started = 0
    for run in _open(State.RUNNING):
        done += _end(run, fence=fence, now=now)
    asked = _ask(fence=fence, now=now)
    taken = Counter(SmokeRun.objects.filter(state=State.RUNNING, build__isnull=True).values_list("version__workflow__pool_slug", flat=True))
    for run in _open(State.QUEUED):
        pool = run.version.workflow.pool_slug
        if run.build_id is None and (taken[pool] >= PER_POOL or taken.total() >= MOST_OPEN):
            done += _overdue(run, fence=fence, now=now)
            continue
        went = _on_image(run, hand_over=hand_over, fence=fence, now=now) if run.build_id else _on_queue(run, fence=fence, now=now)
        started += went
        taken[pool] += went and run.build_id is None
    return ", ".join(f"{n} {word}" for n, word in ((done, "ended"), (asked, "asked for"), (started, "started")) if n)


def _open(state: str) -> Sequence[SmokeRun]:
    found = SmokeRun.objects.filter(state=state).select_related("version__workflow", "job", "build").defer("version__graph", "version__ui_graph")
    return list(found.order_by("requested_at")[:200])


def _ask(*, fence: Callable[[], None], now: datetime) -> int:
    """Rows for what is due. At most so many a round, so that the first round of a large installation is short."""
    due = smoke_rule.due(queries_smoke.subjects(), now=now)[:MOST_REQUESTS]
    built = queries_smoke.untested_builds(since=now - BUILDS_SINCE)[:MOST_REQUESTS]
    if not due and not built:
        return 0
    versions = Version.objects.select_related("workflow").only("id", "number", "runnable", "workflow__slug").in_bulk([version for version, _ in due])
    with transaction.atomic():
        fence()
        for version_id, trigger in due:
            request(version=versions[version_id], trigger=trigger, actor=BY, now=now)
        for build in built:
            if build.version.runnable:
                request(version=build.version, build=build, trigger=Trigger.BUILD, actor=BY, now=now)
    return len(due) + len(built)


def _on_queue(run: SmokeRun, *, fence: Callable[[], None], now: datetime) -> bool:
    """Send the run's job through the queue. The key makes a second try find the first one's job."""
    house = Customer.objects.select_related("plan_revision").filter(slug=customers.HOUSE).first()
    if house is None:
        return _overdue(run, fence=fence, now=now)
    try:
        job = admission.submit(
            customer=house,
            api_key=None,
            workflow=run.version.workflow,
            version=run.version,
            inputs=smoke_keeping.of_version(run.version, now=now).inputs,
            priority="low",
            deadline_s=DEADLINE.total_seconds(),
            metadata={"smoke_run": str(run.id), "trigger": run.trigger},
            idempotency_key=f"smoke-{run.id}",
            body_sha256=hashlib.sha256(run.id.bytes).hexdigest(),
            source=Job.SMOKE,
            now=now,
        ).job
    except (LimitExceeded, Unavailable):
        return _overdue(run, fence=fence, now=now)  # room comes again
    except WorkflowError as error:
        _close(run, error=error_of(error), fence=fence, now=now)
        return False
    with transaction.atomic():
        fence()
        return SmokeRun.objects.filter(id=run.id, state=State.QUEUED).update(state=State.RUNNING, started_at=now, job=job) == 1


def _on_image(run: SmokeRun, *, hand_over: Callable[[UUID], None] | None, fence: Callable[[], None], now: datetime) -> bool:
    """Give the run to a process that may take minutes."""
    if hand_over is None:
        return False
    with transaction.atomic():
        fence()
        taken = SmokeRun.objects.filter(id=run.id, state=State.QUEUED).update(state=State.RUNNING, started_at=now) == 1
        if taken:
            hand_over(run.id)
    return taken


def _end(run: SmokeRun, *, fence: Callable[[], None], now: datetime) -> bool:
    """Close a run whose job is over; say whether it was."""
    if run.job is None:
        if run.started_at is not None and now - run.started_at > IMAGE_LEASE:
            lost = {"code": "smoke_interrupted", "message": "The process that ran it went away.", "suggestion": "Run it again."}
            return _close(run, error=lost, fence=fence, now=now)
        return False
    if not run.job.is_terminal:
        return False
    report, error = judged(run.job)
    return _close(run, error=error, report=report, fence=fence, now=now)


def judged(job: Job) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What an ended smoke job measured, and why it does not pass; None when it does."""
    outputs = list(Output.objects.filter(job=job, published=True).order_by("index").values("name", "kind", "measurements"))
    nodes = Attempt.objects.filter(job=job, state="succeeded").values_list("nodes", flat=True).first() or []
    report = {
        "run_s": round((job.finished_at - job.started_at).total_seconds(), 3) if job.finished_at and job.started_at else None,
        "busy_s": round(job.billable_s, 3),
        "cost_microusd": job.cost_microusd,
        "outputs": len(outputs),
        "images": sum(o["kind"] == "image" for o in outputs),
        # Answered mostly from the engine's memory: that it works was seen, how long it takes was not.
        "cached": 2 * sum(isinstance(n, dict) and bool(n.get("cached")) for n in nodes) > len(nodes) > 0,
    }
    if job.status == Job.Status.SUCCEEDED:
        return report, smoke_rule.fault(outputs)
    said = job.error or {}
    code = str(said.get("code") or f"job_{job.status}")
    message = str(said.get("message") or f"Its job is {job.status}.")
    if job.status == Job.Status.EXPIRED and job.attempt == 0:
        code, message = "no_worker", f"No worker of the pool took it within {DEADLINE.total_seconds() / 60:.0f} minutes."
        said = {"suggestion": "Look at the pool: it has no workers, or they are always busy."}
    return report, {"code": code[:64], "message": message[:2000], "suggestion": str(said.get("suggestion") or "Open the job.")[:1000]}


def _overdue(run: SmokeRun, *, fence: Callable[[], None], now: datetime) -> bool:
    """End a run that found no room for as long as a job may wait. Never counts as started."""
    if now - run.requested_at > DEADLINE:
        late = {"code": "smoke_not_started", "message": "There was no room to start it for an hour.", "suggestion": "Look at the pool and run it again."}
        _close(run, error=late, fence=fence, now=now)
    return False


def _close(run: SmokeRun, *, error: dict[str, Any] | None, report: dict[str, Any] | None = None, fence: Callable[[], None], now: datetime) -> bool:
    with transaction.atomic():
        fence()
        return close(run.id, error=error, report=report, now=now)


def close(run_id: UUID, *, error: dict[str, Any] | None, report: dict[str, Any] | None = None, now: datetime) -> bool:
    """End an open run: passed without an error, failed with one. False when it was ended before."""
    state = State.FAILED if error else State.PASSED
    open_run = SmokeRun.objects.filter(id=run_id, state__in=SmokeRun.OPEN)
    return open_run.update(state=state, finished_at=now, error=error, **({"report": report} if report else {})) == 1


def error_of(error: WorkflowError) -> dict[str, str]:
    """A refusal as a run keeps it."""
    return {"code": error.code, "message": error.message[:2000], "suggestion": error.suggestion[:1000]}
