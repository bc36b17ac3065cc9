"""What a lock is made from, small and on this machine: git repositories, a package index of made-up wheels, a registry."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from builds.locking.sources import Sources, Target

COMFYUI = "https://git.example.com/house/ComfyUI"
FRAMES = "https://git.example.com/people/comfyui-frames"
TONES = "https://git.example.com/people/comfyui-tones"
AT = 1_760_000_000


class Repository:
    """A bare mirror made of commits that are given as files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", "--initial-branch=main")

    def git(self, *arguments: str, stdin: bytes = b"", **env: str) -> str:
        base = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        said = subprocess.run(["git", f"--git-dir={self.path}", *arguments], input=stdin, capture_output=True, env={**base, **env}, check=True)
        return said.stdout.decode().strip()

    def commit(self, files: Mapping[str, str], *, at: int = AT, branch: str = "main", tag: str = "") -> str:
        """A commit on top of `branch` that holds exactly `files` (top level)."""
        lines = []
        for name, text in files.items():
            blob = self.git("hash-object", "-w", "--stdin", stdin=text.encode())
            lines.append(f"100644 blob {blob}\t{name}")
        tree = self.git("mktree", stdin="\n".join(lines).encode() + b"\n")
        who = {
            f"GIT_{role}_{part}": value
            for role in ("AUTHOR", "COMMITTER")
            for part, value in (("NAME", "a"), ("EMAIL", "a@example.com"), ("DATE", f"{at} +0000"))
        }
        try:
            parent = ["-p", self.git("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")]
        except subprocess.CalledProcessError:
            parent = []
        commit = self.git("commit-tree", tree, *parent, "-m", "a change", **who)
        self.git("update-ref", f"refs/heads/{branch}", commit)
        if tag:
            self.git("update-ref", f"refs/tags/{tag}", commit)
        return commit


def wheel(folder: Path, name: str, version: str, *, requires: Iterable[str] = ()) -> Path:
    """A wheel without code."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=") for path, text in files.items()}
    files[f"{info}/RECORD"] = "".join(f"{path},sha256={digest},{len(files[path])}\n" for path, digest in digests.items()) + f"{info}/RECORD,,\n"
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in files.items():
            archive.writestr(zipfile.ZipInfo(inner), text)
    return path


WHEELS: dict[str, dict[str, list[str]]] = {
    "torch": {"2.7.0": ["numpy", "filelock"], "2.8.0": ["numpy", "filelock"]},
    "torchvision": {"0.23.0": ["torch==2.8.0", "numpy"], "0.22.0": ["torch==2.7.0", "numpy"]},
    "filelock": {"3.20.0": []},
    "numpy": {"1.26.4": [], "2.3.3": []},
    "aiohttp": {"3.12.0": ["yarl"], "3.13.0": ["yarl"]},
    "yarl": {"1.22.0": []},
    "pillow": {"11.3.0": []},
    "colour": {"0.4.6": ["numpy>=1.24"]},
    "oldmath": {"0.57.1": ["numpy<1.25"]},
    "oldnumpy": {"1.0": ["numpy<2"]},
}


def shelf(folder: Path) -> Path:
    """The directory of all wheels."""
    for name, versions in WHEELS.items():
        for version, requires in versions.items():
            wheel(folder, name, version, requires=requires)
    return folder


def simple_index(folder: Path) -> Path:
    """The same wheels as a simple index without upload times."""
    for name, versions in WHEELS.items():
        for version, requires in versions.items():
            wheel(folder / name, name, version, requires=requires)
        links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in sorted((folder / name).glob("*.whl")))
        (folder / name / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
    return folder


class World:
    """Mirrors of ComfyUI and two packs, the shelf, and the settings that point at them."""

    def __init__(self, root: Path) -> None:
        self.mirrors = root / "mirrors"
        self.comfyui = Repository(self.mirrors / "git.example.com" / "house" / "ComfyUI.git")
        self.frames = Repository(self.mirrors / "git.example.com" / "people" / "comfyui-frames.git")
        self.tones = Repository(self.mirrors / "git.example.com" / "people" / "comfyui-tones.git")
        self.comfyui_commit = self.comfyui.commit(
            {
                "requirements.txt": "torch\ntorchvision\nnumpy>=1.25.0\naiohttp>=3.11.8\nPillow\n",
                "pyproject.toml": '[project]\nname = "ComfyUI"\nversion = "0.3.64"\n',
            }
        )
        self.frames_commit = self.frames.commit({"requirements.txt": "colour>=0.4\n", "__init__.py": "", "install.py": "raise SystemExit(1)\n"}, at=AT + 10)
        self.tones_commit = self.tones.commit(
            {"pyproject.toml": '[project]\nname = "comfyui-tones"\nversion = "1.2.0"\ndependencies = ["numpy>=1.25"]\n'}, at=AT + 20
        )
        self.sources = Sources(cache=root / "cache", pack_mirror=str(self.mirrors), find_links=(str(shelf(root / "wheels")),), offline=True, timeout_s=60.0)
        self.target = Target(repository=COMFYUI, base_image="debian:bookworm-slim@sha256:" + "b" * 64)

    def empty_index(self) -> str:
        """An index that has nothing, so that only the shelf counts."""
        folder = self.mirrors.parent / "empty"
        folder.mkdir(exist_ok=True)
        return folder.as_uri()

    def settings(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """settings.BUILD that points here."""
        return {
            **before,
            "CACHE": str(self.sources.cache),
            "COMFYUI_REPOSITORY": COMFYUI,
            "COMFYUI_REF": "",
            "COMFYUI_SOURCE": "",
            "PACK_MIRROR": self.sources.pack_mirror,
            "FIND_LINKS": self.sources.find_links,
            "PACKAGE_INDEX": self.empty_index(),
            "AGENT_REQUIREMENTS": ["yarl"],
            "CONSTRAINTS": [],
            "LEAVE_OUT": [],
            "TORCH_BACKEND": "",
            "BASE_IMAGE": self.target.base_image,
        }

    def with_target(self, **changes: Any) -> Target:
        return replace(self.target, **changes)


def pack(repository: str, version: str = "", *, classes: Iterable[str] = (), registry_id: str = "") -> dict[str, Any]:
    """A pack as a dependency report names it."""
    key = f"cnr:{registry_id}" if registry_id else repository
    return {"key": key, "registry_id": registry_id, "repository": repository, "version": version, "classes": list(classes), "why": "asked for"}


def report(*packs: dict[str, Any], core: Iterable[str] = ("EmptyImage", "SaveImage"), models: Iterable[dict[str, Any]] = (), **changes: Any) -> dict[str, Any]:
    """A dependency report in which everything is found."""
    classes = [{"class": name, "nodes": ["1"], "status": "core", "pack": None, "candidates": []} for name in core]
    classes += [{"class": name, "nodes": ["2"], "status": "resolved", "pack": one, "candidates": []} for one in packs for name in one["classes"]]
    return {"comfyui": {"version": "0.3.64"}, "classes": classes, "packs": list(packs), "models": list(models), "findings": [], **changes}
