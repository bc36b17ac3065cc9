"""The node classes state the same facts as the recorded /object_info."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import fleet.engine.nodes  # noqa: F401
from fleet.engine.directories import Directories
from fleet.engine.specs import NODES
from tests.contract.transcripts import shared

SENTENCES = {"tooltip", "description", "output_tooltips"}
# These lists come from the input directory, which is empty here.
FROM_DISK = {("LoadImage", "image"), ("LoadImageMask", "image")}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    with gzip.open(shared("object_info.json.gz")) as file:
        classes: dict[str, Any] = json.load(file)
    for name, field in FROM_DISK:
        classes[name]["input"]["required"][field][0] = []
    return classes


def facts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: facts(inner) for key, inner in value.items() if key not in SENTENCES}
    if isinstance(value, list):
        kept = [facts(inner) for inner in value]
        # An input whose only option was its tooltip has none left.
        return kept[:1] if len(kept) == 2 and kept[1] == {} else kept
    return value


def test_every_class_states_the_recorded_facts(recorded: dict[str, Any]) -> None:
    nowhere = Directories(*[Path("/nonexistent")] * 4)
    described = {name: known.described(nowhere) for name, known in NODES.items()}
    assert set(described) <= set(recorded)
    different = [name for name in described if facts(described[name]) != facts(recorded[name])]
    assert different == []


def test_no_sentence_of_the_recorded_server_is_repeated() -> None:
    nowhere = Directories(*[Path("/nonexistent")] * 4)
    text = json.dumps([known.described(nowhere) for known in NODES.values()])
    assert '"tooltip"' not in text


def test_every_class_of_the_shared_prompts_is_known() -> None:
    folder = shared("workflows")
    prompts = [json.loads(path.read_text()) for path in folder.glob("*.json") if not path.name.endswith(".ui.json")]
    names = {node.get("class_type") for prompt in prompts for node in prompt.values()} - {None, "NoSuchNode"}
    assert names <= set(NODES)
