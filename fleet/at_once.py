"""Admit a job in one statement, on PostgreSQL: reserve, take a place, insert and tell, or nothing at all.

Requests of one customer meet on the row of its account. Statement by statement, each holds that row while it goes back
and forth and waits for its turn in the process; in one statement only the database holds it. SQLite has one writer
anyway and takes the way of `fleet.admission`.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from functools import cache

from django.db import connection, transaction

from billing import quotas
from billing.models import PlanRevision
from controlplane.kernel import sql
from fleet import fairness, wake
from fleet.models import Job

_ADMIT = """
WITH reserved AS ({reserve}),
place AS (
  INSERT INTO fleet_fairshare (customer_id, pool_id, finish_tag)
  SELECT %s, p.id, greatest(p.virtual_time, coalesce((
    SELECT j.fair_tag FROM fleet_job j WHERE j.pool_id = p.id AND j.status = 'queued' AND j.priority = %s AND j.fair_tag > %s
    ORDER BY j.fair_tag LIMIT 1), 0), %s) + %s
  FROM fleet_pool p, reserved WHERE p.id = %s
  ON CONFLICT (customer_id, pool_id) DO UPDATE SET finish_tag = greatest(fleet_fairshare.finish_tag, excluded.finish_tag - %s) + %s
  RETURNING finish_tag
),
job AS (INSERT INTO fleet_job ({columns}) SELECT {values} FROM place RETURNING {told})
SELECT reserved.*, place.finish_tag FROM reserved, place, job
"""


def possible() -> bool:
    """Whether this database can."""
    return connection.vendor == "postgresql"


def admit(job: Job, *, plan: PlanRevision, expected_s: float, now: datetime) -> quotas.Standing | None:
    """Reserve, take a place and insert `job`; None, and nothing done, when a limit or a missing account stands in the way."""
    reserve, held = quotas.reservation(customer_id=job.customer_id, plan=plan, amount_microusd=job.quote_microusd, now=now)
    step = fairness.work(expected_s=expected_s, weight=plan.weight)
    place = [job.customer_id, job.priority, fairness.FRONT, fairness.FRONT + 1, step, job.pool_id, step, step]
    job.fair_tag = step  # the statement writes finish tag − this
    inserted = [field.get_db_prep_save(field.pre_save(job, True), connection) for field in Job._meta.concrete_fields]
    # Inside somebody's transaction a refusal by a constraint must not end that one.
    with transaction.atomic() if connection.in_atomic_block else contextlib.nullcontext():
        found = sql.rows(_statement(reserve), [*held, *place, *inserted])
    if not found:
        return None
    *standing, finish_tag = found[0]
    job.fair_tag = int(finish_tag) - step
    job._state.adding = False
    job._state.db = connection.alias
    return quotas.standing_after(plan, standing, now=now)


@cache
def _statement(reserve: str) -> str:
    fields = Job._meta.concrete_fields
    return _ADMIT.format(
        reserve=reserve,
        columns=", ".join(connection.ops.quote_name(str(field.column)) for field in fields),
        values=", ".join("place.finish_tag - %s" if field.column == "fair_tag" else "%s" for field in fields),
        told=wake.TELL_POOL,
    )
