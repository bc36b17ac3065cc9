"""Wake workers that wait for a job of their pool.

On PostgreSQL a NOTIFY goes out with the commit, and only while a worker of the pool has nothing to do: commits that notify
wait for each other, and with every worker busy nobody would listen. On SQLite nothing is sent: waiters look at
`PRAGMA data_version`, which changes when any other connection commits (`controlplane.stream.waking`, which also looks
after those who watch a job).
"""

from __future__ import annotations

from django.db import connection

from controlplane.kernel import sql

CHANNEL = "comfyplane"
_IDLE = "SELECT 1 FROM fleet_worker WHERE fleet_worker.pool_id = fleet_job.pool_id AND fleet_worker.state IN ('idle', 'starting')"
TELL_POOL = f"CASE WHEN EXISTS ({_IDLE}) THEN pg_notify('{CHANNEL}', 'pool:' || fleet_job.pool_id)::text END"
"""For RETURNING of a statement that writes fleet_job: spares one of its own."""


def tells() -> bool:
    """Whether this database sends anything."""
    return connection.vendor == "postgresql"


def pool(pool_id: int) -> None:
    """A job of this pool is ready, as of this transaction's commit."""
    if tells():
        sql.rows("SELECT pg_notify(%s, %s)", [CHANNEL, f"pool:{pool_id}"])
