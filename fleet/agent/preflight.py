"""Is there room for a job? Asked before every claim: a worker that is short leaves the job to others."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fleet.agent import cgroups


@dataclass(frozen=True)
class Usage:
    """What the machine has and uses, as the heartbeat reports it."""

    ram_used_bytes: int
    ram_total_bytes: int
    ram_free_bytes: int
    disk_free_bytes: int
    cpu_percent: float
    vram_used_bytes: int = 0
    vram_total_bytes: int = 0

    def body(self, short: list[str]) -> dict[str, Any]:
        return {
            "ram_used_bytes": self.ram_used_bytes,
            "ram_total_bytes": self.ram_total_bytes,
            "disk_free_bytes": self.disk_free_bytes,
            "vram_used_bytes": self.vram_used_bytes,
            "vram_total_bytes": self.vram_total_bytes,
            "cpu_percent": self.cpu_percent,
            "short": short,
        }


def shortages(usage: Usage, *, min_free_disk_bytes: int, min_free_ram_bytes: int) -> list[str]:
    """What is lacking, by name. Pure."""
    lacking = []
    if usage.disk_free_bytes < min_free_disk_bytes:
        lacking.append("disk")
    if usage.ram_free_bytes < min_free_ram_bytes:
        lacking.append("ram")
    return lacking


def usage(work_dir: Path, vram: tuple[int, int] = (0, 0)) -> Usage:
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    allowed = cgroups.memory()
    if allowed is not None and allowed[0] < total:
        total, free = allowed[0], min(allowed[1], free)
    return Usage(
        ram_used_bytes=total - free,
        ram_total_bytes=total,
        ram_free_bytes=free,
        disk_free_bytes=shutil.disk_usage(work_dir).free,
        cpu_percent=psutil.cpu_percent(),
        vram_used_bytes=vram[0],
        vram_total_bytes=vram[1],
    )


def vram_of(stats: dict[str, Any]) -> tuple[int, int]:
    """Used and total GPU memory from /system_stats; nothing for a CPU, whose "vram" is RAM. Pure."""
    device = (stats.get("devices") or [{}])[0]
    if device.get("type") in (None, "cpu"):
        return 0, 0
    total, free = int(device.get("vram_total") or 0), int(device.get("vram_free") or 0)
    return max(total - free, 0), total
