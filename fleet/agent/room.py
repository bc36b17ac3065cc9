"""What the machine has left: told with every heartbeat, asked before every claim."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from fleet.agent import preflight
from fleet.agent.comfy import EngineUnreachable
from fleet.agent.config import Settings
from fleet.agent.keeper import Keeper
from fleet.agent.logs import Log

log = Log(__name__)

VRAM_EVERY_S = 5.0


class Room:
    """Disk, memory and video memory; `short` names what is lacking for a job."""

    def __init__(self, settings: Settings, work_dir: Path) -> None:
        self.short: list[str] = []
        self._settings, self._work_dir = settings, work_dir
        self._vram: tuple[int, int] = (0, 0)

    def body(self) -> dict[str, Any]:
        """The usage part of a heartbeat."""
        return preflight.usage(self._work_dir, self._vram).body(self.short)

    def look(self) -> bool:
        """See what is lacking now; whether that changed."""
        usage = preflight.usage(self._work_dir)
        bounds = {"min_free_disk_bytes": self._settings.min_free_disk_bytes, "min_free_ram_bytes": self._settings.min_free_ram_bytes}
        short = preflight.shortages(usage, **bounds)
        if short == self.short:
            return False
        free = {"disk_free_bytes": usage.disk_free_bytes, "ram_free_bytes": usage.ram_free_bytes}
        log.warning("short of resources" if short else "room again", short=short, **free)
        self.short = short
        return True

    async def watch_vram(self, keeper: Keeper) -> None:
        """Ask the engine every few seconds; without a GPU there is nothing to ask."""
        while preflight.vram_of(keeper.stats) != (0, 0):
            with contextlib.suppress(EngineUnreachable, AssertionError):
                self._vram = preflight.vram_of(await keeper.comfy.system_stats())
            await asyncio.sleep(VRAM_EVERY_S)
