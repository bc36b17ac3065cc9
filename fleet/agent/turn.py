"""One job on this worker: run it, report its end, and leave the engine as the next one needs it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fleet.agent import classify, completion, tidy
from fleet.agent.comfy import EngineUnreachable
from fleet.agent.control import Retired, Stale
from fleet.agent.logs import Log
from fleet.agent.run import JobRun, Report

if TYPE_CHECKING:
    from fleet.agent.loop import Agent

log = Log(__name__)


async def run_job(agent: Agent, assignment: Mapping[str, Any]) -> None:
    """From the assignment to an engine that is ready for the next. A defect of ours costs the attempt, not the worker."""
    run = JobRun(
        assignment,
        agent.keeper.comfy,
        agent.control,
        agent.settings.patience,
        agent.keeper.classes,
        agent.settings.max_input_bytes,
        on_progress=agent.moved,
        shelf=agent.shelf,
    )
    agent.current, agent.renewed_at = run, time.monotonic()
    log.info("claimed", workflow=assignment.get("workflow"), nodes=len(assignment.get("graph") or {}), files=len(assignment.get("files") or []))
    if not agent.keeper.ready:
        await agent.keeper.make_ready()
        run.comfy, run.classes, run.death = agent.keeper.comfy, agent.keeper.classes, None
    socket = agent.keeper.socket()
    try:
        report = await _executed(agent, run, socket)
        if report is not None:
            await _complete(agent, run, report)
    except Retired:
        agent.retired()
        return
    finally:
        agent.current = None
        await socket.close()
    if report is not None:
        await _aftermath(agent, run, report)


async def _executed(agent: Agent, run: JobRun, socket: Any) -> Report | None:
    try:
        return await run.execute(socket)
    except Stale:
        log.warning("attempt is stale, dropped")
        return None
    except (Retired, asyncio.CancelledError):
        raise
    except Exception as error:  # a bug here must cost one attempt, not the worker
        log.error("agent failed", exc_info=True)
        report = run.failed(classify.platform("agent_error", f"The worker agent failed: {type(error).__name__}: {error}"))
        report.stuck = True  # the prompt may still run
        return report


async def _complete(agent: Agent, run: JobRun, report: Report) -> None:
    if report.body is None:
        log.info("job dropped", reason=run.stop_reason)
        return
    if report.body["outcome"] == "succeeded":
        agent.remember(run.assignment.get("warm_key"))
        if agent.shelf is not None:
            await agent.shelf.remember(run.assignment.get("warm_key"), run.models)
    # By then the lease is gone for certain, and another worker has the job.
    patience_s = max(2 * agent.rhythm.lease_s, 30.0)
    await completion.send(agent.control, run, report, warm=list(agent.warm), until=lambda: time.monotonic() - agent.renewed_at < patience_s)


async def _aftermath(agent: Agent, run: JobRun, report: Report) -> None:
    """Leave the engine as the next job needs it."""
    keeper = agent.keeper
    if keeper.engine.died.is_set() or report.code == "engine_crashed":
        keeper.doubt()
        return
    if report.stuck or report.restart_engine:
        if keeper.engine.owned:
            await keeper.condemn(report.code or "it did not obey an interrupt")
        while not keeper.engine.owned and agent.leaving is None and not agent.draining and not await keeper.settle():
            await agent.waker.nap(1.0)
        keeper.doubt()
        return
    keeper.proved()
    if report.free_memory:
        agent.warm.clear()
        with contextlib.suppress(EngineUnreachable):
            await keeper.comfy.free()
    task = asyncio.create_task(tidy.after(agent.keeper, run, report))
    agent.background.add(task)
    task.add_done_callback(agent.background.discard)
