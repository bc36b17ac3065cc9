"""What this worker is: hardware, software, node classes. Told once at registration."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from fleet.agent import installed
from fleet.agent.config import EngineChoice
from fleet.agent.order import Classes

MIB = 1024**2
PROTOCOL = 1
PACKAGES_S = 30.0


async def gpu() -> tuple[str, int]:
    """Name and memory of the first GPU by nvidia-smi; ("cpu", 0) without one."""
    binary = shutil.which("nvidia-smi")
    if binary is None:
        return "cpu", 0
    process = await asyncio.create_subprocess_exec(
        binary,
        "--query-gpu=name,memory.total",
        "--format=csv,noheader,nounits",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 10)
    except TimeoutError:
        process.kill()
        return "cpu", 0
    return parse_gpu(out.decode("utf-8", "replace"))


def parse_gpu(text: str) -> tuple[str, int]:
    name, _, memory = (text.strip().splitlines() or [""])[0].rpartition(",")
    return (name.strip(), int(memory) * MIB) if name and memory.strip().isdigit() else ("cpu", 0)


async def packages(choice: EngineChoice) -> dict[str, str]:
    """The packages that nodes import: those of the interpreter ComfyUI runs in, which need not be the agent's."""
    if choice.kind == "external":
        return {}
    if choice.kind == "embedded" or choice.python == sys.executable:
        return await asyncio.to_thread(installed.packages)
    try:
        process = await asyncio.create_subprocess_exec(
            choice.python, installed.__file__, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:  # the start of ComfyUI will say the same louder
        return {}
    try:
        out, _ = await asyncio.wait_for(process.communicate(), PACKAGES_S)
        return {str(name): str(version) for name, version in json.loads(out).items()}
    except (TimeoutError, ValueError, AttributeError):
        return {}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def describe(
    *,
    engine_kind: str,
    stats: Mapping[str, Any],
    object_info: Mapping[str, Any],
    gpu_found: tuple[str, int],
    package_versions: Mapping[str, str],
    work_dir: Path,
) -> dict[str, Any]:
    """The fingerprint of the worker protocol."""
    system = stats.get("system") or {}
    classes = sorted(object_info)
    name, vram = gpu_found
    device = (stats.get("devices") or [{}])[0]
    if vram == 0 and device.get("type") not in (None, "cpu"):
        name, vram = str(device.get("name", "gpu")), int(device.get("vram_total") or 0)
    # The server names itself, also when it runs behind COMFYUI_URL.
    embedded = engine_kind == "embedded" or ("engine" in system and system["engine"] == "embedded")
    return {
        "gpu": name,
        "vram_bytes": vram,
        "ram_bytes": psutil.virtual_memory().total,
        "disk_free_bytes": shutil.disk_usage(work_dir).free,
        "comfyui_version": str(system.get("comfyui_version", "")),
        "engine": "embedded" if embedded else "comfyui",
        # "3.11.7 (main, ...) [GCC ...]": the interpreter of the server, which need not be this one.
        "python": (str(system.get("python_version") or "").split() or [platform.python_version()])[0],
        "packages": dict(package_versions) or _reported(system),
        "node_classes": classes,
        "node_classes_sha256": hashlib.sha256("\n".join(classes).encode()).hexdigest(),
    }


def _reported(system: Mapping[str, Any]) -> dict[str, str]:
    """What a server started by somebody else tells of its packages."""
    return {"torch": str(system["pytorch_version"])} if system.get("pytorch_version") else {}


def classes(object_info: Mapping[str, Any]) -> Classes:
    """Which classes are outputs, and which call a service outside."""

    def having(flag: str) -> frozenset[str]:
        return frozenset(name for name, info in object_info.items() if isinstance(info, dict) and info.get(flag))

    return Classes(outputs=having("output_node"), external=having("api_node"))


def registration(*, name: str, instance: str, agent_version: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The body of /register."""
    return {
        "protocol": PROTOCOL,
        "agent_version": agent_version,
        "instance": instance,
        "name": name,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "fingerprint": dict(found),
    }
