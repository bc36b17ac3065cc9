"""Which version a call runs: what production points at, or one the caller pins. Versions never change, so each is read once a process."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from uuid import UUID

from django.db import connection

from builds.models import Channel, Version, Workflow
from controlplane.kernel import sql
from controlplane.kernel.errors import NotFound
from fleet import admission

KEPT = 256
_FIELDS = ["id", "slug", "pool_slug", "result_cache_s", "archived_at"]  # what admission needs, in the model's order; the rest is read when it is asked for
_OFFERED = """
SELECT c.version_id, w.id, w.slug, w.pool_slug, w.result_cache_s, w.archived_at
FROM builds_channel c JOIN builds_workflow w ON w.id = c.workflow_id WHERE w.slug = %s AND c.name = %s
"""
_kept: OrderedDict[UUID, Version] = OrderedDict()
_lock = Lock()


def offered(slug: str) -> tuple[Workflow, Version]:
    """The workflow customers call `slug` and its version in production; raises NotFound, Gone or Conflict."""
    if not _plain(slug):
        raise admission.unknown_workflow(slug)
    found = sql.rows(_OFFERED, [slug, Channel.Name.PRODUCTION])
    if not found:
        workflow = admission.workflow_named(slug)
        return workflow, admission.live_version(workflow)
    version_id, workflow_id, *plain, archived_at = found[0]
    workflow = Workflow.from_db(connection.alias, _FIELDS, [sql.to_uuid(workflow_id), *plain, sql.to_datetime(archived_at)])
    if workflow.archived_at is not None:
        return workflow, admission.live_version(workflow)
    return workflow, version(sql.to_uuid(version_id))


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
