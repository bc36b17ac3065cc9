from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection, transaction

from controlplane.kernel import outbox
from controlplane.kernel.models import OutboxEntry

pytestmark = pytest.mark.django_db


def fill(n: int, now, topic: str = "webhook") -> None:
    for i in range(n):
        outbox.put(topic=topic, key=f"job-{i:03}", payload={"n": i}, now=now + timedelta(milliseconds=i))


def take(now, limit: int = 10) -> list[OutboxEntry]:
    return outbox.claim(topic="webhook", limit=limit, now=now, hold_s=30)


def test_the_same_key_is_put_once(now) -> None:
    outbox.put(topic="webhook", key="a", payload={"first": True}, now=now)
    outbox.put(topic="webhook", key="a", payload={"first": False}, now=now)
    outbox.put(topic="mail", key="a", payload={}, now=now)
    assert OutboxEntry.objects.get(topic="webhook").payload == {"first": True}


def test_a_message_of_a_rolled_back_change_is_never_told(now) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        outbox.put(topic="webhook", key="a", payload={}, now=now)
        raise RuntimeError
    assert take(now) == []


def test_a_repeated_put_does_not_spoil_the_transaction_around_it(now) -> None:
    with transaction.atomic():
        outbox.put(topic="webhook", key="a", payload={}, now=now)
        outbox.put(topic="webhook", key="a", payload={}, now=now)
        outbox.put(topic="webhook", key="b", payload={}, now=now)
    assert outbox.counts() == {"webhook": {"pending": 2, "done": 0, "dead": 0}}


def test_entries_come_longest_due_first_and_are_hidden_while_held(now) -> None:
    fill(3, now)
    later = now + timedelta(seconds=1)
    assert [entry.payload["n"] for entry in take(later, limit=2)] == [0, 1]
    assert [entry.payload["n"] for entry in take(later)] == [2]
    assert take(later) == []
    assert [entry.attempts for entry in take(later + timedelta(seconds=30))] == [2, 2, 2], "whoever held them died"


def test_an_entry_waits_until_it_is_due(now) -> None:
    outbox.put(topic="webhook", key="a", payload={}, now=now, due_at=now + timedelta(minutes=1))
    assert take(now) == [] and len(take(now + timedelta(minutes=1))) == 1


def test_done_retry_and_dead_settle_an_entry(now) -> None:
    fill(3, now)
    first, second, third = take(now + timedelta(seconds=1))
    assert (
        outbox.done(first, now=now) and outbox.retry(second, delay_s=5, error="503 " + "x" * 900 + "\0", now=now) and outbox.dead(third, error="410", now=now)
    )
    assert outbox.counts() == {"webhook": {"pending": 1, "done": 1, "dead": 1}}
    assert take(now + timedelta(seconds=4.9)) == []
    (again,) = take(now + timedelta(seconds=5))
    assert (again.id, again.attempts, len(again.last_error)) == (second.id, 2, 500)
    first.refresh_from_db()
    assert (first.state, first.ended_at) == ("done", now)


def test_a_claim_that_was_taken_over_settles_nothing(now) -> None:
    fill(1, now)
    (slow,) = take(now)
    (quick,) = take(now + timedelta(seconds=31))
    assert not outbox.dead(slow, error="late", now=now) and not outbox.retry(slow, delay_s=1, error="late", now=now)
    assert outbox.done(quick, now=now)
    assert not outbox.done(slow, now=now)
    assert OutboxEntry.objects.get().state == "done"


def test_an_ended_entry_can_be_told_again(now) -> None:
    fill(1, now)
    (entry,) = take(now)
    outbox.dead(entry, error="410", now=now)
    assert outbox.again(entry_id=entry.id, now=now)
    (fresh,) = take(now)
    assert (fresh.id, fresh.attempts, fresh.ended_at) == (entry.id, 2, None)
    assert not outbox.again(entry_id=entry.__class__().id, now=now)


@pytest.mark.django_db(transaction=True)
def test_many_claimers_at_once_share_the_entries_without_overlap(now) -> None:
    fill(40, now)
    got: Counter[str] = Counter()
    later = now + timedelta(seconds=1)

    def drain() -> None:
        try:
            while entries := take(later, limit=3):
                for entry in entries:
                    got[entry.key] += 1
                    outbox.done(entry, now=later)
        finally:
            connection.close()

    threads = [threading.Thread(target=drain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == 40 and set(got.values()) == {1}


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("connection.vendor == 'sqlite'")
def test_an_entry_another_process_is_claiming_is_skipped_not_waited_for(now) -> None:
    fill(2, now)
    later = now + timedelta(seconds=1)
    found: list[list[int]] = []

    def other() -> None:
        try:
            found.append([entry.payload["n"] for entry in take(later, limit=1)])
        finally:
            connection.close()

    with transaction.atomic():
        assert [entry.payload["n"] for entry in take(later, limit=1)] == [0]
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(10)
    assert found == [[1]]
