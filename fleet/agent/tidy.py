"""After a job: customers' files do not stay, and disks do not fill."""

from __future__ import annotations

import asyncio
import contextlib
import shutil

from fleet.agent import inputs
from fleet.agent.comfy import EngineUnreachable
from fleet.agent.keeper import Keeper
from fleet.agent.run import JobRun, Report


async def after(keeper: Keeper, run: JobRun, report: Report) -> None:
    """Remove what only this job needed; files only where the engine is ours."""
    with contextlib.suppress(EngineUnreachable, AssertionError):
        if report.prompt_id:
            await keeper.comfy.forget(report.prompt_id)
    if keeper.engine.owned:
        await asyncio.to_thread(_remove, keeper, run, report.unique)


def _remove(keeper: Keeper, run: JobRun, unique: str) -> None:
    work_dir = keeper.engine.work_dir
    if unique:
        # Only the folder of the attempt's own prefix: the cache may name other nodes' files again.
        shutil.rmtree(work_dir / "output" / unique, ignore_errors=True)
    for file in run.assignment.get("files") or []:
        with contextlib.suppress(ValueError, OSError):
            folder, name = inputs.safe_name(str(file["name"]))
            (work_dir / "input" / folder / name).unlink()
