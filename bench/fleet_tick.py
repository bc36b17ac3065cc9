"""What one turn of the autoscaler costs, in seconds: 512 workers, 100,000 queued jobs, and ever more jobs that have ended.

On a PostgreSQL of its own. Asked: at most 1 s, and the same whether ten thousand jobs have ended or two hundred thousand. A turn is
observe, decide, bound, record; nothing is ordered, as the pool is at its maximum. Beside it: the other loops that read the fleet.

    python bench/fleet_tick.py [--queued 100000] [--workers 512] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench.throwaway_postgres import cluster  # noqa: E402

TURNS = 15


def now() -> datetime:
    return datetime.now(UTC)


def prepare(*, queued: int, workers: int) -> tuple[object, object, object, object]:
    """A pool at its maximum: half of its workers busy, and a queue."""
    import factories

    from fleet.models import Job, Worker

    at = now()
    pool = factories.make_pool(now=at, slug=f"pool-{uuid4().hex[:6]}", provider="local", base=0, max=workers)
    workflows = [factories.make_runnable(now=at, pool=pool) for _ in range(10)]
    customer = factories.make_customer(now=at)
    versions = [w.versions.get() for w in workflows]
    Worker.objects.bulk_create(
        [
            Worker(pool=pool, name=f"w{i}", instance=f"{pool.slug}-{i:016x}", state="busy" if i % 2 else "idle", state_since=at, idle_since=None if i % 2 else at,
                   ordered_at=at - timedelta(seconds=120), registered_at=at, ready_at=at, seen_at=at, warm=["a", "b"], price_per_hour_microusd=3_600_000)
            for i in range(workers)
        ],
        batch_size=1000,
    )  # fmt: skip
    for start in range(0, queued, 5000):
        Job.objects.bulk_create(
            [
                Job(customer=customer, plan_revision=customer.plan_revision, workflow=workflows[i % 10], version=versions[i % 10], pool=pool, fair_tag=i + 1,
                    created_at=at - timedelta(seconds=i % 600), queued_at=at - timedelta(seconds=i % 600), quote_microusd=1)
                for i in range(start, min(queued, start + 5000))
            ],
            batch_size=1000,
        )  # fmt: skip
    return pool, customer, workflows[0], versions[0]


def end_jobs(count: int, world: tuple[object, object, object, object]) -> None:
    """So many jobs that ended over the last hours, each with its attempt."""
    from fleet.models import Attempt, Job, Worker

    pool, customer, workflow, version = world
    worker = Worker.objects.filter(pool=pool).first()
    at = now()
    for start in range(0, count, 5000):
        made = Job.objects.bulk_create(
            [
                Job(customer=customer, plan_revision=customer.plan_revision, workflow=workflow, version=version, pool=pool, fair_tag=1, status="succeeded", attempt=1,
                    worker=worker, created_at=at - timedelta(seconds=60 + i % 7200), queued_at=at - timedelta(seconds=60 + i % 7200),
                    started_at=at - timedelta(seconds=60 + i % 7200), finished_at=at - timedelta(seconds=51 + i % 7200),
                    quote_microusd=1, price_microusd=1)
                for i in range(start, min(count, start + 5000))
            ],
            batch_size=1000,
        )  # fmt: skip
        Attempt.objects.bulk_create(
            [Attempt(job=j, number=1, worker=worker, state="succeeded", claimed_at=j.created_at, ended_at=j.created_at + timedelta(seconds=9)) for j in made],
            batch_size=1000,
        )


def turn(pool: object) -> float:
    from fleet import job_times, scaling
    from fleet.models import Pool

    job_times.forget()  # the dearest turn: nothing is remembered
    started = time.perf_counter()
    scaling.step(Pool.objects.get(pk=pool.pk), fence=lambda: None, epoch=1, now=now())
    return time.perf_counter() - started


def median(step: object) -> float:
    return statistics.median(step() for _ in range(TURNS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=512)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with cluster(durable=True) as url:
        os.environ["DATABASE_URL"] = url
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connection

        call_command("migrate", verbosity=0)
        world = prepare(queued=options.queued, workers=options.workers)
        figures: dict[int, float] = {}
        ended = 0
        for total in (10_000, 200_000):
            end_jobs(total - ended, world)
            ended = total
            with connection.cursor() as cursor:
                cursor.execute("VACUUM ANALYZE")
            turn(world[0])
            figures[total] = median(lambda: turn(world[0]))
            print(f"  {total:>7,} jobs ended: {figures[total] * 1000:7.1f} ms a turn ({options.workers} workers, {options.queued:,} queued)")
        ratio = figures[200_000] / figures[10_000]
        print(f"fleet tick: {max(figures.values()):.3f} s (asked: at most 1 s); twenty times the ended jobs cost {ratio:.2f} times as much")
        if options.profile:
            profile = cProfile.Profile()
            profile.runcall(turn, world[0])
            pstats.Stats(profile).sort_stats("cumulative").print_stats(25)
        connection.close()


if __name__ == "__main__":
    main()
