"""Models from the store in a real ComfyUI that is already running: its lists of files are kept until a folder changes, and must be made anew.

Runs when COMFYUI_DIR names a source tree of ComfyUI (COMFYUI_PYTHON its interpreter, COMFYUI_ARGS its flags).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fleet.agent.conftest import AgentProcess, plane_module
from tests.fleet.agent.model_source import ModelSource, sha, tensors

pytestmark = [
    pytest.mark.realcomfy,
    pytest.mark.skipif(not os.environ.get("COMFYUI_DIR"), reason="COMFYUI_DIR is not set: no real ComfyUI to drive"),
]
wait_until = plane_module.wait_until


class World:
    def __init__(self, directory: Path, source: ModelSource) -> None:
        self.source, self.plane = source, plane_module.FakeControlPlane().__enter__()
        env = {name: os.environ[name] for name in ("COMFYUI_DIR", "COMFYUI_PYTHON") if name in os.environ}
        store = {"DIR": str(directory / "store"), "HOSTS": source.url, "KEEP_FREE": "0", "CAP": "1MiB"}
        env |= {f"COMFYPLANE_STORE_{name}": value for name, value in store.items()}
        env |= {"COMFYUI_ARGS": os.environ.get("COMFYUI_ARGS", "--cpu --disable-api-nodes"), "COMFYPLANE_WORK_DIR": str(directory / "work")}
        self.agent = AgentProcess(self.plane, directory, "--restart-s", "0.1", env=env)
        wait_until(lambda: self.plane.claims, timeout_s=180, what="ComfyUI ready")
        [line] = self.agent.events("engine answers")
        self.url = line["url"]

    def entry(self, name: str, data: bytes, directory: str = "style_models") -> dict[str, Any]:
        url = self.source.add(f"/{sha(data)}", data)
        return {"directory": directory, "filename": name, "sha256": sha(data), "size_bytes": len(data), "urls": [url]}

    def run(self, name: str, *models: dict[str, Any]) -> dict[str, Any]:
        """Load a style model by name. It is none, so ComfyUI fails after it has opened and read it."""
        graph = {
            "1": {"class_type": "StyleModelLoader", "inputs": {"style_model_name": name}},
            "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
        }
        return dict(self.plane.completion(self.plane.submit(graph, models=list(models)), timeout_s=90)["error"] or {})

    def listed(self, folder: str) -> list[str]:
        return list(httpx.get(f"{self.url}/models/{folder}", trust_env=False, timeout=30).json())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ModelSource() as source:
        made = World(tmp_path_factory.mktemp("comfy"), source)
        yield made
        made.agent.end()
        made.plane.__exit__(None, None, None)


def test_comfyui_opens_a_model_that_came_after_it_made_its_lists(world: World) -> None:
    assert world.listed("style_models") == []
    assert world.run("first.safetensors")["code"] == "invalid_workflow", "not here: ComfyUI refuses the name"
    error = world.run("first.safetensors", world.entry("first.safetensors", tensors(2000, seed=1)))
    assert error["code"] == "node_failed" and "invalid style model" in error["details"]["exception_message"], error
    assert world.listed("style_models") == ["first.safetensors"]


def test_a_second_model_in_the_same_and_in_a_new_subfolder_is_seen_at_once(world: World) -> None:
    for name in ("second.safetensors", "sub/third.safetensors", "sub/fourth.safetensors", "sub/deeper/fifth.safetensors"):
        assert world.run(name, world.entry(name, tensors(2000, seed=len(name))))["code"] == "node_failed", name
        assert name in world.listed("style_models")


@pytest.mark.parametrize("folder", ["checkpoints", "unet", "diffusion_models", "clip", "text_encoders", "controlnet", "t2i_adapter", "vae", "embeddings"])
def test_every_folder_that_comfyui_knows_gets_its_models(world: World, folder: str) -> None:
    world.run("none", world.entry(f"{folder}.safetensors", tensors(1000, seed=hash(folder) % 1000), folder))
    asked = {"unet": "diffusion_models", "clip": "text_encoders", "t2i_adapter": "controlnet"}.get(folder, folder)
    assert f"{folder}.safetensors" in world.listed(asked)


def test_the_same_name_means_another_file_for_another_version(world: World) -> None:
    for seed in (1, 2):
        data = tensors(3000, seed=200 + seed)
        world.run("style.safetensors", world.entry("style.safetensors", data))
        [link] = (Path(world.agent.log_path.parent) / "work" / "models").rglob("style.safetensors")
        assert link.read_bytes() == data


def test_a_model_that_made_way_is_no_longer_offered_after_the_next_job(world: World) -> None:
    for n in range(3):
        world.run("x", world.entry(f"large-{n}.safetensors", tensors(400_000, seed=300 + n)))
    listed = world.listed("style_models")
    assert "large-2.safetensors" in listed and "large-0.safetensors" not in listed
    assert json.dumps(world.agent.events("agent failed")) == "[]"
