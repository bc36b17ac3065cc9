"""The verdict on the API: what may refuse a call that was good before is breaking, and every input says why."""

from __future__ import annotations

from typing import Any

import pytest
from graph_strategies import content
from hypothesis import given
from hypothesis import strategies as st

from builds.comparing import diff
from builds.comparing.schemas import UNCHANGED
from builds.comparing.telling import summary
from builds.exposed import ExposedInput
from builds.validation import Fault, compile_field

GRAPH = {"1": {"class_type": "X", "inputs": {"n": 1, "t": "x", "c": "a", "m": 2}}, "2": {"class_type": "Y", "inputs": {"n": 1}}}
N: dict[str, Any] = {"name": "n", "node": "1", "input": "n", "type": "integer", "default": 5, "minimum": 0, "maximum": 10, "title": "N"}
C: dict[str, Any] = {"name": "c", "node": "1", "input": "c", "type": "string", "default": "a", "enum": ["a", "b"]}
T: dict[str, Any] = {"name": "t", "node": "1", "input": "t", "type": "string", "default": "x", "max_length": 50}


def compare(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> Any:
    return diff(content(GRAPH, inputs=a), content(GRAPH, inputs=b))


@pytest.mark.parametrize(
    ("before", "after", "verdict", "codes"),
    [
        ([N], [N], "unchanged", []),
        ([N], [N, T], "compatible", ["input_added"]),
        ([N], [N, {**T, "default": None, "required": True}], "breaking", ["input_added_required"]),
        ([N, T], [N], "breaking", ["input_removed"]),
        ([N], [{**N, "name": "m"}], "breaking", ["input_renamed"]),
        ([N], [{**N, "type": "string", "minimum": None, "maximum": None, "default": "5"}], "breaking", ["type_changed"]),
        ([N], [{**N, "type": "number"}], "compatible", ["type_widened"]),
        ([{**T, "default": None}], [{**T, "kind": "image", "default": None}], "breaking", ["type_changed"]),
        ([N], [{**N, "minimum": 1}], "breaking", ["range_narrowed"]),
        ([N], [{**N, "maximum": 9}], "breaking", ["range_narrowed"]),
        ([{**N, "maximum": None}], [N], "breaking", ["range_narrowed"]),
        ([N], [{**N, "maximum": 11, "minimum": None}], "compatible", ["range_widened", "range_widened"]),
        ([T], [{**T, "max_length": 49}], "breaking", ["range_narrowed"]),
        ([T], [{**T, "max_length": None}], "compatible", ["range_widened"]),
        ([C], [{**C, "enum": ["a"]}], "breaking", ["choice_removed"]),
        ([C], [{**C, "enum": ["a", "b", "c"]}], "compatible", ["choice_added"]),
        ([{**C, "enum": None}], [C], "breaking", ["became_choice"]),
        ([C], [{**C, "enum": None}], "compatible", ["choice_opened"]),
        ([N], [{**N, "default": 6}], "compatible", ["default_changed"]),
        ([N], [{**N, "default": None, "required": True}], "breaking", ["became_required", "default_changed"]),
        ([{**N, "default": None, "required": True}], [N], "compatible", ["became_optional", "default_changed"]),
        ([N], [{**N, "randomize": True}], "compatible", ["randomize_changed"]),
        ([N], [{**N, "node": "2"}], "compatible", ["input_moved"]),
        ([N], [{**N, "title": "Number"}], "unchanged", ["wording_changed"]),
        ([N, T], [T, N], "unchanged", []),
        ([{**N, "step": 2, "default": 4}], [{**N, "step": 4, "default": 4, "minimum": 0}], "breaking", ["step_changed"]),
        ([{**N, "step": 4, "default": 4}], [{**N, "step": 2, "default": 4}], "compatible", ["step_changed"]),
    ],
)
def test_every_kind_of_change_has_its_verdict_and_reason(before: Any, after: Any, verdict: str, codes: list[str]) -> None:
    found = compare(before, after)
    assert (found.api, [reason.code for reason in found.reasons]) == (verdict, codes)
    assert all(reason.message.endswith(".") and reason.input for reason in found.reasons)


def test_the_sentence_begins_with_the_verdict() -> None:
    assert summary(compare([N], [])).startswith("API breaking; ")
    assert summary(compare([N], [{**N, "default": 6}])) == "API compatible; inputs differ."


numbers = st.builds(
    lambda low, size, default, kind, required: {
        **N, "type": kind, "minimum": low, "maximum": None if low is None else low + size,
        "default": None if required else (low or 0) + min(default, size), "required": required,
    },
    st.one_of(st.none(), st.integers(-5, 5)), st.integers(0, 9), st.integers(0, 9), st.sampled_from(["integer", "number"]), st.booleans(),
)  # fmt: skip
choices = st.lists(st.sampled_from(["a", "b", "c", 1, True]), min_size=1, unique_by=repr).map(lambda enum: {**C, "enum": enum, "default": enum[0]})
values = st.one_of(st.integers(-20, 20), st.floats(-20, 20), st.sampled_from(["a", "b", "c", "z", True, 1]))


@given(st.one_of(numbers, choices), st.one_of(numbers, choices), values)
def test_a_change_that_is_not_called_breaking_refuses_no_value_that_was_good(a: dict[str, Any], b: dict[str, Any], value: Any) -> None:
    a, b = {**a, "name": "n"}, {**b, "name": "n"}
    old, new = ExposedInput.load(a), ExposedInput.load(b)
    if compare([a], [b]).api == "breaking" or not takes(old, value):
        return
    assert takes(new, value)


@given(numbers, numbers)
def test_unchanged_is_the_same_both_ways(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert (compare([a], [b]).api == UNCHANGED) == (compare([b], [a]).api == UNCHANGED)


def takes(one: ExposedInput, value: Any) -> bool:
    try:
        compile_field(one)(value)
    except Fault:
        return False
    return True
