"""Report the end of a job, once and whatever the network does."""

from __future__ import annotations

from collections.abc import Callable

from fleet.agent import classify
from fleet.agent.control import ControlPlane, Refused, Stale, Unavailable, patiently
from fleet.agent.logs import Log
from fleet.agent.run import JobRun, Report

log = Log(__name__)


async def send(control: ControlPlane, run: JobRun, report: Report, *, warm: list[str], until: Callable[[], bool]) -> None:
    """Send the completion, again on errors while `until` holds. What is refused is reported as failed. Raises Retired."""
    body = report.body
    for _ in range(2):
        current = {**(body or {}), "warm": warm}
        try:
            answer = await patiently(lambda sent=current: control.complete(run.job, run.attempt, sent), until=until, what="complete")
        except Stale:
            log.warning("attempt is stale, completion dropped")
            return
        except Unavailable as error:
            log.error("completion given up", error=str(error))
            return
        except Refused as error:
            log.error("completion refused", error=str(error))
            missing = error.code == "output_missing"
            failure = classify.output_not_stored("of the job", str(error)) if missing else classify.platform("report_refused", str(error))
            body = run.failed(failure).body
            continue
        log.info("completed", outcome=current["outcome"], code=report.code, duplicate=bool(answer.get("duplicate")), **run.timings.body())
        return
