"""Every recorded template and canvas case, against the web client's own output."""

from __future__ import annotations

import gzip
import json
import os
import runpy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builds.conversion import convert

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shared() -> Path:
    root = Path(os.environ.get("COMFYPLANE_SHARED", REPOSITORY.parent / "shared"))
    if not (root / "data" / "comfyui" / "conversion" / "oracle.jsonl.gz").exists():
        reason = "the recorded conversions are not here (set COMFYPLANE_SHARED)"
        if os.environ.get("COMFYPLANE_REQUIRE_SHARED") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return root


@pytest.fixture(scope="module")
def info(shared: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress((shared / "data" / "comfyui" / "object_info.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def signature(shared: Path) -> Callable[..., list[str]]:
    return runpy.run_path(str(shared / "tools" / "graph_equal.py"))["signature"]


def test_every_template_converts_to_what_the_web_client_sent(shared: Path, info: dict[str, Any], signature: Callable[..., list[str]]) -> None:
    wrong, times = [], []
    lines = gzip.decompress((shared / "data" / "comfyui" / "conversion" / "oracle.jsonl.gz").read_bytes()).splitlines()
    for line in lines:
        case = json.loads(line)
        started = time.perf_counter()
        graph = convert(case["ui"], info)
        times.append(time.perf_counter() - started)
        if signature(graph, info) != signature(case["api_frontend_1_58_1"], info):
            wrong.append(case["name"])
    assert not wrong
    assert len(times) > 100
    assert statistics.median(times) < 0.02


def test_every_canvas_case_converts_to_what_the_web_client_sent(shared: Path, info: dict[str, Any], signature: Callable[..., list[str]]) -> None:
    folder = shared / "data" / "comfyui" / "workflows"
    cases = {path: path.with_name(path.name.replace(".ui.json", ".json")) for path in folder.glob("[0-9]*.ui.json")}
    cases |= {path: path.with_name(path.name.replace(".ui.json", ".expected-api.json")) for path in folder.glob("ui_*.ui.json")}
    assert len(cases) > 20
    wrong = []
    for path, expected in sorted(cases.items()):
        graph = convert(json.loads(path.read_text()), info)
        if signature(graph, info) != signature(json.loads(expected.read_text()), info):
            wrong.append(path.name)
    assert not wrong
