"""The job machine under every interleaving: claims, heartbeats, lease expiry, duplicate and stale completions, cancels, deadlines.

Whatever the order, no job is lost, none is billed twice, no customer holds a reservation for a job that is over.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import factories
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule, run_state_machine_as_test

from billing.models import Account, UsageEntry
from controlplane.kernel.errors import Conflict, WorkflowError
from fleet import estimates, membership, queue, reconcile
from fleet.models import Attempt, Job, Worker

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class JobMachine(RuleBasedStateMachine):
    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        from django.db import connection

        connection.cursor().execute("SELECT 1")
        self.now = START
        self.pool = factories.make_pool(now=self.now)
        self.workflow = factories.make_runnable(now=self.now, pool=self.pool)
        self.customers = [
            factories.make_customer(now=self.now),
            factories.make_customer(now=self.now, plan=factories.make_plan(now=self.now, max_active_jobs=3)),
        ]
        self.workers = [factories.make_worker(self.pool, now=self.now) for _ in range(3)]
        self.admitted: list[Any] = []
        self.ended: dict[Any, tuple[str, Any]] = {}

    @rule(who=st.integers(0, 1), priority=st.sampled_from(["low", "normal", "high"]), deadline_s=st.sampled_from([None, None, 5.0, 40.0]))
    def submit(self, who: int, priority: str, deadline_s: float | None) -> None:
        try:
            self.admitted.append(factories.submit(self.customers[who], self.workflow, now=self.now, priority=priority, deadline_s=deadline_s).id)
        except WorkflowError as error:
            assert error.code == "active_jobs_limit"

    @rule(target=leases, who=st.integers(0, 2), limit=st.integers(1, 3), warm=st.booleans())
    def claim(self, who: int, limit: int, warm: bool) -> Any:
        worker = Worker.objects.get(id=self.workers[who].id)
        leased = queue.claim(worker, limit=limit, warm=["x"] if warm else [], now=self.now)
        return multiple(*((worker, a.job_id, a.attempt) for a in leased))

    @rule(lease=leases, progress=st.floats(0, 1))
    def heartbeat(self, lease: Any, progress: float) -> None:
        worker, job_id, attempt = lease
        before = Job.objects.get(id=job_id)
        (verdict,) = queue.heartbeat(worker, state="busy", reports=[queue.Report(job_id, attempt, progress, "1")], now=self.now)
        holds = before.status == "running" and before.attempt == attempt and before.worker_id == worker.id
        assert (verdict.verdict != "lost") == holds
        assert Job.objects.get(id=job_id).progress >= (before.progress if holds else 0)

    @rule(
        lease=leases,
        outcome=st.sampled_from(["succeeded", "failed:workflow", "failed:platform", "failed:capacity", "failed:customer_input", "canceled:"]),
        again=st.booleans(),
    )
    def complete(self, lease: Any, outcome: str, again: bool) -> None:
        worker, job_id, attempt = lease
        status, _, failure_class = outcome.partition(":")
        completion = queue.Completion(
            outcome=status,
            failure_class=failure_class,
            error={"code": "x", "message": "", "suggestion": ""} if failure_class else None,
            timings={"busy_s": 1.5},
        )
        before = Job.objects.get(id=job_id)
        holds = before.status == "running" and before.attempt == attempt and before.worker_id == worker.id
        for turn in range(2 if again else 1):
            try:
                accepted = queue.complete(worker, job_id=job_id, attempt=attempt, completion=completion, now=self.now)
                assert accepted == (holds and turn == 0), "accepted from somebody who does not hold this attempt"
            except Conflict as error:
                assert not (holds and turn == 0), "refused, though it holds the attempt"
                assert error.code == "attempt_stale"
                after = Job.objects.get(id=job_id)
                if not holds:
                    assert (after.status, after.revision) == (before.status, before.revision), "a stale report changed the job"

    @rule(target=leases, lease=leases, outcome=st.sampled_from(["succeeded", "failed:platform", "canceled:"]))
    def claim_again_and_report_the_old_attempt(self, lease: Any, outcome: str) -> Any:
        """A worker that was silent too long gets the very job back, and its old report arrives after all."""
        worker, job_id, attempt = lease
        job = Job.objects.get(id=job_id)
        if job.status != "running" or job.attempt != attempt or job.worker_id != worker.id:
            return multiple()
        self.now = max(self.now, job.lease_until) + timedelta(seconds=1)
        queue.expire_leases(now=self.now)
        leased = queue.claim(Worker.objects.get(id=worker.id), limit=3, now=self.now)
        for status, failure_class in [outcome.partition(":")[::2]]:
            before = Job.objects.get(id=job_id)
            with contextlib.suppress(Conflict):
                completion = queue.Completion(outcome=status, failure_class=failure_class, timings={"busy_s": 0.5})
                assert not queue.complete(worker, job_id=job_id, attempt=attempt, completion=completion, now=self.now), "an old attempt was believed"
            after = Job.objects.get(id=job_id)
            assert (after.status, after.attempt, after.revision) == (before.status, before.attempt, before.revision)
        return multiple(*((worker, a.job_id, a.attempt) for a in leased))

    @rule(lease=consumes(leases))
    def vanish(self, lease: Any) -> None:
        """The worker forgets the job: nothing is ever heard of it again."""

    @rule(index=st.integers(0, 50))
    def cancel(self, index: int) -> None:
        if self.admitted:
            job_id = self.admitted[index % len(self.admitted)]
            try:
                queue.cancel(job_id=job_id, now=self.now)
            except Conflict as error:
                assert error.code == "job_finished"

    @rule(seconds=st.sampled_from([0.5, 3, 10, 20, 60]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def loops_run(self) -> None:
        queue.expire_leases(now=self.now)
        queue.expire_deadlines(now=self.now)

    @rule(who=st.integers(0, 2))
    def worker_leaves(self, who: int) -> None:
        membership.stopped(self.workers[who], reason="crash", now=self.now)
        assert not Job.objects.filter(worker=self.workers[who], status="running").exists()
        self.workers[who] = factories.make_worker(self.pool, now=self.now)

    @invariant()
    def books_add_up(self) -> None:
        if not hasattr(self, "admitted"):
            return
        found = reconcile.drift(now=self.now)
        assert found.total == 0, found
        jobs = list(Job.objects.filter(id__in=self.admitted).only("id", "status", "price_microusd"))
        assert len(jobs) == len(self.admitted), "a job was lost"
        lines = Counter(UsageEntry.objects.filter(job_id__in=self.admitted).values_list("job_id", flat=True))
        tries = Counter(Attempt.objects.filter(job_id__in=self.admitted, state="running").values_list("job_id", flat=True))
        for job in jobs:
            end = (job.status, job.price_microusd)
            if job.id in self.ended:
                assert self.ended[job.id] == end, "a terminal job changed"
            elif job.is_terminal:
                self.ended[job.id] = end
            assert lines[job.id] == (2 if job.is_terminal else 0)
            assert tries[job.id] == (1 if job.status == "running" else 0)

    def teardown(self) -> None:
        """Everything ends: whoever is left is lost, every queued job is tried until nothing may be tried again."""
        if not hasattr(self, "admitted"):
            return
        for _ in range(10):
            self.now += timedelta(seconds=120)
            queue.expire_leases(now=self.now)
            queue.expire_deadlines(now=self.now)
            last = factories.make_worker(self.pool, now=self.now)
            while queue.claim(last, limit=3, now=self.now):
                pass
        assert not Job.objects.filter(id__in=self.admitted).exclude(status__in=Job.TERMINAL).exists()
        self.books_add_up()
        for account in Account.objects.filter(customer__in=self.customers):
            assert (account.reserved_microusd, account.active_jobs) == (0, 0)


@pytest.mark.django_db
def test_no_interleaving_of_faults_loses_a_job_or_bills_it_twice() -> None:
    from django.db import transaction

    class Isolated(JobMachine):
        def __init__(self) -> None:
            estimates.forget()
            self.savepoint = transaction.savepoint()
            super().__init__()

        def teardown(self) -> None:
            try:
                super().teardown()
            finally:
                transaction.savepoint_rollback(self.savepoint)

    run_state_machine_as_test(
        Isolated, settings=settings(max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
    )
