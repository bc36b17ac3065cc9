"""How close the queue comes to the database, and how far it is from a task queue: jobs a second for claim + complete.

Three drains of the same number of jobs in one run, on one PostgreSQL:
  ours      fleet.queue.claim (batches of 10) and fleet.queue.complete
  raw SQL   a psycopg loop that issues the equivalent statements, same batches, same transactions
  django-q2 its ORM broker (save_limit=0) draining no-ops with two workers; ours with two processes beside it

    python bench/queue_cycle.py [--jobs 2000] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import os
import pstats
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench.throwaway_postgres import cluster  # noqa: E402

BATCH = 10


def now() -> datetime:
    return datetime.now(UTC)


def prepare(jobs: int, *, slug: str) -> tuple[int, object]:
    """A pool with `jobs` queued jobs and one worker; returns their ids."""
    import factories

    from billing.models import Account
    from fleet.models import Job

    at = now()
    pool = factories.make_pool(now=at, slug=f"{slug}-{uuid4().hex[:6]}")
    workflow = factories.make_runnable(now=at, pool=pool)
    customers = [factories.make_customer(now=at) for _ in range(8)]
    version = workflow.versions.get()
    quote = 25_000
    Job.objects.bulk_create(
        [
            Job(customer=customers[i % 8], plan_revision=customers[i % 8].plan_revision, workflow=workflow, version=version, pool=pool, fair_tag=i + 1,
                inputs={"width": 64}, created_at=at, queued_at=at, quote_microusd=quote)
            for i in range(jobs)
        ],
        batch_size=500,
    )  # fmt: skip
    for customer in customers:
        mine = len([i for i in range(jobs) if i % 8 == customers.index(customer)])
        Account.objects.filter(customer=customer).update(reserved_microusd=mine * quote, active_jobs=mine)
    return pool.pk, factories.make_worker(pool, now=at).id


def drain_ours(worker_id: object) -> int:
    from fleet import queue
    from fleet.models import Worker

    done = 0
    completion = queue.Completion(outcome="succeeded", timings={"busy_s": 0.001}, nodes=[])
    while True:
        worker = Worker.objects.get(id=worker_id)
        leased = queue.claim(worker, limit=BATCH, now=now())
        if not leased:
            return done
        for a in leased:
            queue.complete(worker, job_id=a.job_id, attempt=a.attempt, completion=completion, now=now())
            done += 1


def drain_raw(pool_id: int, worker_id: object, url: str) -> int:
    import psycopg
    from psycopg.types.json import Jsonb

    done = 0
    with psycopg.connect(url) as db:
        while True:
            at = now()
            with db.transaction():
                db.execute("SELECT id, state FROM fleet_worker WHERE id = %s", [worker_id]).fetchone()
                ids = [r[0] for r in db.execute(
                    "SELECT id FROM fleet_job WHERE pool_id = %s AND status = 'queued' ORDER BY priority, fair_tag, id LIMIT %s FOR UPDATE SKIP LOCKED", [pool_id, BATCH]).fetchall()]  # fmt: skip
                if not ids:
                    return done
                db.execute(
                    "UPDATE fleet_job SET status='running', attempt=attempt+1, worker_id=%s, lease_until=%s, started_at=%s, progress=0, revision=revision+1 WHERE id = ANY(%s)",
                    [worker_id, at, at, ids],
                )
                rows = db.execute("SELECT * FROM fleet_job WHERE id = ANY(%s)", [ids]).fetchall()
                assert len(rows) == len(ids)
                with db.cursor() as c:
                    c.executemany(
                        "INSERT INTO fleet_attempt (job_id, number, worker_id, state, claimed_at, failure_class, timings, nodes, busy_s, cost_microusd) VALUES (%s,1,%s,'running',%s,'','{}','[]',0,0)",
                        [[i, worker_id, at] for i in ids],
                    )
                db.execute("UPDATE fleet_worker SET state='busy', state_since=%s, seen_at=%s, idle_since=NULL WHERE id=%s", [at, at, worker_id])
            for job_id in ids:
                at = now()
                with db.transaction():
                    job = db.execute(
                        "SELECT j.*, w.slug, v.number, p.price_per_job_microusd, p.price_per_gpu_second_microusd, o.price_per_hour_microusd FROM fleet_job j JOIN builds_workflow w ON w.id=j.workflow_id "
                        "JOIN builds_version v ON v.id=j.version_id JOIN billing_planrevision p ON p.id=j.plan_revision_id JOIN fleet_pool o ON o.id=j.pool_id WHERE j.id=%s FOR UPDATE OF j", [job_id]).fetchone()  # fmt: skip
                    assert job
                    customer, plan = db.execute("SELECT customer_id, plan_revision_id FROM fleet_job WHERE id=%s", [job_id]).fetchone() or (None, None)
                    db.execute(
                        "UPDATE fleet_attempt SET state='succeeded', ended_at=%s, timings=%s, nodes='[]', busy_s=0.001, cost_microusd=1 WHERE job_id=%s AND number=1 AND state='running'",
                        [at, Jsonb({"busy_s": 0.001}), job_id],
                    )
                    db.execute(
                        "INSERT INTO billing_usageentry (id, customer_id, plan_revision_id, job_id, meter, quantity, unit_price_microusd, amount_microusd, workflow_slug, version_number, outcome, failure_class, revision, period, occurred_at, recorded_at, booked_at) "
                        "VALUES (%s,%s,%s,%s,'job',%s,%s,10000,'w',1,'succeeded','',1,'2026-01',%s,%s,%s), (%s,%s,%s,%s,'gpu_second',%s,%s,1,'w',1,'succeeded','',1,'2026-01',%s,%s,%s)",
                        [
                            uuid4(),
                            customer,
                            plan,
                            job_id,
                            Decimal(1),
                            Decimal(10000),
                            at,
                            at,
                            at,
                            uuid4(),
                            customer,
                            plan,
                            job_id,
                            Decimal("0.001"),
                            Decimal(1000),
                            at,
                            at,
                            at,
                        ],
                    )
                    db.execute(
                        "UPDATE billing_account SET settled_microusd=settled_microusd+10001, reserved_microusd=reserved_microusd-25000, active_jobs=active_jobs-1 WHERE customer_id=%s",
                        [customer],
                    )
                    db.execute(
                        "UPDATE fleet_job SET status='succeeded', finished_at=%s, lease_until=NULL, node='', failure_class='', error=NULL, price_microusd=10001, billable_s=0.001, cost_microusd=1, progress=1, revision=revision+1 WHERE id=%s",
                        [at, job_id],
                    )
                    db.execute("UPDATE fleet_worker SET jobs_done=jobs_done+1, busy_s=busy_s+0.001, seen_at=%s WHERE id=%s", [at, worker_id])
                    db.execute("UPDATE fleet_worker SET state='idle', state_since=%s, idle_since=%s WHERE id=%s AND state='busy'", [at, at, worker_id])
                done += 1


def timed(call, *args) -> tuple[int, float]:  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    done = call(*args)
    return done, time.perf_counter() - started


def _child(worker_id: object, counts: object, ready: object, go: object) -> None:
    import django

    django.setup()
    from fleet.models import Worker

    Worker.objects.get(id=worker_id)
    ready.release()  # type: ignore[attr-defined]
    go.wait()  # type: ignore[attr-defined]
    counts.put(drain_ours(worker_id))  # type: ignore[attr-defined]


def drain_ours_two(worker_ids: list[object]) -> tuple[int, float]:
    context = multiprocessing.get_context("spawn")
    counts, ready, go = context.Queue(), context.Semaphore(0), context.Event()
    children = [context.Process(target=_child, args=(w, counts, ready, go)) for w in worker_ids]
    for child in children:
        child.start()
    for _ in children:
        ready.acquire()
    started = time.perf_counter()
    go.set()
    total = sum(counts.get(timeout=300) for _ in children)
    seconds = time.perf_counter() - started
    for child in children:
        child.join()
    return total, seconds


def drain_q2(jobs: int) -> tuple[int, float]:
    from django_q.models import OrmQ
    from django_q.tasks import async_task

    for _ in range(jobs):
        async_task("math.sqrt", 2.0)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}", "DJANGO_SETTINGS_MODULE": "bench.q2_settings"}
    cluster_process = subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), "qcluster"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while OrmQ.objects.count() == jobs:
            time.sleep(0.02)
        left_at_start, started = OrmQ.objects.count(), time.perf_counter()
        until = time.monotonic() + 120
        while OrmQ.objects.exists() and time.monotonic() < until:
            time.sleep(0.02)
        return left_at_start - OrmQ.objects.count(), time.perf_counter() - started
    finally:
        cluster_process.terminate()
        cluster_process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--profile", action="store_true", help="print what dominates our drain")
    parser.add_argument("--skip-q2", action="store_true")
    options = parser.parse_args()
    with cluster() as url:
        os.environ.update(DATABASE_URL=url, DJANGO_SETTINGS_MODULE="controlplane.settings", LOG_LEVEL="ERROR")
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connection

        call_command("migrate", verbosity=0)
        prepare(200, slug="warm")
        _, worker = prepare(100, slug="warm")
        drain_ours(worker)
        rounds = []
        for _ in range(3):  # interleaved, so that the machine's noise meets both
            pool, worker = prepare(options.jobs // 2, slug="ours")
            ours, ours_s = timed(drain_ours, worker)
            pool, worker = prepare(options.jobs // 2, slug="raw")
            raw, raw_s = timed(drain_raw, pool, worker, url)
            rounds.append((ours / ours_s, raw / raw_s))
        for ours_rate, raw_rate in rounds:
            print(f"ours {ours_rate:7.0f} jobs/s   raw SQL {raw_rate:7.0f} jobs/s   ratio {ours_rate / raw_rate:.2f}")
        best = sorted(o / r for o, r in rounds)[1]
        print(f"claim + complete against raw SQL, median of 3: {best:.2f} (asked: 0.50)")
        if options.profile:
            _, worker = prepare(options.jobs // 2, slug="profile")
            profile = cProfile.Profile()
            profile.runcall(drain_ours, worker)
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        if not options.skip_q2:
            import factories

            from fleet.models import Pool

            pool, worker = prepare(options.jobs, slug="two")
            second = factories.make_worker(Pool.objects.get(pk=pool), now=now()).id
            connection.close()
            ours, ours_s = drain_ours_two([worker, second])
            q2, q2_s = drain_q2(options.jobs)
            print(f"two processes: ours {ours / ours_s:.0f} jobs/s, django-q2 {q2 / q2_s:.0f} no-ops/s, ratio {ours / ours_s / (q2 / q2_s):.2f} (asked: 2.00)")


if __name__ == "__main__":
    main()
