"""Files a job produced: stored while the attempt still holds the job, shown once it succeeded."""

from __future__ import annotations

from datetime import datetime
from typing import BinaryIO
from uuid import UUID

from django.conf import settings
from django.db import transaction

from controlplane.kernel import blobs
from controlplane.kernel.errors import Invalid
from fleet import media
from fleet.models import Job, Output, Worker
from fleet.queue.completing import stale

KINDS = ("image", "video", "audio", "text", "file")
MAX_OUTPUTS = 1000


def store(
    worker: Worker, *, job_id: UUID, attempt: int, index: int, stream: BinaryIO, name: str, kind: str, node: str, media_type: str, sha256: str, now: datetime
) -> Output:
    """Keep one output of a running attempt. The same index again replaces it. Raises Conflict when the attempt is stale."""
    if kind not in KINDS:
        raise Invalid("output_kind_unknown", f"There is no output kind {kind[:20]!r}.", f"Use one of {', '.join(KINDS)}.")
    if not 0 <= index < MAX_OUTPUTS:
        raise Invalid("output_index_out_of_range", f"An attempt has at most {MAX_OUTPUTS} outputs.", "Save fewer files in one job.")
    if not _holds(worker, job_id, attempt):
        raise stale(job_id, attempt)
    blob = blobs.put(stream, media_type=media_type[:100], max_bytes=settings.MAX_OUTPUT_BYTES, expect_sha256=sha256 or None, now=now)
    with transaction.atomic():
        # Checked again under the row lock: the lease may have run out while the bytes came in.
        if not Job.objects.select_for_update().filter(id=job_id, status="running", attempt=attempt, worker=worker).exists():
            raise stale(job_id, attempt)
        output, _ = Output.objects.update_or_create(
            job_id=job_id,
            attempt=attempt,
            index=index,
            defaults={
                "name": media.safe_name(name),
                "kind": kind,
                "node": node[:120],
                "media_type": media_type[:100],
                "blob": blob,
                "size_bytes": blob.size_bytes,
                "created_at": now,
            },
        )
    return output


def _holds(worker: Worker, job_id: UUID, attempt: int) -> bool:
    return Job.objects.filter(id=job_id, status="running", attempt=attempt, worker=worker).exists()
