"""Progress and node timings: pure, from any order of events."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.agent.progress import CEILING, Progress, needed_nodes
from fleet.agent.timings import NodeClock

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {}},
    "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
    "9": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
}

nodes = st.sampled_from(["1", "2", "3", "9", "7:3", "", None])
number = st.one_of(st.none(), st.integers(-5, 50), st.floats(allow_nan=True, allow_infinity=True), st.text(max_size=2))
state = st.fixed_dictionaries({"value": number, "max": number, "state": st.sampled_from(["running", "finished", "pending", "error"])})
event = st.one_of(
    st.tuples(st.just("execution_cached"), st.fixed_dictionaries({"nodes": st.lists(nodes)})),
    st.tuples(st.just("executing"), st.fixed_dictionaries({"node": nodes})),
    st.tuples(st.just("executed"), st.fixed_dictionaries({"node": nodes})),
    st.tuples(st.just("progress"), st.fixed_dictionaries({"node": nodes, "value": number, "max": number})),
    st.tuples(st.just("progress_state"), st.fixed_dictionaries({"nodes": st.dictionaries(st.sampled_from(["1", "2", "3", "7:3"]), state)})),
    st.tuples(st.just("execution_start"), st.just({})),
)
weights = st.dictionaries(st.sampled_from(["1", "2", "3", "nope"]), st.floats(0, 1e6))


@given(st.lists(event, max_size=30), weights)
def test_progress_never_goes_back_and_reaches_one_only_at_the_end(events, weight):
    progress = Progress(GRAPH, weight)
    last = 0.0
    for kind, data in events:
        progress.event(kind, data)
        assert last <= progress.fraction <= CEILING
        last = progress.fraction
    progress.finish()
    assert progress.fraction == 1.0


@given(st.lists(event, max_size=30), weights)
def test_the_fraction_is_the_weighted_share_of_what_each_node_has_reached(events, weight):
    progress = Progress(GRAPH, weight)
    for kind, data in events:
        progress.event(kind, data)
    reached = math.fsum(progress._weights[node] * share for node, share in progress._shares.items())
    assert progress.fraction == pytest.approx(min(reached / progress._total, CEILING), abs=1e-9)


def test_a_state_of_all_nodes_costs_what_its_nodes_cost_and_not_their_square():
    def calls(n: int) -> int:
        progress = Progress({str(i): {"class_type": "X", "inputs": {}} for i in range(n)})
        counted = 0

        def count(frame, what, _):
            nonlocal counted
            counted += 1
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            progress.event("progress_state", {"nodes": {str(i): {"state": "finished", "value": 1, "max": 1} for i in range(n)}})
        finally:
            sys.settrace(before)
        return counted

    assert calls(400) < 5 * calls(100)


@given(st.lists(event, max_size=30))
def test_node_times_are_never_negative_for_any_order_of_events(events):
    clock = NodeClock(GRAPH)
    for tick, (kind, data) in enumerate(events):
        clock.event(kind, data, float(tick))
    clock.end(float(len(events)))
    assert all(row["run_s"] >= 0 and row["start_s"] >= 0 for row in clock.rows())


def test_a_node_counts_for_its_measured_seconds():
    progress = Progress(GRAPH, {"1": 1.0, "2": 8.0, "3": 1.0}, {"SaveImage"})
    progress.event("progress_state", {"nodes": {"1": {"state": "finished", "value": 1, "max": 1}}})
    assert progress.fraction == 0.1
    progress.event("progress_state", {"nodes": {"2": {"state": "running", "value": 4, "max": 8}}})
    assert progress.fraction == 0.5


def test_cached_nodes_count_as_done():
    progress = Progress(GRAPH, {}, {"SaveImage"})
    progress.event("execution_cached", {"nodes": ["1", "2"]})
    assert round(progress.fraction, 3) == 0.667


def test_a_server_without_progress_state_ends_a_node_by_starting_the_next():
    progress = Progress(GRAPH, {}, {"SaveImage"})
    progress.event("executing", {"node": "1"})
    progress.event("executing", {"node": "2"})
    assert round(progress.fraction, 3) == 0.333


def test_nodes_no_output_needs_do_not_count():
    assert needed_nodes(GRAPH, {"SaveImage"}) == {"1", "2", "3"}
    assert needed_nodes(GRAPH, ()) == set(GRAPH)


def test_an_output_graph_with_a_loop_ends():
    loop = {"1": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}}, "2": {"class_type": "X", "inputs": {"a": ["1", 0]}}}
    assert needed_nodes(loop, {"SaveImage"}) == {"1", "2"}


def test_node_times_come_from_the_agents_clock():
    clock = NodeClock(GRAPH)
    for kind, data, now in [
        ("execution_start", {}, 10.0),
        ("execution_cached", {"nodes": ["1"]}, 10.0),
        ("executing", {"node": "2"}, 10.5),
        ("executing", {"node": "3"}, 12.5),
        ("execution_success", {}, 13.0),
        ("executing", {"node": None}, 14.0),
    ]:
        clock.event(kind, data, now)
    assert {r["node"]: (r["start_s"], r["run_s"], r["cached"]) for r in clock.rows()} == {
        "1": (0.0, 0.0, True),
        "2": (0.5, 2.0, False),
        "3": (2.5, 0.5, False),
    }
    assert clock.run_s == 3.0
