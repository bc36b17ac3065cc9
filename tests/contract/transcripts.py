"""The recorded exchanges with a real ComfyUI server, for tests that replay them.

The recordings lie beside the repository (COMFYPLANE_SHARED, default ../shared).
Without them the tests are skipped, or fail when COMFYPLANE_REQUIRE_SHARED=1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

Line = dict[str, Any]


def shared(*names: str) -> Path:
    """A path in the shared data; skips or fails the test when it is not there."""
    root = Path(os.environ.get("COMFYPLANE_SHARED", REPOSITORY.parent / "shared"))
    path = root.joinpath("data", "comfyui", *names)
    if not path.exists():
        reason = f"the shared ComfyUI data is not here: no {'/'.join(names)} (set COMFYPLANE_SHARED)"
        if os.environ.get("COMFYPLANE_REQUIRE_SHARED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def load(name: str) -> list[Line]:
    """The lines of one transcript, with the prompts that were really sent.

    The recorder logged some request bodies after it had changed them for a later
    request; history and queue show what the server got, so they win.
    """
    lines = [json.loads(line) for line in shared("transcripts", f"{name}.jsonl").read_text().splitlines()]
    sent = {prompt_id: prompt for line in lines for prompt_id, prompt in _stored(line.get("response_json"))}
    for line in lines:
        body = line.get("request_json")
        answer = line.get("response_json")
        if line.get("path") == "/prompt" and isinstance(body, dict) and isinstance(answer, dict):
            prompt = sent.get(answer.get("prompt_id", ""))
            # An id that was used twice has two prompts; only the newest is stored.
            if prompt is not None and "prompt_id" not in body:
                body["prompt"] = prompt
    return lines


def workflow(name: str) -> dict[str, Any]:
    """One of the shared prompts in API format."""
    prompt: dict[str, Any] = json.loads(shared("workflows", f"{name}.json").read_text())
    return prompt


def _stored(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(prompt id, prompt) of every queue item inside an answer."""
    if isinstance(value, list) and len(value) == 5 and isinstance(value[1], str) and isinstance(value[2], dict):
        yield value[1], value[2]
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _stored(inner)
