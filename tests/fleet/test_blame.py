"""A bad worker is found by what works elsewhere, a bad workflow is held against nobody, and luck is seldom taken for guilt."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.kernel.models import AuditEntry
from fleet import blame, ejecting, membership, queue
from fleet.blame import Tried
from fleet.models import Job, Worker
from tests import factories
from tests.fleet.life_world import World


def traffic(
    seed: int, *, workers: int, rates: Sequence[float], jobs: int = 400, bad: int | None = None, bad_rate: float = 1.0, broke: int | None = None
) -> list[Tried]:
    """Jobs handed to whoever is free. From job `broke` on, the first workflow fails everywhere; worker `bad` fails at `bad_rate`."""
    dice = random.Random(seed)
    free, found = [0.0] * workers, []
    for n in range(jobs):
        worker = min(range(workers), key=lambda i: free[i])
        workflow = dice.randrange(len(rates))
        rate = 1.0 if broke is not None and n >= broke and workflow == 0 else rates[workflow]
        failed = dice.random() < (max(rate, bad_rate) if worker == bad else rate)
        free[worker] += dice.uniform(20, 60)
        found.append(Tried(worker, workflow, failed, free[worker], n, dice.randrange(8)))
    return sorted(found, key=lambda t: t.at)


def watch(found: Sequence[Tried], *, every: int = 5) -> tuple[object, int]:
    """Looked at again and again: the first worker blamed, and how many attempts it had made by then."""
    for n in range(10, len(found), every):
        suspects = blame.workers(found[:n][-300:])
        if suspects:
            return suspects[0].who, sum(t.worker == suspects[0].who for t in found[:n])
    return None, 0


@pytest.mark.parametrize(("workers", "within"), [(2, 14), (4, 10), (10, 8)])
def test_a_worker_that_fails_everything_is_found_within_about_ten_attempts(workers: int, within: int) -> None:
    for seed in range(8):
        who, attempts = watch(traffic(seed, workers=workers, rates=(0.01, 0.03, 0.1), bad=0, jobs=workers * 25))
        assert who == 0 and attempts <= within, (seed, who, attempts)


def test_a_worker_that_fails_most_is_found_too() -> None:
    took = [watch(traffic(seed, workers=6, rates=(0.02,), bad=2, bad_rate=0.6, jobs=240)) for seed in range(8)]
    assert {who for who, _ in took} == {2} and max(n for _, n in took) <= 25


def test_luck_is_taken_for_guilt_in_none_of_three_thousand_looks() -> None:
    """40 runs of 400 jobs on ten workers, looked at every five jobs: more than 3,000 looks at ten workers each, nobody bad."""
    blamed = [watch(traffic(seed, workers=10, rates=(0.01, 0.03, 0.1, 0.4)))[0] for seed in range(40)]
    assert blamed == [None] * 40


@pytest.mark.parametrize("rates", [(1.0,), (1.0, 0.02), (0.5, 0.0)])
def test_a_workflow_that_fails_everywhere_ejects_nobody(rates: tuple[float, ...]) -> None:
    for seed in range(10):
        assert watch(traffic(seed, workers=6, rates=rates, jobs=200))[0] is None


def test_a_workflow_that_breaks_is_not_held_against_who_came_since() -> None:
    found = [t for t in traffic(3, workers=6, rates=(0.0, 0.0), broke=150, jobs=300) if t.worker != 0 or t.at > 1000]
    assert watch(found)[0] is None
    assert [s.who for s in blame.workflows(found)] == [0]


def test_a_bad_worker_is_no_bad_workflow() -> None:
    assert blame.workflows(traffic(1, workers=5, rates=(0.01, 0.01), bad=0, jobs=150)) == []


def test_one_customers_burst_of_bad_input_on_a_warm_worker_is_one_fact() -> None:
    calm = [Tried(w, "paint", False, w + 10.0 * n, f"{w}/{n}", "others") for w in range(4) for n in range(20)]
    burst = [Tried(0, "paint", True, 50.0 + n, f"b{n}", "acme") for n in range(15)]
    assert blame.workers([*calm, *burst]) == []
    works_elsewhere = [Tried(1, "paint", False, 60.0 + n, f"c{n}", "acme") for n in range(6)]
    assert [s.who for s in blame.workers([*calm, *burst, *works_elsewhere])] == [0]


def test_a_job_tried_again_and_again_by_one_worker_counts_once() -> None:
    calm = [Tried(w, "paint", False, 10.0 * n + w, f"{w}/{n}") for w in range(1, 5) for n in range(20)]
    assert blame.workers([*calm, *(Tried(0, "paint", True, 30.0 + n, "poison") for n in range(12))]) == []


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.integers(0, 6)), max_size=3))
def test_the_chance_is_that_of_counting_every_way(raw: list[tuple[int, int, int, int]]) -> None:
    tables = [(min(x, tried), tried, failed, tried + other) for x, tried, failed, other in raw]
    tables = [(max(ours, failed - (total - tried)), tried, failed, total) for ours, tried, failed, total in tables if failed <= total]
    tables = [(min(ours, failed, tried), tried, failed, total) for ours, tried, failed, total in tables]
    p = blame.chance(tables)
    assert 0 <= p <= 1 + 1e-9
    if not sum(ours for ours, *_ in tables):
        assert p == pytest.approx(1.0)


def test_the_chance_of_one_table_is_fishers() -> None:
    from scipy.stats import fisher_exact

    for ours, tried, failed, total in [(3, 3, 3, 12), (4, 10, 6, 50), (2, 5, 9, 20), (0, 4, 3, 9)]:
        table = [[ours, tried - ours], [failed - ours, total - tried - failed + ours]]
        assert blame.chance([(ours, tried, failed, total)]) == pytest.approx(fisher_exact(table, alternative="greater").pvalue)


def ran(world: World, worker: Worker, *, failed: bool, failure_class: str = "workflow", at: datetime) -> None:
    """One job of the world's workflow through this worker."""
    job = factories.submit(world.customer, world.workflow, now=at)
    Job.objects.filter(id=job.id).update(max_attempts=1)
    (leased,) = queue.claim(Worker.objects.get(id=worker.id), now=at)
    said = queue.Completion("failed", failure_class=failure_class, error={"code": "node_failed"}) if failed else queue.Completion("succeeded")
    queue.complete(Worker.objects.get(id=worker.id), job_id=leased.job_id, attempt=leased.attempt, completion=said, now=at + timedelta(seconds=1))


def look(world: World) -> list[str]:
    return ejecting.step(world.fresh_pool, provider=world.machines, fence=lambda: None, now=world.now)


def work(world: World, workers: Sequence[Worker], *, bad: Sequence[Worker] = (), rounds: int = 8, failure_class: str = "workflow") -> None:
    for _ in range(rounds):
        for worker in workers:
            world.now += timedelta(seconds=2)
            if Worker.objects.get(id=worker.id).state in Worker.READY:
                ran(world, worker, failed=worker in bad, failure_class=failure_class, at=world.now)
        world.now += timedelta(seconds=1)


@pytest.mark.django_db
def test_a_bad_worker_is_taken_out_and_its_pool_says_why(now: datetime) -> None:
    world = World(now, base=2, max=6)
    workers = [world.worker() for _ in range(4)]
    work(world, workers, bad=workers[:1])
    (said,) = look(world)
    bad = Worker.objects.get(id=workers[0].id)
    assert bad.state == "faulted" and "It failed 8 of 8 jobs; other workers failed 0 of 24" in bad.stop_message and bad.name in said
    entry = AuditEntry.objects.get(action="worker.fault")
    assert (entry.actor, entry.reason) == ("blame", bad.stop_message)
    assert look(world) == []  # one is enough for a pool of four
    membership.uncordon(bad, actor="olga", reason="the card was loose", now=world.now)
    assert look(world) == [] and Worker.objects.get(id=bad.id).state == "idle"  # what it did before is forgiven


@pytest.mark.django_db
def test_no_more_than_a_tenth_of_a_pool_is_taken_out(now: datetime) -> None:
    world = World(now, base=0, max=20)
    workers = [world.worker() for _ in range(20)]
    work(world, workers, bad=workers[:4], rounds=7)
    for _ in range(3):
        look(world)
    assert Worker.objects.filter(state="faulted").count() == 2
    assert set(Worker.objects.filter(state="faulted").values_list("id", flat=True)) <= {w.id for w in workers[:4]}


@pytest.mark.django_db
def test_a_pool_at_its_base_has_the_bad_worker_replaced_first(now: datetime) -> None:
    world = World(now, base=3, max=3)
    workers = [world.worker() for _ in range(3)]
    work(world, workers, bad=workers[:1], rounds=9)
    assert "is replaced" in look(world)[0] and look(world) == []
    least = 3
    for _ in range(6):
        world.tick()
        least = min(least, len(world.live("idle", "busy")))
    assert least == 3 and Worker.objects.get(id=workers[0].id).state in ("draining", "stopped")
    assert Worker.objects.filter(state="idle").count() == 3


@pytest.mark.django_db
@pytest.mark.parametrize("failure_class", ["workflow", "platform"])
def test_a_workflow_that_fails_on_every_worker_takes_out_none(now: datetime, failure_class: str) -> None:
    world = World(now, base=0, max=6)
    workers = [world.worker() for _ in range(4)]
    work(world, workers, bad=workers, failure_class=failure_class)
    assert look(world) == [] and not Worker.objects.filter(state="faulted").exists()


@pytest.mark.django_db
def test_what_customers_and_the_outside_world_break_counts_against_nobody(now: datetime) -> None:
    for failure_class in ("customer_input", "external"):
        world = World(now, base=0, max=6)
        workers = [world.worker() for _ in range(4)]
        work(world, workers, bad=workers[:1], failure_class=failure_class)
        assert look(world) == []


@pytest.mark.django_db
def test_judging_costs_two_statements_while_nothing_fails(now: datetime, django_assert_num_queries: object) -> None:
    world = World(now)
    work(world, [world.worker() for _ in range(3)], rounds=3)
    pool = world.fresh_pool
    with django_assert_num_queries(2):  # type: ignore[operator]
        ejecting.step(pool, provider=world.machines, fence=lambda: None, now=world.now)
