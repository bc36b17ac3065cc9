"""Order, cache, queue, history, jobs and memory, without a server."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import fleet.engine.nodes  # noqa: F401
from fleet.engine import jobs
from fleet.engine.cache import Cache, Entry, signatures
from fleet.engine.faults import Faults, UnknownFault, parse
from fleet.engine.history import History
from fleet.engine.memory import MemoryBudget
from fleet.engine.order import Plan
from fleet.engine.queue import AmbiguousOrder, Queue, Queued


def order_of(sources: dict[str, list[str]], outputs: list[str], cached: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    plan = Plan(sources, outputs, is_terminal=lambda node_id: node_id in outputs, is_cached=lambda node_id: node_id in cached)
    found: list[str] = []
    while plan:
        found.append(plan.pick())
        plan.done(found[-1])
    return found


BLEND = {"1": [], "2": [], "3": ["1", "2"], "4": ["3"], "5": ["3"], "6": ["4"]}
SAMPLE = {"1": [], "2": [], "3": [], "4": ["1", "2", "2", "3"], "5": [], "6": ["4", "5"], "7": ["6"]}


@pytest.mark.parametrize(
    ("sources", "outputs", "cached", "expected"),
    [
        (BLEND, ["5", "6"], set(), ["2", "1", "3", "5", "4", "6"]),
        (BLEND, ["6", "5"], set(), ["2", "1", "3", "5", "4", "6"]),
        (BLEND, ["6"], set(), ["2", "1", "3", "4", "6"]),
        (BLEND, ["6"], {"3"}, ["4", "6"]),
        (BLEND, ["6"], set("123456"), ["6"]),
        (SAMPLE, ["7"], set(), ["5", "3", "2", "1", "4", "6", "7"]),
    ],
)
def test_nodes_run_in_the_recorded_order(sources: dict[str, list[str]], outputs: list[str], cached: set[str], expected: list[str]) -> None:
    assert order_of(sources, outputs, cached) == expected


def test_a_cycle_is_refused_and_does_not_hang() -> None:
    with pytest.raises(ValueError, match="cycle"):
        order_of({"1": ["2"], "2": ["1"]}, ["1"])


def chain(colour: int, ids: str = "12") -> dict[str, Any]:
    empty = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": colour}}
    return {ids[0]: empty, ids[1]: {"class_type": "ImageInvert", "inputs": {"image": [ids[0], 0]}}}


def test_a_signature_is_of_what_a_node_computes_and_not_of_its_id() -> None:
    first, renamed, other = (signatures(prompt, stamp=lambda _: None) for prompt in (chain(1), chain(1, "ab"), chain(2)))
    assert first["2"] == renamed["b"]
    assert first["2"] != other["2"]


def test_a_node_that_uses_its_id_is_signed_with_it() -> None:
    def sized(node_id: str) -> dict[str, Any]:
        return {"1": chain(1)["1"], node_id: {"class_type": "GetImageSize", "inputs": {"image": ["1", 0]}}}

    assert signatures(sized("2"), stamp=lambda _: None)["2"] != signatures(sized("3"), stamp=lambda _: None)["3"]


def test_only_results_of_the_newest_prompt_are_kept() -> None:
    cache = Cache()
    for colour in (1, 2):
        cache.begin(chain(colour), stamp=lambda _: None)
        assert cache.get("1") is None
        cache.put("1", Entry((colour,), None, 10))
    assert cache.nbytes == 10
    cache.begin(chain(2), stamp=lambda _: None)
    assert cache.get("1") is not None
    assert cache.get("2") is None


def test_a_long_chain_is_signed_without_deep_recursion() -> None:
    prompt: dict[str, Any] = {"0": chain(1)["1"]}
    for index in range(1, 3000):
        prompt[str(index)] = {"class_type": "ImageInvert", "inputs": {"image": [str(index - 1), 0]}}
    assert len(set(signatures(dict(reversed(prompt.items())), stamp=lambda _: None).values())) == 3000


def queued(number: float, prompt_id: str = "id") -> Queued:
    return Queued(number, prompt_id, {}, {"client_id": "c", "create_time": int(number)}, [])


def test_lower_numbers_run_first() -> None:
    queue = Queue(changed=lambda: None)
    for number in (3, -4, 1, 2.5):
        queue.put(queued(number, str(number)))
    taken = [queue.take(0) for _ in range(4)]
    assert [item.number for item in taken if item] == [-4, 1, 2.5, 3]


def test_an_equal_number_and_id_is_refused() -> None:
    queue = Queue(changed=lambda: None)
    queue.put(queued(7, "dup"))
    with pytest.raises(AmbiguousOrder):
        queue.put(queued(7, "dup"))
    assert queue.remaining() == 1


def test_deleting_the_running_prompt_changes_nothing() -> None:
    queue = Queue(changed=lambda: None)
    queue.put(queued(1))
    queue.take(0)
    assert queue.delete("id") is False
    assert queue.remaining() == 1


def test_waiting_for_a_prompt_ends_when_memory_is_to_be_freed() -> None:
    queue = Queue(changed=lambda: None)
    threading.Timer(0.02, queue.ask_free).start()
    assert queue.take(10) is None
    assert (queue.take_free(), queue.take_free()) == (True, False)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [({}, "abcd"), ({"max_items": 2}, "cd"), ({"max_items": 2, "offset": 1}, "bc"), ({"offset": 3}, "d"), ({"max_items": 9}, "abcd")],
)
def test_history_pages(asked: dict[str, int], expected: str) -> None:
    history = History(longest=4)
    for name in "zabcd":
        history.put(name, {})
    assert "".join(history.page(**asked)) == expected


def entry(outputs: dict[str, Any]) -> dict[str, Any]:
    messages = [["execution_start", {"timestamp": 5}], ["execution_success", {"timestamp": 9}]]
    status = {"status_str": "success", "completed": True, "messages": messages}
    return {"prompt": [1, "id", {}, {"create_time": 4}, []], "outputs": outputs, "status": status}


def test_a_saved_file_is_preferred_over_a_temporary_one() -> None:
    temporary, saved = {"filename": "t", "type": "temp"}, {"filename": "s", "type": "output"}
    job = jobs.ended("id", entry({"1": {"images": [temporary]}, "2": {"images": [saved], "animated": [True]}, "3": {"text": ["x"]}}))
    assert job["outputs_count"] == 2
    assert job["preview_output"] == {**saved, "nodeId": "2", "mediaType": "images"}
    assert (job["execution_start_time"], job["execution_end_time"], job["status"]) == (5, 9, "completed")


def test_jobs_are_filtered_sorted_and_paged() -> None:
    known = [jobs.queued(queued(number, str(number)), "pending") for number in range(5)]
    page = jobs.listing(known, statuses={"pending"}, workflow_id=None, sort_by="created_at", descending=True, offset=1, limit=2)
    assert [job["id"] for job in page["jobs"]] == ["3", "2"]
    assert page["pagination"] == {"offset": 1, "limit": 2, "total": 5, "has_more": True}


def test_a_budget_counts_what_is_already_held() -> None:
    budget = MemoryBudget(100)
    budget.held_bytes = 60
    budget.claim(10)
    with pytest.raises(RuntimeError, match="you tried to allocate 44 bytes"):
        budget.claim(11)


def test_fault_words_are_parsed() -> None:
    assert parse(["slow=0.2, crash-after=3", "hang", ""]) == {"slow": "0.2", "crash-after": "3", "hang": True}


@pytest.mark.parametrize("words", [{"nothing": 1}, {"slow": []}])
def test_an_unknown_fault_is_refused(words: dict[str, Any]) -> None:
    with pytest.raises(UnknownFault):
        Faults().set(words)


def test_a_fault_after_some_prompts_waits_for_them() -> None:
    faults = Faults()
    faults.set({"oom-after": 1})
    faults.before_node()
    faults.prompt_finished()
    with pytest.raises(RuntimeError, match="allocate"):
        faults.before_node()
    faults.set({"oom-after": None})
    faults.before_node()
