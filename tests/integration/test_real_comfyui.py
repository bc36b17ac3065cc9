"""The agent against a real ComfyUI: what the embedded engine promises, the real server must keep.

Runs when COMFYUI_DIR names a source tree of ComfyUI (COMFYUI_PYTHON its interpreter, COMFYUI_ARGS its flags).
"""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.fleet.agent.conftest import AgentProcess, plane_module

pytestmark = [
    pytest.mark.realcomfy,
    pytest.mark.skipif(not os.environ.get("COMFYUI_DIR"), reason="COMFYUI_DIR is not set: no real ComfyUI to drive"),
]

START_S = 180.0
RUN_S = 90.0
wait_until = plane_module.wait_until


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def empty(color: int = 0x336699, side: int = 64, count: int = 1) -> dict[str, Any]:
    return node("EmptyImage", width=side, height=side, batch_size=count, color=color)


NOISE = {
    "1": empty(count=3),
    "2": node("ImageAddNoise", image=["1", 0], seed=7, strength=0.4),
    "3": node("SaveImage", images=["2", 0], filename_prefix="noise"),
}
FEATHERED = {
    "1": empty(0),
    "2": empty(0x00FF00),
    "3": node("SolidMask", value=1.0, width=64, height=64),
    "4": node("FeatherMask", mask=["3", 0], left=9, top=8, right=7, bottom=6),
    "5": node("ImageCompositeMasked", destination=["1", 0], source=["2", 0], x=0, y=0, resize_source=False, mask=["4", 0]),
    "6": node("SaveImage", images=["5", 0], filename_prefix="mask"),
}
SCALED = {
    "1": node("EmptyImage", width=20, height=30, batch_size=1, color=0x112233),
    "2": node("ImageAddNoise", image=["1", 0], seed=2**64 - 1, strength=1.0),
    "3": node("ImageScale", image=["2", 0], upscale_method="bicubic", width=64, height=48, crop="center"),
    "4": node("ImageBlur", image=["3", 0], blur_radius=3, sigma=1.0),
    "5": node("SaveImage", images=["4", 0], filename_prefix="deep/er/scaled"),
}
TEXT = {"1": node("CaseConverter", string="Grüße", mode="UPPERCASE"), "2": node("PreviewAny", source=["1", 0])}
BAD_PATTERN = {
    "1": node("RegexReplace", string="a", regex_pattern="(", replace="b", case_insensitive=True, multiline=False, dotall=False, count=0),
    "2": node("PreviewAny", source=["1", 0]),
}


def slow(steps: int = 80) -> dict[str, Any]:
    """Many nodes of a moment each: an interrupt acts between two of them."""
    graph = {"1": empty(side=768), "2": node("ImageAddNoise", image=["1", 0], seed=os.getpid() + steps, strength=0.5)}
    for n in range(3, steps + 3):
        graph[str(n)] = node("ImageBlur", image=[str(n - 1), 0], blur_radius=15, sigma=3.0)
    graph["end"] = node("SaveImage", images=[str(steps + 2), 0], filename_prefix="slow")
    return graph


class Worker:
    """One agent with a control plane of its own."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self.plane = plane_module.FakeControlPlane().__enter__()
        self.agent = AgentProcess(self.plane, directory, "--restart-s", "0.1", env=env)

    def run(self, graph: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        job = self.plane.submit(graph)
        return job, self.plane.completion(job, timeout_s=RUN_S)

    def pixels(self, graph: dict[str, Any]) -> list[Any]:
        job, done = self.run(graph)
        assert done["outcome"] == "succeeded", done["error"]
        return [np.asarray(Image.open(io.BytesIO(self.plane.output(job, row["index"])[1])), dtype=np.int16) for row in done["outputs"]]

    def started(self, graph: dict[str, Any]) -> str:
        job = self.plane.submit(graph)
        wait_until(lambda: self.plane.running(job), timeout_s=RUN_S, what="running")
        return str(job)

    def end(self) -> None:
        self.agent.end()
        self.plane.__exit__(None, None, None)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    env = {name: os.environ[name] for name in ("COMFYUI_DIR", "COMFYUI_PYTHON") if name in os.environ}
    worker = Worker(tmp_path_factory.mktemp("real"), env | {"COMFYUI_ARGS": os.environ.get("COMFYUI_ARGS", "--cpu --disable-api-nodes")})
    try:
        wait_until(lambda: worker.plane.claims, timeout_s=START_S, what="ComfyUI ready")
        yield worker
    finally:
        worker.end()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("embedded"), {})
    yield worker
    worker.end()


def test_the_worker_tells_the_packages_of_comfyui_and_not_its_own(real: Worker) -> None:
    found = real.plane.registrations[0]["fingerprint"]
    assert found["engine"] == "comfyui" and found["comfyui_version"] and len(found["node_classes"]) > 200
    assert "torch" in found["packages"] and "django" not in found["packages"]


@pytest.mark.parametrize("graph", [NOISE, FEATHERED, SCALED], ids=["noise", "feathered", "scaled"])
def test_real_and_embedded_give_the_same_pixels(real: Worker, embedded: Worker, graph: dict[str, Any]) -> None:
    theirs, ours = real.pixels(graph), embedded.pixels(graph)
    assert len(theirs) == len(ours) >= 1
    for one, other in zip(theirs, ours, strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 1


def test_a_cached_result_is_delivered_again(real: Worker) -> None:
    first, again = real.run(TEXT), real.run(TEXT)
    for job, done in (first, again):
        assert done["outcome"] == "succeeded"
        assert real.plane.output(job, 0)[1].decode() == "GRÜSSE"


def test_a_failing_node_fails_the_job_and_names_itself(real: Worker) -> None:
    _, done = real.run(BAD_PATTERN)
    error = done["error"]
    assert (done["outcome"], error["code"], error["class"], error["details"]["node"]) == ("failed", "node_failed", "workflow", "1")


@pytest.mark.parametrize(
    ("graph", "code"),
    [
        ({"1": node("NoSuchNode"), "2": node("PreviewAny", source=["1", 0])}, "node_class_missing"),
        ({"1": empty()}, "no_output_node"),
        ({"1": node("EmptyImage", width=0, height=1, batch_size=1, color=0), "2": node("PreviewImage", images=["1", 0])}, "invalid_workflow"),
        ({"1": node("EmptyImage", width=16384, height=16384, batch_size=4096, color=0), "2": node("PreviewImage", images=["1", 0])}, "out_of_memory"),
    ],
    ids=["unknown class", "no output", "value out of range", "too large"],
)
def test_refusals_have_the_codes_of_the_embedded_engine(real: Worker, embedded: Worker, graph: dict[str, Any], code: str) -> None:
    errors = [worker.run(graph)[1]["error"] for worker in (real, embedded)]
    assert [error["code"] for error in errors] == [code, code]
    assert errors[0]["class"] == errors[1]["class"]


def test_a_running_job_is_cancelled_between_two_nodes(real: Worker) -> None:
    job = real.started(slow())
    real.plane.verdicts[job] = "cancel"
    done = real.plane.completion(job, timeout_s=RUN_S)
    assert (done["outcome"], done["error"], done["outputs"]) == ("canceled", None, [])
    assert real.run(TEXT)[1]["outcome"] == "succeeded"


def test_a_killed_comfyui_costs_one_attempt_and_is_started_again(real: Worker) -> None:
    [comfyui] = psutil.Process(real.agent.process.pid).children()
    job = real.started(slow(steps=81))
    comfyui.kill()
    error = real.plane.completion(job, timeout_s=RUN_S)["error"]
    assert (error["code"], error["class"]) == ("engine_crashed", "platform")
    again = real.plane.submit(TEXT)
    assert real.plane.completion(again, timeout_s=START_S)["outcome"] == "succeeded"


def test_sigterm_finishes_the_job_and_takes_comfyui_along(real: Worker) -> None:
    """The last test of the module: its worker is gone afterwards."""
    [comfyui] = psutil.Process(real.agent.process.pid).children()
    job = real.started(slow(steps=10))
    real.agent.signal(signal.SIGTERM)
    assert real.plane.completion(job, timeout_s=RUN_S)["outcome"] == "succeeded"
    assert real.agent.exit_code(30) == 0
    assert [left["reason"] for left in real.plane.leaves] == ["drained"]
    wait_until(lambda: not comfyui.is_running(), what="ComfyUI ended")
