"""Choosing a workflow: no hard requirement is ever missed, the same facts give the same choice, and loosening never loses a match."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.kernel.errors import Invalid
from fleet import choosing
from fleet.choosing import CAPABILITIES, QUALITIES, Facts

FAST = Facts("fast", 3, "text-to-image", seconds=2.0, cost_usd=0.01, success=0.99, quality="draft", source="jobs", runs=500)
FINE = Facts(
    "fine", 1, "text-to-image", seconds=30.0, cost_usd=0.08, success=0.97, quality="highest", capabilities=frozenset({"lora_support"}), source="jobs", runs=40
)
FACES = Facts(
    "faces", 2, "text-to-image", seconds=12.0, cost_usd=0.05, success=1.0, quality="high",
    capabilities=frozenset({"face_consistency", "negative_prompt"}), source="smoke_runs", runs=7,
)  # fmt: skip
NEW = Facts("new", 1, "text-to-image", quality="highest", capabilities=frozenset(name for name, _ in CAPABILITIES.values()))
ALL = [FAST, FINE, FACES, NEW]


@pytest.mark.parametrize(
    ("wanted", "prefer", "order"),
    [
        ({}, "quality", ["fine", "faces", "fast", "new"]),
        ({}, "cost", ["fast", "faces", "fine", "new"]),
        ({}, "speed", ["fast", "faces", "fine", "new"]),
        ({"max_seconds": 15}, "quality", ["faces", "fast"]),
        ({"max_cost": 0.05}, "quality", ["faces", "fast"]),
        ({"max_cost": 0.049}, "quality", ["fast"]),
        ({"min_quality": "high"}, "cost", ["faces", "fine", "new"]),
        ({"face_consistency": True}, "quality", ["faces", "new"]),
        ({"lora": True, "max_seconds": 60}, "quality", ["fine"]),
        ({"min_success": 0.98}, "quality", ["faces", "fast"]),
        ({"face_consistency": True, "max_seconds": 5}, "quality", []),
    ],
)
def test_those_that_fit_in_their_order(wanted, prefer, order):
    assert [one.workflow for one in choosing.choose(ALL, wanted, prefer=prefer).matches] == order


def test_what_was_never_measured_meets_no_figure():
    for name in ("max_cost", "max_seconds", "min_success"):
        (lack,) = choosing.lacks(NEW, {name: 1})
        assert (lack.requirement, lack.has) == (name, None) and "not been measured" in lack.message


def test_on_no_match_the_nearest_comes_first_with_the_figures_it_misses():
    made = choosing.choose(ALL, {"face_consistency": True, "max_seconds": 10})
    assert made.chosen is None and made.why == ()
    assert [r.facts.workflow for r in made.rejected] == ["faces", "fast", "new", "fine"]
    assert made.rejected[0].body() == {
        "workflow": "faces", "version": 2,
        "lacks": [{"requirement": "max_seconds", "wanted": 10, "has": 12.0, "message": "95% of its runs took up to 12 s; 10 s was asked for."}],
    }  # fmt: skip


def test_the_reasons_name_figures_sources_and_the_runner_up():
    why = " ".join(choosing.choose(ALL, {"max_cost": 0.06, "max_seconds": 20, "min_quality": "high", "min_success": 0.9, "negative_prompt": True}).why)
    for part in (
        "$0.0500 on your plan, of $0.0600",
        "12 s, of 20 s",
        "rated high by its operator",
        "100% of its runs",
        "takes a negative prompt",
        "7 of our own test runs, which use the smallest inputs",
    ):
        assert part in why, part
    assert "Of the 4 that fit it comes first: the best rated of those that run reliably; next is faces." in choosing.choose(ALL, {}).why
    assert "Its speed and cost have not been measured yet." in choosing.choose([NEW], {}).why


def test_one_that_takes_the_inputs_comes_before_one_that_does_not():
    made = choosing.choose([replace(FINE, accepts=False), FAST], {})
    assert made.chosen == FAST
    assert "as it takes the inputs you sent" in made.why[-1]


def test_one_that_fails_often_comes_after_one_that_does_not():
    assert choosing.choose([replace(FINE, success=0.5), FAST], {}).chosen == FAST


@pytest.mark.parametrize(
    ("given_", "field"),
    [
        ([], "requirements"), (None, "requirements"), ({"max_cost": "1"}, "requirements.max_cost"), ({"max_cost": -1}, "requirements.max_cost"),
        ({"max_cost": True}, "requirements.max_cost"), ({"max_seconds": 10**400}, "requirements.max_seconds"),
        ({"min_success": 1.1}, "requirements.min_success"),
        ({"min_quality": "best"}, "requirements.min_quality"), ({"min_quality": 3}, "requirements.min_quality"), ({"lora": 1}, "requirements.lora"),
        ({"lora": None}, "requirements.lora"), ({"colour": "red"}, "requirements.colour"), ({"min_quality": []}, "requirements.min_quality"),
    ],
)  # fmt: skip
def test_requirements_are_read_strictly(given_, field):
    with pytest.raises(Invalid) as refused:
        choosing.requirements(given_)
    assert refused.value.details["field"] == field
    if field == "requirements.colour":
        assert refused.value.code == "requirement_unknown"
        assert all(name in refused.value.suggestion for name in choosing.REQUIREMENTS)


def test_a_capability_that_is_false_asks_for_nothing():
    assert choosing.requirements({"lora": False, "seed": True, "max_cost": 0}) == {"seed": True, "max_cost": 0}


figures = st.none() | st.floats(0, 100, allow_nan=False)
facts = st.builds(
    Facts,
    workflow=st.text("abcdef", min_size=1, max_size=6),
    version=st.integers(1, 9),
    task=st.just("image"),
    seconds=figures,
    cost_usd=figures,
    success=st.none() | st.floats(0, 1),
    quality=st.sampled_from(["", "unheard of", *QUALITIES]),
    capabilities=st.frozensets(st.sampled_from([name for name, _ in CAPABILITIES.values()])),
    accepts=st.booleans(),
)
many = st.lists(facts, max_size=8, unique_by=lambda one: one.workflow)
needs = st.fixed_dictionaries(
    {},
    optional={
        "max_cost": st.floats(0, 100, allow_nan=False),
        "max_seconds": st.floats(0, 100, allow_nan=False),
        "min_success": st.floats(0, 1),
        "min_quality": st.sampled_from(QUALITIES),
        **{name: st.just(True) for name in CAPABILITIES},
    },
)
preferences = st.sampled_from(choosing.PREFERENCES)


def keeps(one, wanted):
    """The requirements, said once more and otherwise."""
    yield from (one.cost_usd is not None and one.cost_usd <= v for n, v in wanted.items() if n == "max_cost")
    yield from (one.seconds is not None and one.seconds <= v for n, v in wanted.items() if n == "max_seconds")
    yield from (one.success is not None and one.success >= v for n, v in wanted.items() if n == "min_success")
    yield from (one.quality in QUALITIES[QUALITIES.index(v) :] for n, v in wanted.items() if n == "min_quality")
    yield from (CAPABILITIES[n][0] in one.capabilities for n in wanted if n in CAPABILITIES)


@given(many, needs, preferences)
def test_nothing_that_misses_a_requirement_is_ever_chosen_and_nothing_that_fits_is_turned_away(candidates, wanted, prefer):
    made = choosing.choose(candidates, wanted, prefer=prefer)
    assert all(all(keeps(one, wanted)) for one in made.matches)
    assert not any(all(keeps(one.facts, wanted)) for one in made.rejected)
    assert sorted(f.workflow for f in (*made.matches, *(r.facts for r in made.rejected))) == sorted(f.workflow for f in candidates)
    assert (made.chosen is None) == (not made.matches) and bool(made.why) == bool(made.matches)


@given(many, needs, preferences, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_changes_nothing(candidates, wanted, prefer, random):
    shuffled = candidates[:]
    random.shuffle(shuffled)
    assert choosing.choose(shuffled, wanted, prefer=prefer) == choosing.choose(candidates, wanted, prefer=prefer)


def looser(name, value, share):
    if name in ("max_cost", "max_seconds"):
        return value + share * 50
    if name == "min_success":
        return value * (1 - share)
    return QUALITIES[int(QUALITIES.index(value) * (1 - share))] if name == "min_quality" else True


@given(many, needs, st.floats(0, 1), st.data())
def test_to_loosen_a_requirement_never_loses_a_match(candidates, wanted, share, data):
    tight = {one.workflow for one in choosing.choose(candidates, wanted).matches}
    dropped = data.draw(st.sets(st.sampled_from(sorted(wanted)))) if wanted else set()
    loose = {name: looser(name, value, share) for name, value in wanted.items() if name not in dropped}
    assert tight <= {one.workflow for one in choosing.choose(candidates, loose).matches}


@given(many, needs)
def test_the_nearest_lacks_the_least(candidates, wanted):
    counts = [len(one.lacks) for one in choosing.choose(candidates, wanted).rejected]
    assert counts == sorted(counts)
    assert all(lack.gap <= choosing.FARTHEST for one in choosing.choose(candidates, wanted).rejected for lack in one.lacks)
    assert all(a <= b for a, b in itertools.pairwise(r.distance for r in choosing.choose(candidates, wanted).rejected))
