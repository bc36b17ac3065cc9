"""The table of a worker's moves, and that what an agent says never leaves it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet import worker_states
from fleet.models import Worker
from fleet.worker_states import ALLOWED, IllegalMove, check, reported

STATES = st.sampled_from(list(ALLOWED))
SAID = st.one_of(st.sampled_from([*ALLOWED, "", "on fire"]), st.text(max_size=20))


def test_the_table_names_every_state_the_model_knows() -> None:
    assert set(ALLOWED) == set(Worker.State.values)
    assert {state for state, following in ALLOWED.items() if not following} == set(Worker.GONE)


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        ("ordered", "starting", True),
        ("ordered", "busy", False),
        ("starting", "loading", True),
        ("loading", "starting", True),
        ("starting", "busy", True),
        ("idle", "faulted", True),
        ("faulted", "busy", False),
        ("faulted", "idle", True),
        ("faulted", "draining", True),
        ("draining", "idle", False),
        ("draining", "faulted", False),
        ("stopped", "starting", False),
        ("lost", "idle", False),
    ],
)
def test_what_may_follow_what(before: str, after: str, allowed: bool) -> None:
    assert (after in ALLOWED[before]) is allowed
    if allowed:
        check(before, after)
    else:
        with pytest.raises(IllegalMove):
            check(before, after)


@pytest.mark.parametrize("state", [s for s in ALLOWED if s not in Worker.GONE])
def test_every_living_worker_can_end(state: str) -> None:
    assert {"stopped", "lost"} <= ALLOWED[state]


@given(now_is=STATES, said=SAID, warming=st.booleans())
def test_an_agents_word_moves_it_only_along_the_table(now_is: str, said: str, warming: bool) -> None:
    after = reported(said, warming=warming, now_is=now_is)
    check(now_is, after)
    if now_is in ("ordered", "draining", "faulted", "stopped", "lost"):
        assert after in (now_is, "draining")
    if now_is in ("faulted", "stopped", "lost", "draining"):
        assert after == now_is  # what was decided here is not undone by an agent's word


@given(words=st.lists(st.tuples(SAID, st.booleans()), max_size=30))
def test_no_sequence_of_words_takes_a_worker_out_or_ends_it(words: list[tuple[str, bool]]) -> None:
    state = "starting"
    for said, warming in words:
        state = reported(said, warming=warming, now_is=state)
        assert state in ("starting", "loading", "idle", "busy", "draining")


def test_the_states_before_a_state_are_the_column_of_the_table() -> None:
    assert worker_states.before("faulted") == ("ordered", "starting", "loading", "idle", "busy")
    assert "faulted" in worker_states.before("draining") and "draining" not in worker_states.before("draining")


def test_a_warm_up_shows_as_loading_and_only_while_it_runs() -> None:
    assert reported("starting", warming=True, now_is="starting") == "loading"
    assert reported("starting", warming=False, now_is="loading") == "starting"
    assert reported("idle", warming=True, now_is="loading") == "idle"
