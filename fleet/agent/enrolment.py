"""Register this worker: say what it is, learn the rhythm the control plane wants."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from fleet.agent import VERSION, fingerprint, rehearsal
from fleet.agent.config import Settings
from fleet.agent.control import ControlPlane, Refused, Retired, Stale, Unavailable
from fleet.agent.keeper import Keeper
from fleet.agent.leaving import Leaving
from fleet.agent.logs import Log

log = Log(__name__)


@dataclass(frozen=True)
class Rhythm:
    """The seconds of the worker protocol."""

    lease_s: float = 15.0
    poll_wait_s: float = 20.0
    heartbeat_s: float = 2.0
    silence_exit_s: float = 60.0


@dataclass(frozen=True)
class Measured:
    """What takes a moment to find out, found while the engine starts."""

    gpu: tuple[str, int]
    packages: dict[str, str]


async def measure(settings: Settings) -> Measured:
    gpu, packages = await asyncio.gather(fingerprint.gpu(), fingerprint.packages(settings.engine))
    return Measured(gpu, packages)


async def enrol(control: ControlPlane, settings: Settings, keeper: Keeper, measured: Measured, work_dir: Path) -> Rhythm | Leaving:
    """The rhythm to work in, or why there is nothing to do here."""
    found = fingerprint.describe(
        engine_kind=settings.engine.kind,
        stats=keeper.stats,
        object_info=keeper.object_info,
        gpu_found=measured.gpu,
        package_versions=measured.packages,
        work_dir=work_dir,
    )
    try:
        answer = await control.enrol(
            settings.pool_token, fingerprint.registration(name=settings.name, instance=settings.instance, agent_version=VERSION, found=found)
        )
    except (Retired, Refused, Stale) as error:
        return Leaving("stopped", f"Registration was refused: {error}", 2, tell=False)
    except Unavailable as error:
        return Leaving("silence", f"The control plane cannot be reached: {error}", 3, tell=False)
    keeper.rehearsal = rehearsal.read(answer)
    log.info("registered", worker=answer.get("worker"), rehearsal=len(keeper.rehearsal.pieces))
    return Rhythm(**{name: float(answer[name]) for name in Rhythm.__dataclass_fields__ if name in answer})
