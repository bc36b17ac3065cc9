"""Warm preference as pure arithmetic: never more than asked, never across a class, never past who waited too long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.placement import LOOK_AHEAD, MAX_BYPASS, Candidate, choose

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def line(*jobs: tuple[int, str, float]) -> list[Candidate]:
    return [Candidate(UUID(int=n), priority, key, NOW - timedelta(seconds=age)) for n, (priority, key, age) in enumerate(jobs)]


jobs = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["", "a", "b"]), st.floats(0, 60)), max_size=40)


@settings(max_examples=60)
@given(jobs=jobs, warm=st.sets(st.sampled_from(["a", "b", "c"])), stored=st.sets(st.sampled_from(["a", "b", "c"])), limit=st.integers(1, 20))
def test_the_choice_keeps_every_promise(jobs: list[tuple[int, str, float]], warm: set[str], stored: set[str], limit: int) -> None:
    candidates = line(*sorted(jobs, key=lambda job: job[0]))
    chosen = choose(candidates, warm=warm, stored=stored, limit=limit, now=NOW)
    by_id = {c.id: c for c in candidates}
    assert len(chosen) == len(set(chosen)) == min(limit, len(candidates))
    classes = [by_id[i].priority for i in chosen]
    assert classes == sorted(classes), "a lower class went before a higher one"
    for position, id_ in enumerate(chosen):
        place = candidates.index(by_id[id_])
        passed = [c for c in candidates[:place] if c.id not in chosen[:position]]
        assert not any(NOW - c.queued_at >= MAX_BYPASS for c in passed), "somebody who waited too long was passed over"
        assert not passed or (place < LOOK_AHEAD and by_id[id_].warm_key in warm | stored), "only a warm job within reach may pass"


def test_a_newcomer_is_not_passed_by_a_batch_that_has_waited() -> None:
    candidates = line((1, "", 0.0), *[(1, "", 300.0)] * 15)
    assert choose(candidates, warm={"a"}, limit=1, now=NOW) == [candidates[0].id]


def test_an_empty_line_gives_nothing() -> None:
    assert choose([], warm={"a"}, limit=3, now=NOW) == []


def test_without_warm_models_the_order_stands() -> None:
    candidates = line(*[(1, "a", 0.0)] * 30)
    assert choose(candidates, warm=(), limit=20, now=NOW) == [c.id for c in candidates[:20]]


def test_loaded_models_come_before_those_on_the_disk_and_these_before_the_rest() -> None:
    candidates = line((1, "", 0.0), (1, "disk", 0.0), (1, "loaded", 0.0))
    chosen = choose(candidates, warm={"loaded"}, stored={"disk"}, limit=3, now=NOW)
    assert chosen == [candidates[2].id, candidates[1].id, candidates[0].id]
