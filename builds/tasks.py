"""Work of the tasks process: one build each, and taking up builds whose process died.

A task may run twice or beside itself: the build's own token decides who builds. It passes ids only.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils import timezone
from django_q.models import OrmQ, Schedule
from django_q.tasks import async_task

from builds.images import building
from builds.models import Build
from controlplane.kernel.errors import Unavailable

SCHEDULES: dict[str, dict[str, Any]] = {
    "take up builds": {"func": "builds.tasks.take_up", "schedule_type": Schedule.MINUTES, "minutes": 1},
    "forget old build logs": {"func": "builds.tasks.forget_logs", "schedule_type": Schedule.HOURLY},
}


def ensure_schedules(*, now: datetime) -> None:
    """Make the schedules that are missing and set right those that differ. Their next time is kept."""
    for name, terms in SCHEDULES.items():
        Schedule.objects.update_or_create(name=name, defaults={**terms, "repeats": -1}, create_defaults={**terms, "name": name, "repeats": -1, "next_run": now})


def start(build: Build) -> None:
    """Have the tasks process build it. In the caller's transaction, when there is one: the queue is a table."""
    if build.state == Build.State.QUEUED:
        async_task("builds.tasks.build", str(build.id), task_name=_name(build.id), timeout=settings.BUILD["TIMEOUT_S"] + settings.BUILD["CHECK_S"] + 600)


def build(build_id: str) -> str:
    """Build it, unless somebody does; says how it stands then."""
    from builds.images import running  # only who builds needs what it loads: every process imports this module

    return running.run(UUID(build_id), clock=timezone.now).state


def take_up() -> int:
    """Queue again what nobody works on; how many."""
    now, queued = timezone.now(), set(_queued())
    found = [build_id for build_id in building.waiting(now=now) if _name(build_id) not in queued]
    for build_id in found:
        async_task("builds.tasks.build", str(build_id), task_name=_name(build_id), timeout=settings.BUILD["TIMEOUT_S"] + settings.BUILD["CHECK_S"] + 600)
    return len(found)


def forget_logs() -> int:
    """Remove the logs of builds that ended long ago, and what killed builders left in the engine; how many lines."""
    from builds.images import checking
    from builds.images.docker_cli import Docker

    now = timezone.now()
    with contextlib.suppress(Unavailable):  # no engine here, nothing left behind
        checking.sweep(Docker.of_settings(), older_than_s=settings.BUILD["TIMEOUT_S"] + settings.BUILD["CHECK_S"], now_s=now.timestamp())
    return building.forget_logs(now=now)


def _name(build_id: object) -> str:
    return f"build {build_id}"


def _queued() -> list[str]:
    return [str(task.name()) for task in OrmQ.objects.all()[:200]]
