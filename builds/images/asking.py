"""Ask for a build: find or make the lock, see that an earlier image is still there, hand the build to whoever builds."""

from __future__ import annotations

import contextlib
from datetime import datetime

from docker.errors import DockerException, ImageNotFound
from requests.exceptions import RequestException

from builds import locking
from builds.images import building
from builds.images.docker_cli import Docker
from builds.models import Build, Lock, Version
from controlplane.kernel.errors import Conflict, WorkflowError


def ask(*, version: Version, actor: str, make_lock: bool = False, now: datetime) -> Build:
    """The build of the version's lock: the one that waits, runs or went well, else a new one that waits.

    Raises Conflict `not_locked` where there is no lock and none may be made, what making one raises, and what
    `building.request` raises.
    """
    build = building.request(version=version, lock=lock_of(version, actor=actor, make_lock=make_lock, now=now), actor=actor, now=now)
    if build.state == Build.State.SUCCEEDED and not is_there(build):
        building.image_lost(build, now=now)
        build = building.request(version=version, lock=build.lock, actor=actor, now=now)
    return build


def lock_of(version: Version, *, actor: str, make_lock: bool, now: datetime) -> Lock:
    """The lock that counts for the version."""
    given = locking.of(version)
    if given is not None:
        return given.lock
    if not make_lock:
        raise Conflict(
            "not_locked",
            f"{version} has no lock, and an image is built from one.",
            f"Make it first: manage.py lock {version.workflow.slug}@{version.number}, or the Lock button of the version's dependencies.",
            details={"workflow": version.workflow.slug, "version": version.number},
        )
    return locking.make(version=version, actor=actor, now=now)


def is_there(build: Build) -> bool:
    """Whether the image can still be had. An engine that does not answer says nothing, so the image counts as there."""
    if build.digest:
        return True
    with contextlib.suppress(WorkflowError, DockerException, RequestException), Docker.of_settings().client() as client:
        try:
            client.images.get(build.image_id)
        except ImageNotFound:
            return False
    return True
