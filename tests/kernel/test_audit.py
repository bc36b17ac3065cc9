from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from controlplane.kernel import audit
from controlplane.kernel.appendonly import create_sql, drop_sql
from controlplane.kernel.models import AuditEntry, AuditHead

pytestmark = pytest.mark.django_db


def write(now: datetime, action: str = "plan.changed", **extra) -> AuditEntry:
    return audit.record(actor="ops:ada", action=action, object_type="plan", object_id="pro", now=now, **extra)


def tamper(sql: str, *values: object) -> None:
    """Change the trail as somebody with the database password could."""
    with connection.cursor() as cursor:
        for statement in drop_sql(connection.vendor, "kernel_auditentry"):
            cursor.execute(statement)
        cursor.execute(sql, values)
        for statement in create_sql(connection.vendor, "kernel_auditentry"):
            cursor.execute(statement)


def test_an_empty_trail_is_intact() -> None:
    assert audit.verify() == audit.Verdict(0)


def test_entries_follow_from_each_other(now) -> None:
    first, second = write(now), write(now + timedelta(seconds=1), before={"price": 1}, after={"price": 2.5}, reason="renewal")
    assert (first.seq, second.seq) == (1, 2)
    assert first.prev_hash == audit.GENESIS and second.prev_hash == first.hash
    assert audit.verify(batch=1) == audit.Verdict(2)
    assert audit.verify(since=1).intact


@pytest.mark.parametrize("verb", ["UPDATE kernel_auditentry SET actor = 'x'", "DELETE FROM kernel_auditentry"])
def test_the_database_refuses_to_change_the_trail(now, verb: str) -> None:
    write(now)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(verb)
    assert audit.verify().intact


@pytest.mark.parametrize(
    ("sql", "broken_at", "why"),
    [
        ("UPDATE kernel_auditentry SET actor = 'somebody' WHERE seq = 2", 2, "its content is not what was recorded"),
        ("UPDATE kernel_auditentry SET prev_hash = hash WHERE seq = 3", 3, "it does not follow from the entry before it"),
        ("DELETE FROM kernel_auditentry WHERE seq = 2", 2, "the entry is missing"),
        ("DELETE FROM kernel_auditentry WHERE seq = 4", 4, "the chain ends before its head"),
        ("UPDATE kernel_audithead SET hash = 'x'", 4, "the head names another last entry"),
        ("UPDATE kernel_audithead SET seq = 3, hash = (SELECT hash FROM kernel_auditentry WHERE seq = 3)", 4, "an entry lies beyond the head"),
    ],
)
def test_the_first_broken_link_is_named(now, sql: str, broken_at: int, why: str) -> None:
    for _ in range(4):
        write(now)
    tamper(sql)
    verdict = audit.verify(batch=2)
    assert (verdict.intact, verdict.broken_at, verdict.why) == (False, broken_at, why)
    with pytest.raises(CommandError, match=f"broken at entry {broken_at}"):
        call_command("verify_audit")


def test_the_command_says_how_many_entries_hold(now) -> None:
    write(now)
    out = StringIO()
    call_command("verify_audit", stdout=out)
    assert out.getvalue() == "The audit trail is intact: 1 entries.\n"


def test_an_entry_of_a_rolled_back_change_was_never_written(now) -> None:
    write(now)
    with pytest.raises(RuntimeError), transaction.atomic():
        write(now)
        raise RuntimeError
    write(now)
    assert list(AuditEntry.objects.order_by("seq").values_list("seq", flat=True)) == [1, 2]
    assert audit.verify().intact


def test_values_no_column_takes_as_they_are_still_make_a_valid_entry(now) -> None:
    east = timezone(timedelta(hours=5))
    entry = write(
        now.astimezone(east),
        reason="r" * 900 + "\0",
        before={"n": float("nan"), "big": 1e16, "zero": -0.0, "at": now, "text": "a\0b\ud800", "slash": "\\u0000"},
        after={"nested": [{"x": 0.1}, None, True]},
    )
    assert len(entry.reason) == 500
    assert AuditEntry.objects.get().before["slash"] == "\\u0000"
    assert audit.verify() == audit.Verdict(1)


def test_a_commitment_hides_the_value_and_can_be_checked_by_who_knows_it(settings) -> None:
    made = audit.commitment("ada@example.com")
    assert made == audit.commitment("ada@example.com") != audit.commitment("bob@example.com")
    assert "ada" not in made and len(made) == len("commit:") + 64
    settings.SECRET_KEY = "another"
    assert audit.commitment("ada@example.com") != made


def test_a_database_without_its_head_row_starts_one(now) -> None:
    AuditHead.objects.all().delete()
    write(now)
    assert audit.verify() == audit.Verdict(1)


_leaf = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text()
_json = st.recursive(_leaf, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


class AnyContent(TestCase):
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(before=st.dictionaries(st.text(), _json, max_size=4), text=st.text())
    def test_any_content_reads_back_as_it_was_hashed(self, before: dict, text: str) -> None:
        write(datetime.fromisoformat("2026-03-02T12:00:00.000001+00:00"), action=text, before=before)
        verdict = audit.verify()
        assert verdict.intact, verdict


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("again", [1, 2])  # the second run starts on an emptied, still append-only table
def test_writers_at_once_make_one_chain(now, again: int) -> None:
    def several() -> None:
        try:
            for _ in range(5):
                write(now)
        finally:
            connection.close()

    threads = [threading.Thread(target=several) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert audit.verify() == audit.Verdict(20)
    with pytest.raises(DatabaseError, match="append-only"):
        AuditEntry.objects.all().delete()
