"""The Dockerfile of a lock: linted, without what old builders lack, and closed to names that are not names."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builds.images import dockerfile, requirements, titles
from builds.images.dockerfile import Settings
from controlplane.kernel.errors import Invalid

HASH = "sha256:" + "a" * 64
SETTINGS = Settings(base="debian:bookworm-slim@" + HASH, has_ca=True, has_pip_conf=True, os_packages=("python3", "libgl1"), agent_version="abc")


def package(name: str, layer: str = "packs", **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "hashes": [HASH], "marker": "", "url": "", "asked_by": [], "layer": layer, **more}


def pack(name: str, **more: Any) -> dict[str, Any]:
    return {"key": f"https://example.com/a/{name}", "registry_id": "", "repository": "", "commit": "c" * 40, "folder": name, "install_script": False, **more}


def document(**more: Any) -> dict[str, Any]:
    return {
        "python": {"version": "3.11"},
        "comfyui": {"repository": "https://github.com/Comfy-Org/ComfyUI", "commit": "d" * 40, "version": "0.3.64"},
        "packs": [pack("alpha"), pack("beta", install_script=True)],
        "python_packages": [package("torch", "torch"), package("numpy", "comfyui"), package("opencv-python")],
        **more,
    }


def render(**more: Any) -> str:
    return dockerfile.render(document(**more), SETTINGS, lock_id="e" * 64)


def stages(text: str) -> list[str]:
    return re.findall(r"^FROM \S+ AS (\S+)$", text, re.M)


@pytest.mark.parametrize(
    "more", [{}, {"packs": []}, {"python_packages": []}, {"python_packages": [package("a", url="git+https://example.com/a@" + "f" * 40, hashes=[])]}]
)
def test_the_linter_finds_nothing(more: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(render(**more))
    said = subprocess.run([Path(sys.executable).with_name("hadolint"), "--no-color", str(path)], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


def test_it_needs_nothing_that_closed_networks_and_old_builders_lack() -> None:
    text = render()
    assert "# syntax" not in text and "<<" not in text and "--link" not in text and "RUN --network" not in text
    assert "models/" not in text and "curl" not in text and "|| true" not in text


def test_layers_stand_in_the_order_in_which_they_change() -> None:
    text = render()
    assert stages(text) == ["os", "tools", "torch-packages", "comfyui-packages", "packs-packages", "comfyui", "agent", "runtime", "pack-1", "image"]
    chain = text[text.index("AS runtime") :]
    order = ["--from=tools", "--from=torch-packages", "--from=comfyui-packages", "--from=comfyui ", "--from=packs-packages", "packs/alpha/"]
    order += ["--from=pack-1", "--from=agent", "COPY lock.json"]
    places = [chain.index(words) for words in order]
    assert places == sorted(places)


def test_the_image_runs_as_nobody_special_and_says_what_it_is() -> None:
    final = render().split("AS image")[1]
    assert "USER 10001:10001" in final and "HEALTHCHECK" in final and 'io.comfyplane.lock="' + "e" * 64 in final
    assert 'org.opencontainers.image.revision="' + "d" * 40 in final and f'base.digest="{SETTINGS.base_digest}"' not in final


def test_an_install_script_runs_once_without_rights_with_a_limit() -> None:
    stage = render().split("AS pack-1")[1].split("FROM")[0]
    assert "USER 10001:10001" in stage and "timeout --kill-after=10 600" in stage and "PIP_NO_INDEX=1" in stage
    assert stage.index("USER") < stage.index("RUN")


@pytest.mark.parametrize(
    "name",
    ["../up", "a/b", "", "a b", "a\nRUN rm -rf /", "-x", "a;b", "$(id)", ".", "..", "a" * 200, "CON\\", "ü"],
)
def test_a_folder_that_is_no_plain_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        render(packs=[{**pack("x"), "folder": name, "key": name}])
    assert refused.value.code == "lock_malformed"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a b"},
        {"name": "-r"},
        {"version": "1.0 --index-url x"},
        {"version": ""},
        {"hashes": ["md5:1"]},
        {"hashes": []},
        {"marker": "x\n--extra-index-url http://x"},
        {"url": "file:///etc/passwd"},
        {"url": "https://x/a.whl\n-r /etc/passwd"},
    ],
)
def test_a_package_that_pip_could_read_as_something_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        requirements.line({**package("good"), **change})
    assert refused.value.code == "lock_malformed"


@pytest.mark.parametrize("base", ["", "a b", "x\nRUN id", "-flag", "name@sha256:short", "A:b\\"])
def test_a_base_image_that_names_none_is_refused(base: str) -> None:
    with pytest.raises(Invalid) as refused:
        dockerfile.render(document(), replace(SETTINGS, base=base), lock_id="e" * 64)
    assert refused.value.code == "base_image_malformed"


def test_a_label_stays_one_value() -> None:
    text = render(comfyui={"repository": 'x" evil="1', "commit": "d" * 40, "version": "1\nRUN id $HOME"})
    assert "comfyui.repository=\"x' evil='1\"" in text and "\nRUN id" not in text and "$HOME" not in text.split("LABEL")[1]


def test_packages_go_to_the_layer_the_lock_names_else_by_their_name() -> None:
    found = requirements.files([package("torch", "torch"), {**package("nvidia-cublas"), "layer": ""}, package("numpy", "comfyui"), package("x")])
    assert list(found) == ["comfyui.txt", "packs.txt", "torch.txt"]
    assert "nvidia-cublas==1.0 \\\n    --hash=sha256:" in found["torch.txt"]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("[os 1/2] FROM docker.io/library/debian", "Base image"),
        ("[torch-packages 1/1] RUN /opt/pip/bin/python -m pip", "Install torch"),
        ("[runtime 2/5] COPY --from=torch-packages /opt/venv /opt/venv", "Layer: torch"),
        ("[runtime 4/5] COPY packs/brighten/ /opt/ComfyUI/custom_nodes/brighten/", "Layer: pack brighten"),
        ("[pack-1 3/3] RUN timeout --kill-after=10 600 /opt/venv/bin/python /opt/ComfyUI/custom_nodes/mirror/install.py", "install.py of mirror"),
        ("[image 2/3] COPY --from=agent /opt/comfyplane /opt/comfyplane", "Layer: agent"),
        ("[image 3/3] COPY lock.json /opt/comfyplane/lock.json", "Layer: workflow (lock)"),
        ("exporting to image", "Write the image"),
        ("[weird 1/1] RUN <script>", "RUN <script>"),
    ],
)
def test_a_step_has_a_title_for_people(name: str, title: str) -> None:
    assert titles.title(name) == title
