"""Which version a call runs: what production points at, or one the caller pins. Versions never change, so each is read once a process."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from uuid import UUID

from builds.models import Channel, Version, Workflow
from controlplane.kernel.errors import NotFound
from fleet import admission

KEPT = 256
_kept: OrderedDict[UUID, Version] = OrderedDict()
_lock = Lock()


def offered(slug: str) -> tuple[Workflow, Version]:
    """The workflow customers call `slug` and its version in production; raises NotFound, Gone or Conflict."""
    channel = Channel.objects.select_related("workflow").filter(workflow__slug=slug, name=Channel.Name.PRODUCTION).first() if _plain(slug) else None
    if channel is None:
        if not _plain(slug):
            raise admission.unknown_workflow(slug)
        workflow = admission.workflow_named(slug)
        return workflow, admission.live_version(workflow)
    if channel.workflow.archived_at is not None:
        return channel.workflow, admission.live_version(channel.workflow)
    return channel.workflow, version(channel.version_id)


def pinned(workflow: Workflow, number: int, *, live: Version) -> Version:
    """Version `number`, if customers may run it: production's, an earlier one, or one in the limited channel."""
    if number == live.number:
        return live
    found = Version.objects.filter(workflow=workflow, number=number, runnable=True).only("id").first() if 0 < number < 2**31 else None
    if found is not None and (number < live.number or Channel.objects.filter(workflow=workflow, name=Channel.Name.LIMITED, version=found).exists()):
        return version(found.id)
    raise NotFound(
        "version_not_found",
        f"{workflow.slug} has no version {number} to run.",
        f"Leave version out to run the current one, {live.number}.",
        details={"field": "version"},
    )


def version(version_id: UUID) -> Version:
    """A version by id, kept in this process. Do not change it."""
    with _lock:
        held = _kept.get(version_id)
        if held is not None:
            _kept.move_to_end(version_id)
            return held
    found = Version.objects.defer("ui_graph", "lock", "findings").get(id=version_id)
    with _lock:
        _kept[version_id] = found
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return found


def _plain(slug: str) -> bool:
    return len(slug) <= 60 and slug.isascii() and slug.replace("-", "a").replace("_", "a").isalnum()
