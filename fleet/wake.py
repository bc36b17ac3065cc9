"""Wake who waits: workers for a job of their pool, watchers for a change of theirs.

On PostgreSQL a NOTIFY goes out with the commit. On SQLite nothing is sent: waiters look at `PRAGMA data_version`,
which changes when any other connection commits (`controlplane.stream`).
"""

from __future__ import annotations

from uuid import UUID

from django.db import connection

from controlplane.kernel import sql

CHANNEL = "comfyplane"
# For RETURNING: they spare a statement where a job is written anyway.
TELL_JOB = f"pg_notify('{CHANNEL}', 'job:' || id)"
TELL_POOL = f"pg_notify('{CHANNEL}', 'pool:' || pool_id)"


def tells() -> bool:
    """Whether this database sends anything."""
    return connection.vendor == "postgresql"


def pool(pool_id: int) -> None:
    """A job of this pool is ready, as of this transaction's commit."""
    _notify(f"pool:{pool_id}")


def job(job_id: UUID) -> None:
    """This job changed, as of this transaction's commit."""
    _notify(f"job:{job_id}")


def _notify(topic: str) -> None:
    if tells():
        sql.rows("SELECT pg_notify(%s, %s)", [CHANNEL, topic])
