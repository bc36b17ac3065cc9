"""Jobs that need models: a real agent with a real store and the embedded engine, against a source on loopback."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fleet.agent.model_source import ModelSource, sha, tensors

KIB = 1024
counter = itertools.count(1)


def graph() -> dict[str, Any]:
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": next(counter)}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "m"}},
    }


def entry(data: bytes, *urls: str, name: str = "m.safetensors", directory: str = "loras", size: int | None = -1) -> dict[str, Any]:
    return {"directory": directory, "filename": name, "sha256": sha(data), "size_bytes": len(data) if size == -1 else size, "urls": list(urls)}


@pytest.fixture(scope="module")
def source() -> Iterator[ModelSource]:
    with ModelSource() as running:
        yield running


class Workers:
    """Agents that share a store."""

    def __init__(self, start: Callable[..., Any], source: ModelSource, directory: Path) -> None:
        self.start_agent, self.source, self.directory = start, source, directory
        self.store = directory / "store"

    def start(self, plane: Any, **env: str) -> Any:
        work = self.directory / f"work-{next(counter)}"
        told = {"DIR": str(self.store), "HOSTS": self.source.url, "KEEP_FREE": "0", "PART": "64KiB", "ROOM_WAIT_S": "0", "TRIES": "2", "BACKOFF_S": "0.01"}
        agent = self.start_agent(plane, "--work-dir", str(work), env={f"COMFYPLANE_STORE_{name}": value for name, value in told.items()} | env)
        agent.models = work / "models"
        return agent


@pytest.fixture
def workers(start_agent: Callable[..., Any], source: ModelSource, tmp_path: Path) -> Workers:
    return Workers(start_agent, source, tmp_path)


def listed(agent: Any, folder: str) -> list[str]:
    """What the engine itself offers."""
    [line] = agent.events("engine answers")
    return list(httpx.get(f"{line['url']}/models/{folder}", trust_env=False).json())


def test_models_are_here_and_listed_before_the_prompt_and_the_next_worker_finds_them(plane, workers, source, wait_until):
    data, lora = tensors(300 * KIB, seed=1), tensors(2 * KIB, seed=2)
    models = [entry(data, source.add("/a", data, bytes_per_s=60_000), name="big.safetensors", directory="checkpoints"),
              entry(lora, source.add("/b", lora), name="flux/style.safetensors")]  # fmt: skip
    agent = workers.start(plane)
    first = plane.submit(graph(), models=models, warm_key="warm-1")
    done = plane.completion(first)
    assert (done["outcome"], done["error"]) == ("succeeded", None)
    assert 0.2 < done["timings"]["models_s"] < done["timings"]["busy_s"] and done["warm"] == ["warm-1"]
    assert listed(agent, "checkpoints") == ["big.safetensors"] and listed(agent, "loras") == ["flux/style.safetensors"]
    assert (agent.models / "checkpoints" / "big.safetensors").read_bytes() == data
    rows = [row for beat in plane.heartbeats for row in beat["jobs"] if row.get("phase") == "loading"]
    assert rows and all(0 <= row["done_bytes"] <= row["total_bytes"] == len(data) + len(lora) and row["progress"] == 0 for row in rows)
    wait_until(lambda: plane.heartbeats[-1]["usage"].get("store", {}).get("pinned_bytes") == 0, what="pins let go")
    figures = plane.heartbeats[-1]["usage"]["store"]
    assert (figures["misses"], figures["hits"], figures["files"], figures["fetched_bytes"]) == (2, 0, 2, len(data) + len(lora))
    served = source.bytes_served
    agent.end()
    plane.claims.clear()
    again = workers.start(plane)
    wait_until(lambda: plane.claims, what="claim of the second worker")
    assert plane.claims[0]["warm"] == [] and plane.claims[0]["stored"] == ["warm-1"], "not loaded, but on this host's disk"
    done = plane.completion(plane.submit(graph(), models=models, warm_key="warm-1"))
    assert done["outcome"] == "succeeded" and source.bytes_served == served
    assert listed(again, "checkpoints") == ["big.safetensors"]


@pytest.mark.parametrize(
    ("spoil", "code", "kind"),
    [
        (lambda m, s: m.update(sha256="0" * 64), "model_wrong_bytes", "workflow"),
        (lambda m, s: m.update(urls=[s.url + "/nothing"]), "model_gone", "workflow"),
        (lambda m, s: m.update(urls=[]), "model_no_source", "workflow"),
        (lambda m, s: m.update(urls=["http://169.254.169.254/latest"]), "model_refused", "workflow"),
        (lambda m, s: m.update(filename="../../../evil.safetensors"), "model_refused", "workflow"),
        (lambda m, s: m.update(directory="custom_nodes/evil", filename="__init__.py"), "model_refused", "workflow"),
        (lambda m, s: m.update(filename="m.ckpt"), "model_pickle", "workflow"),
        (lambda m, s: m.update(size_bytes=10**15), "model_too_large", "capacity"),
        (lambda m, s: s.files["/x"].needs.update(authorization="Bearer t"), "model_unauthorized", "platform"),
        (lambda m, s: s.files["/x"].statuses.extend([500] * 9), "model_unreachable", "platform"),
    ],
    ids=["wrong hash", "gone", "no source", "private address", "path trick", "code", "pickle", "too large", "login", "server error"],
)
def test_a_model_that_cannot_be_had_fails_the_job_with_its_reason(shared_workers, source, spoil, code, kind):
    plane, agent = shared_workers
    data = tensors(3 * KIB, seed=next(counter))
    model = entry(data, source.add("/x", data))
    spoil(model, source)
    done = plane.completion(plane.submit(graph(), models=[model]))
    error = done["error"]
    assert (done["outcome"], error["code"], error["class"]) == ("failed", code, kind) and error["suggestion"] and error["message"]
    assert not list(agent.models.rglob("*evil*")) and not list(agent.models.parent.parent.rglob("evil.safetensors"))
    assert plane.completion(plane.submit(graph()))["outcome"] == "succeeded", "the worker goes on"


@pytest.fixture(scope="module")
def shared_workers(tmp_path_factory: pytest.TempPathFactory, source: ModelSource) -> Iterator[Any]:
    from tests.fleet.agent.conftest import AgentProcess, plane_module

    with plane_module.FakeControlPlane() as plane:
        directory = tmp_path_factory.mktemp("shared")
        made: list[AgentProcess] = []

        def start(plane: Any, *flags: str, env: dict[str, str]) -> AgentProcess:
            made.append(AgentProcess(plane, directory, *flags, env=env))
            return made[-1]

        yield plane, Workers(start, source, directory).start(plane, COMFYPLANE_STORE_CAP="64MiB")
        for agent in made:
            agent.end()


def test_a_full_disk_costs_the_attempt_and_not_the_worker(plane, workers, source):
    workers.start(plane, COMFYPLANE_STORE_KEEP_FREE="900TiB")
    data = tensors(3 * KIB, seed=next(counter))
    error = plane.completion(plane.submit(graph(), models=[entry(data, source.add("/full", data))]))["error"]
    assert (error["code"], error["class"]) == ("model_no_room", "capacity")


def test_a_job_is_cancelled_while_its_models_are_fetched(shared_workers, source, wait_until):
    plane, _ = shared_workers
    data = tensors(2000 * KIB, seed=next(counter))
    job = plane.submit(graph(), models=[entry(data, source.add("/slow", data, bytes_per_s=200_000))])
    wait_until(lambda: any(r.get("phase") == "loading" for b in plane.heartbeats for r in b["jobs"] if r["job"] == job), what="loading")
    plane.verdicts[job] = "cancel"
    began = time.monotonic()
    done = plane.completion(job)
    assert (done["outcome"], done["error"]) == ("canceled", None) and time.monotonic() - began < 3
    source.files["/slow"].bytes_per_s = 0
    served = source.bytes_served
    assert plane.completion(plane.submit(graph(), models=[entry(data, source.url + "/slow")]))["outcome"] == "succeeded"
    assert source.bytes_served - served < len(data), "what was here already was not fetched again"


def test_a_deadline_that_passes_while_models_are_fetched_is_told(shared_workers, source):
    plane, _ = shared_workers
    data = tensors(2000 * KIB, seed=next(counter))
    soon = (datetime.now(UTC) + timedelta(seconds=0.6)).isoformat()
    job = plane.submit(graph(), models=[entry(data, source.add("/late", data, bytes_per_s=100_000))], deadline_at=soon)
    error = plane.completion(job)["error"]
    assert (error["code"], error["class"]) == ("deadline_passed", "capacity")


def test_a_model_that_the_engine_has_already_is_used_as_it_is(plane, workers, source, tmp_path):
    data, other = tensors(3 * KIB, seed=next(counter)), tensors(3 * KIB, seed=next(counter))
    own = tmp_path / "own" / "loras" / "mine.safetensors"
    own.parent.mkdir(parents=True)
    own.write_bytes(data)
    agent = workers.start(plane, COMFYPLANE_MODELS_DIR=str(tmp_path / "own"))
    done = plane.completion(plane.submit(graph(), models=[entry(data, name="mine.safetensors")]))
    assert done["outcome"] == "succeeded" and not own.is_symlink() and listed(agent, "loras") == ["mine.safetensors"]
    error = plane.completion(plane.submit(graph(), models=[entry(other, source.add("/other", other), name="mine.safetensors")]))["error"]
    assert (error["code"], error["class"]) == ("model_name_taken", "platform") and own.read_bytes() == data


def test_without_a_store_the_engine_is_asked_as_ever(shared_agent, shared_plane):
    data = tensors(KIB)
    done = shared_plane.completion(shared_plane.submit(graph(), models=[entry(data, "https://models.example/x")]))
    assert done["outcome"] == "succeeded"


def test_a_store_that_cannot_be_opened_ends_the_agent_with_a_reason(plane, workers):
    workers.store.parent.mkdir(exist_ok=True)
    workers.store.write_text("a file where the store should be")
    agent = workers.start(plane)
    assert agent.exit_code() == 4
    [left] = plane.leaves
    assert left["reason"] == "crash" and "model store" in left["message"]


def test_nonsense_in_the_stores_settings_is_refused_at_start(plane, workers):
    assert workers.start(plane, COMFYPLANE_STORE_CAP="plenty").exit_code() == 2


def test_the_engine_is_told_of_the_models_folder_in_front_of_its_trees(tmp_path):
    import yaml

    from fleet.agent.modelpaths import document

    tree = tmp_path / "tree"
    for name in ("checkpoints", "ipadapter", "configs", ".cache"):
        (tree / name).mkdir(parents=True)
    written = yaml.safe_load(document(tmp_path / "mödels", tree))["comfyplane"]
    assert written.pop("base_path") == os.fspath(tmp_path / "mödels") and written.pop("is_default") is True
    assert (
        written["ipadapter"] == "ipadapter" and written["controlnet"] == "controlnet\nt2i_adapter" and not {"configs", ".cache", "custom_nodes"} & set(written)
    )
