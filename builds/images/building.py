"""Builds as rows: asked for, taken up by one process, told line by line, and ended once.

The process that builds holds a token and a lease. Every write of it is fenced by both, so one that was thought dead
changes nothing when it comes back; one that died is taken up again by the next, at most `MAX_ATTEMPTS` times.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q

from builds.images import docker_cli
from builds.models import Build, BuildLine, BuildStep, Lock, Version
from controlplane.kernel import audit
from controlplane.kernel.errors import Conflict, Invalid, NotFound

log = logging.getLogger(__name__)

State = Build.State
MAX_ATTEMPTS = 3
MAX_LINES = 200_000
LOG_KEPT = timedelta(days=30)
"""How long an ended build's log is kept; its steps, error and last lines stay."""
TRANSITIONS: dict[str, frozenset[str]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELED}),
    State.RUNNING: frozenset({State.RUNNING, State.SUCCEEDED, State.FAILED, State.CANCELED}),
    State.SUCCEEDED: frozenset({State.FAILED}),  # its image was lost
    State.FAILED: frozenset(),
    State.CANCELED: frozenset(),
}


class Lost(Exception):
    """Another process holds the build, or it ended: whatever we know is worthless."""


@dataclass(frozen=True)
class Claim:
    """The right to build, and to say so."""

    build: Build
    token: UUID


def request(*, version: Version, lock: Lock, actor: str, now: datetime) -> Build:
    """The build of a lock: the one that waits, runs or went well, else a new one.

    Raises Invalid `platform_foreign` where this builder cannot make images for the lock's platform.
    """
    platform = platform_of(lock)
    if not docker_cli.Docker.of_settings().builds(platform):
        raise Invalid(
            "platform_foreign",
            f"This builder cannot make images for {platform}.",
            "Build where the engine is of that kind (BUILD_PLATFORMS says which), or lock for this machine's.",
            details={"platform": platform},
        )
    for _ in range(3):
        found = Build.objects.filter(lock=lock, platform=platform, state__in=Build.HOLDING).first()
        if found is not None:
            return found
        try:
            with transaction.atomic():
                made = Build.objects.create(lock=lock, version=version, platform=platform, requested_at=now, requested_by=actor[:120])
                audit.record(
                    actor=actor,
                    action="build.request",
                    object_type="build",
                    object_id=made.id,
                    after={"lock": lock.sha256, "version": str(version), "platform": platform},
                    now=now,
                )
            return made
        except IntegrityError:  # somebody asked at the same moment
            continue
    raise Conflict("build_busy", "Somebody else is asking for this build.", "Look at the list of builds in a moment.")


def platform_of(lock: Lock) -> str:
    """os/arch of the lock."""
    said = lock.document.get("platform") or {}
    return f"{said.get('os') or 'linux'}/{said.get('arch') or 'amd64'}"[:40]


def find(build_id: UUID | str) -> Build:
    """The build, or NotFound."""
    found = Build.objects.select_related("version__workflow", "lock").filter(id=build_id).first()
    if found is None:
        raise NotFound("build_not_found", "There is no such build.", "Look at the workflow's builds.")
    return found


def claim(build_id: UUID, *, now: datetime) -> Claim | None:
    """Take up a build that waits, or whose process went silent; None when there is nothing to do.

    The third process that falls silent over it ends it (`builder_lost`).
    """
    token = uuid4()
    free = Q(state=State.QUEUED) | Q(state=State.RUNNING, lease_until__lt=now)
    with transaction.atomic():
        build = Build.objects.select_for_update().filter(free, id=build_id).first()
        if build is None:
            return None
        if build.attempts >= MAX_ATTEMPTS:
            _end(build, State.FAILED, now=now, error=_lost(build))
            return None
        if build.cancel_asked_at is not None:
            _end(build, State.CANCELED, now=now)
            return None
        # What an earlier try said is no part of this one.
        BuildStep.objects.filter(build=build).delete()
        BuildLine.objects.filter(build=build).delete()
        build.state, build.token, build.started_at = State.RUNNING, token, now
        build.lease_until = now + lease()
        build.attempts += 1
        build.save(update_fields=["state", "token", "started_at", "lease_until", "attempts"])
    return Claim(build, token)


def lease() -> timedelta:
    return timedelta(seconds=settings.BUILD["LEASE_S"])


def renew(held: Claim, *, now: datetime) -> bool:
    """Keep the lease; whether somebody asked to cancel. Raises Lost."""
    if not Build.objects.filter(id=held.build.id, token=held.token, state=State.RUNNING).update(lease_until=now + lease()):
        raise Lost
    return Build.objects.filter(id=held.build.id, cancel_asked_at__isnull=False).exists()


def note(held: Claim, *, lines: Iterable[BuildLine] = (), steps: Iterable[BuildStep] = (), now: datetime, **fields: Any) -> None:
    """Write down lines, steps and fields of the build at once. Raises Lost."""
    with transaction.atomic():
        if not Build.objects.filter(id=held.build.id, token=held.token, state=State.RUNNING).update(lease_until=now + lease(), **fields):
            raise Lost
        BuildLine.objects.bulk_create(lines, batch_size=500)
        BuildStep.objects.bulk_create(
            steps,
            update_conflicts=True,
            unique_fields=["build", "position"],
            update_fields=["name", "stage", "state", "started_at", "seconds", "size_bytes"],
        )


def cancel(build: Build, *, actor: str, reason: str = "", now: datetime) -> Build:
    """Cancel what waits at once; ask the process of one that runs to end it. Asking twice changes nothing. Raises Conflict `build_ended`."""
    with transaction.atomic():
        held = Build.objects.select_for_update().get(id=build.id)
        if held.state not in Build.OPEN:
            raise Conflict("build_ended", f"This build has {held.state}.", "There is nothing left to cancel.", details={"state": held.state})
        if held.cancel_asked_at is None:
            held.cancel_asked_at = now
            held.save(update_fields=["cancel_asked_at"])
            silent = held.state == State.RUNNING and held.lease_until is not None and held.lease_until < now
            if held.state == State.QUEUED or silent:
                _end(held, State.CANCELED, now=now)
            audit.record(actor=actor, action="build.cancel", object_type="build", object_id=held.id, reason=reason, now=now)
    return held


def succeed(held: Claim, *, now: datetime, **fields: Any) -> Build:
    """End it well: the image is there, checked, and where it was to be pushed it is. Raises Lost."""
    return _finish(held, State.SUCCEEDED, now=now, **fields)


def fail(held: Claim, *, error: dict[str, Any], step: str = "", now: datetime) -> Build:
    """End it with its reason. Raises Lost."""
    return _finish(held, State.FAILED, now=now, error=error, failed_step=step[:200])


def canceled(held: Claim, *, now: datetime) -> Build:
    """End it because somebody asked. Raises Lost."""
    return _finish(held, State.CANCELED, now=now)


def image_lost(build: Build, *, now: datetime) -> None:
    """A build that went well, but whose image is neither in the engine nor in a registry, makes room for another."""
    with transaction.atomic():
        held = Build.objects.select_for_update().filter(id=build.id, state=State.SUCCEEDED).first()
        if held is not None:
            error = {
                "code": "image_lost",
                "message": "The image is no longer in the engine, and was never pushed.",
                "suggestion": "Build again.",
                "details": {},
            }
            _end(held, State.FAILED, now=now, error=error)


def pushed(build: Build, *, image: str, digest: str, now: datetime) -> None:
    """An image that went well before is in a registry now."""
    with transaction.atomic():
        if Build.objects.filter(id=build.id, state=State.SUCCEEDED, digest="").update(image=image, digest=digest):
            after = {"image": image, "digest": digest, "image_id": build.image_id}
            audit.record(actor="builder", action="build.push", object_type="build", object_id=build.id, after=after, now=now)


def waiting(*, now: datetime) -> list[UUID]:
    """Builds nobody works on: those that wait, and those whose process fell silent; oldest first."""
    silent = Q(state=State.RUNNING, lease_until__lt=now)
    return list(Build.objects.filter(Q(state=State.QUEUED) | silent).order_by("requested_at").values_list("id", flat=True)[:50])


def forget_logs(*, now: datetime, most: int = 50) -> int:
    """Remove the log lines of builds that ended long ago, at most so many builds at once; how many lines."""
    lines = BuildLine.objects.filter(build=OuterRef("pk"))
    old = Build.objects.filter(finished_at__lt=now - LOG_KEPT).exclude(state__in=Build.OPEN).filter(Exists(lines))
    removed = 0
    for build_id in list(old.order_by("finished_at").values_list("id", flat=True)[:most]):
        removed += BuildLine.objects.filter(build_id=build_id).delete()[0]
    return removed


def _finish(held: Claim, state: str, *, now: datetime, **fields: Any) -> Build:
    with transaction.atomic():
        build = Build.objects.select_for_update().filter(id=held.build.id, token=held.token, state=State.RUNNING).first()
        if build is None:
            raise Lost
        _end(build, state, now=now, **fields)
        return build


def _end(build: Build, state: str, *, now: datetime, **fields: Any) -> None:
    if state not in TRANSITIONS[build.state]:
        raise Conflict("build_ended", f"A build that has {build.state} cannot become {state}.")
    build.state, build.finished_at, build.token, build.lease_until = state, now, None, None
    for name, value in fields.items():
        setattr(build, name, value)
    build.save()
    left = BuildStep.State.CANCELED if state == State.CANCELED else BuildStep.State.FAILED
    BuildStep.objects.filter(build=build, state=BuildStep.State.RUNNING).update(state=left)
    after = {"state": state, "lock": build.lock_id, "image": build.image, "image_id": build.image_id, "digest": build.digest, "sbom": build.sbom_sha256}
    if build.error:
        after["error"] = build.error.get("code", "")
    audit.record(actor="builder", action="build.end", object_type="build", object_id=build.id, after=after, now=now)


def _lost(build: Build) -> dict[str, Any]:
    return {
        "code": "builder_lost",
        "message": f"The process that built fell silent {build.attempts} times.",
        "suggestion": "Look at the log of the tasks process and the machine's memory and disk, then build again.",
        "details": {"attempts": build.attempts},
    }
