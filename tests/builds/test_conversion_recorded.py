"""Own small graphs, one per feature, against what the real web client made of the same files."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from canvas_samples import classes, recorded, same_work

from builds.conversion import Inexact, convert

CASES = {f"{at}-{case['name'][:60]}": case for at, case in enumerate(recorded()["cases"])}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "api" in case])
def test_a_graph_converts_as_the_web_client_did_it(name: str) -> None:
    case = CASES[name]
    before = copy.deepcopy(case["ui"])
    graph = convert(case["ui"], classes())
    assert same_work(graph, case["api"]), (strip(graph), case["api"])
    assert case["ui"] == before, "the file it was given stays as it was"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "refused" in case])
def test_what_has_no_exact_conversion_names_node_and_fix(name: str) -> None:
    case = CASES[name]
    with pytest.raises(Inexact) as refusal:
        convert(case["ui"], classes())
    assert refusal.value.code == case["refused"]
    first = refusal.value.problems[0]
    assert first.node and first.message and first.suggestion
    assert refusal.value.details["problems"][0]["node"] == first.node


def strip(graph: dict[str, Any]) -> dict[str, Any]:
    return {key: {"class_type": one["class_type"], "inputs": one["inputs"]} for key, one in graph.items()}
