"""What the tests of real builds stand on: an engine, a base image, a registry, and source trees in git."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BASE = "comfyplane-test/python:3.11-bookworm"
BASE_TAR = "python-3.11-bookworm.tar"
PACKAGES = ("numpy", "pillow", "psutil", "httpx", "httpcore", "h11", "anyio", "idna", "certifi", "websockets")
PACKAGES += ("imagehash", "scipy", "soundfile", "cffi", "pycparser")
ENGINE_PACKAGES = ("starlette", "uvicorn", "click", "typing-extensions", "sniffio")
IDENTITY = {
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.invalid",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.invalid",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}
BRIGHTEN = """
class Brighten:
    CATEGORY = "test"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "by": ("FLOAT", {"default": 0.1, "min": 0.0, "max": 1.0})}}

    def run(self, image, by):
        return ((image + by).clip(0.0, 1.0),)


NODE_CLASS_MAPPINGS = {"TestBrighten": Brighten}
"""
TABLE = """
import json
from pathlib import Path

TABLE = json.loads((Path(__file__).parent / "table.json").read_text())


class Mirror:
    CATEGORY = "test"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "axis": (TABLE["axes"],)}}

    def run(self, image, axis):
        return (image[:, :, ::-1].copy() if axis == "horizontal" else image[:, ::-1].copy(),)


NODE_CLASS_MAPPINGS = {"TestMirror": Mirror}
"""
# Writes the table its nodes read: without it the pack cannot be imported.
INSTALL = """
import json, os, sys
from pathlib import Path

assert os.getuid() == 10001, "not as root"
Path(__file__).with_name("table.json").write_text(json.dumps({"axes": ["horizontal", "vertical"]}))
print("table written")
"""


def git(directory: Path, *words: str) -> str:
    said = subprocess.run(["git", "-C", str(directory), *words], capture_output=True, text=True, check=True, env={**os.environ, **IDENTITY})
    return said.stdout.strip()


def repository(directory: Path, files: Mapping[str, str | bytes | Path]) -> str:
    """Commit exactly these files there; the commit."""
    if not (directory / ".git").exists():
        directory.mkdir(parents=True, exist_ok=True)
        git(directory, "init", "-q", "-b", "main")
    for path in directory.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, content in files.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copy(content, target)
        else:
            target.write_bytes(content.encode() if isinstance(content, str) else content)
    git(directory, "add", "-A")
    git(directory, "commit", "-q", "--allow-empty", "-m", "state")
    return git(directory, "rev-parse", "HEAD")


def standin(directory: Path, **more: str) -> str:
    """The stand-in for ComfyUI as a repository: main.py and the embedded engine."""
    engine = {
        f"fleet/engine/{p.relative_to(ROOT / 'fleet/engine')}": p
        for p in sorted((ROOT / "fleet/engine").rglob("*"))
        if p.is_file() and "__pycache__" not in p.parts
    }
    files: dict[str, Any] = {
        "main.py": Path(__file__).with_name("standin_main.py"),
        "fleet/__init__.py": "",
        "comfyui_version.py": '__version__ = "0.0.1"\n',
        "custom_nodes/.gitkeep": "",
        "models/.gitkeep": "",
        **engine,
        **more,
    }
    return repository(directory, files)


def freeze(*names: str, layer: str) -> list[dict[str, Any]]:
    """These packages of our own lock file, with their hashes, as a lock document has them."""
    text = (ROOT / "requirements.lock").read_text()
    found = []
    for entry in re.findall(r"^[a-z0-9][^\n]*\\\n(?:    --hash=\S+(?: \\)?\n)+", text, re.M):
        head = entry.split("\\", 1)[0]
        wanted, _, marker = head.partition(";")
        name, _, version = wanted.strip().partition("==")
        if name in names and "python_full_version >= '3.12'" not in marker:
            found.append(
                {"name": name, "version": version, "hashes": re.findall(r"sha256:[0-9a-f]{64}", entry), "marker": "", "url": "", "asked_by": [], "layer": layer}
            )
    return found


def document(*, comfyui: str, commit: str, packs: list[dict[str, Any]], classes: list[str], base: str = BASE, **more: Any) -> dict[str, Any]:
    """A lock document by hand."""
    return {
        "schema": "comfyplane-lock/1",
        "platform": {"os": "linux", "arch": "amd64"},
        "python": {"version": "3.11", "as_of": ""},
        "base_image": {"reference": base, "digest": ""},
        "comfyui": {"repository": comfyui, "commit": commit, "version": "0.0.1"},
        "packs": packs,
        "python_packages": freeze(*PACKAGES, *ENGINE_PACKAGES, layer="comfyui"),
        "constraints": [],
        "torch": {"version": "", "backend": ""},
        "models": [],
        "classes": classes,
        **more,
    }


def pack(name: str, commit: str, *, classes: list[str], install: bool = False) -> dict[str, Any]:
    return {
        "key": f"https://example.com/test/{name}",
        "registry_id": "",
        "repository": f"https://example.com/test/{name}",
        "commit": commit,
        "version": "",
        "sha256": "",
        "folder": name,
        "install_script": install,
        "classes": classes,
    }


# -- the engine ------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(host: str) -> bool:
    """Whether an engine is there."""
    docker = "/usr/bin/docker" if Path("/usr/bin/docker").is_file() else "docker"
    try:
        return subprocess.run([docker, "-H", host, "info"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextlib.contextmanager
def engine(scratch: Path) -> Iterator[str]:
    """An engine of our own on a socket in `scratch`; ended by its pid."""
    socket_path = scratch / "docker.sock"
    log = (scratch / "dockerd.log").open("wb")
    daemon = subprocess.Popen(
        [
            *("dockerd", "--data-root", str(scratch / "data"), "--exec-root", str(scratch / "exec")),
            *("-H", f"unix://{socket_path}", "--pidfile", str(scratch / "dockerd.pid")),
        ],
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 30
        while not answers(f"unix://{socket_path}"):
            assert daemon.poll() is None and time.monotonic() < end, (scratch / "dockerd.log").read_text()[-2000:]
            time.sleep(0.2)
        yield f"unix://{socket_path}"
    finally:
        daemon.terminate()
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
        log.close()


def make_base(cache: Path) -> Path:
    """The base image as a tar under `cache`, made once by debootstrap."""
    tar = cache / BASE_TAR
    if not tar.is_file():
        _debootstrap(cache, tar)
    return tar


def base_image(client: Any, cache: Path) -> str:
    """Load the base image, made once by debootstrap and kept as a tar under `cache`; its id."""
    with contextlib.suppress(Exception):
        return str(client.images.get(BASE).id)
    tar = make_base(cache)
    name, _, tag = BASE.partition(":")
    changes = ["ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 'CMD ["python3"]']
    client.api.import_image_from_file(str(tar), repository=name, tag=tag, changes=changes)
    return str(client.images.get(BASE).id)


def _debootstrap(cache: Path, tar: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    root, part = cache / "root", tar.with_suffix(".part")
    shutil.rmtree(root, ignore_errors=True)
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm", str(root)],
        check=True,
        capture_output=True,
        timeout=600,
    )
    left_out = ("./var/cache/apt/archives/*.deb", "./var/cache/apt/*.bin", "./var/lib/apt/lists/*_*", "./usr/share/doc/*", "./usr/share/man/*")
    left_out += ("./usr/share/locale/*", "./dev/*", "./proc/*", "./sys/*")
    subprocess.run(["tar", "-C", str(root), "--numeric-owner", "-cf", str(part), *(f"--exclude={e}" for e in left_out), "."], check=True, timeout=300)
    part.replace(tar)
    shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def registry(scratch: Path) -> Iterator[str]:
    """A registry on loopback; host:port."""
    port = free_port()
    scratch.mkdir(parents=True, exist_ok=True)
    config = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(scratch / "store")}}, "http": {"addr": f"127.0.0.1:{port}"}}
    (scratch / "config.yml").write_text(json.dumps(config))
    log = (scratch / "registry.log").open("wb")
    server = subprocess.Popen(
        ["docker-registry", "serve", str(scratch / "config.yml")], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        end = time.monotonic() + 15
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert server.poll() is None and time.monotonic() < end, (scratch / "registry.log").read_text()[-2000:]
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)
        log.close()


if __name__ == "__main__":
    make_base(Path(sys.argv[1]))
