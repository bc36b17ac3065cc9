"""One job from assignment to completion: inputs, drive, outputs, report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fleet.agent import classify, deliver, inputs, outputs, prefixes
from fleet.agent.classify import Failure
from fleet.agent.comfy import Comfy, EngineUnreachable
from fleet.agent.config import Patience
from fleet.agent.control import ControlPlane
from fleet.agent.drive import Drive
from fleet.agent.events import EventSocket
from fleet.agent.logs import Log
from fleet.agent.order import Classes, Conclusion, Order
from fleet.agent.shelf import Loading, ModelsFailed, ModelsStopped, Shelf

log = Log(__name__)

SILENT_STOPS = ("lost", "retired", "silence")  # nobody wants to hear of the job any more


@dataclass
class Report:
    """What `complete` says, and what the loop must do about the engine. `body` is None when nothing is to be reported."""

    body: dict[str, Any] | None
    code: str | None = None
    free_memory: bool = False
    restart_engine: bool = False
    stuck: bool = False
    prompt_id: str = ""
    unique: str = ""


@dataclass
class Timings:
    models_s: float = 0.0
    inputs_s: float = 0.0
    submit_s: float = 0.0
    queue_s: float = 0.0
    load_s: float = 0.0
    run_s: float = 0.0
    upload_s: float = 0.0
    busy_s: float = 0.0

    def body(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in vars(self).items()}


@dataclass
class JobRun:
    """The job at hand. Heartbeats read `progress`; verdicts arrive by `stop`."""

    assignment: Mapping[str, Any]
    comfy: Comfy
    control: ControlPlane
    patience: Patience
    classes: Classes
    max_input_bytes: int
    on_progress: Callable[[], None]
    claimed_at: float = field(default_factory=time.monotonic)
    progress: float = 0.0
    node: str | None = None
    timings: Timings = field(default_factory=Timings)
    drive: Drive | None = None
    stop_reason: str | None = None
    death: str | None = None
    shelf: Shelf | None = None
    loading: Loading | None = None
    models: list[str] = field(default_factory=list)
    _not_wanted: threading.Event = field(default_factory=threading.Event)

    @property
    def job(self) -> str:
        return str(self.assignment["job"])

    @property
    def attempt(self) -> int:
        return int(self.assignment["attempt"])

    def stop(self, reason: str) -> None:
        """Interrupt the job wherever it is."""
        if self.stop_reason is None:
            self.stop_reason = reason
            log.info("stopping job", reason=reason)
        self._not_wanted.set()
        if self.drive is not None:
            self.drive.stop(reason)

    def engine_died(self, message: str) -> None:
        self.death = message
        if self.drive is not None:
            self.drive.engine_died(message)

    def heartbeat(self) -> dict[str, Any]:
        node = self.assignment["graph"].get(self.node or "") or {}
        title = (node.get("_meta") or {}).get("title") or node.get("class_type")
        row = {"job": self.job, "attempt": self.attempt, "progress": round(self.progress, 4), "node": self.node, "node_title": title}
        return row if self.loading is None else {**row, "phase": "loading", **vars(self.loading)}

    async def execute(self, socket: EventSocket) -> Report:
        """Run it. Raises Stale or Retired when the control plane says so during a transfer."""
        unique = prefixes.folder(self.job, self.attempt)
        try:
            report = await self._bring_models() or await self._execute(socket, unique)
        finally:
            if self.models and self.shelf is not None:
                await self.shelf.release(self._holding)
        report.unique = unique
        return report

    @property
    def _holding(self) -> str:
        return f"{self.job}/{self.attempt}"

    async def _bring_models(self) -> Report | None:
        """Have the models here before the engine is asked for anything; the report when that cannot be."""
        models = self.assignment.get("models") or []
        if not models or self.shelf is None:
            return None
        began = time.monotonic()
        try:
            self.models = await self.shelf.bring(models, job=self._holding, stop=self._not_wanted, within_s=self._deadline_in_s(), on_progress=self._loaded)
        except ModelsFailed as error:
            return self._failed(error.failure)
        except ModelsStopped:
            return self._stopped(self.stop_reason or "sigterm")
        finally:
            self.timings.models_s = time.monotonic() - began
            self.loading = None
        return None

    def _loaded(self, loading: Loading) -> None:
        self.loading = loading
        self.on_progress()

    async def _execute(self, socket: EventSocket, unique: str) -> Report:
        graph = prefixes.make_unique(self.assignment["graph"], unique)
        files = self.assignment.get("files") or []
        if files:
            began = time.monotonic()
            try:
                graph = await inputs.place(files, graph, comfy=self.comfy, fetch=self._fetch, max_bytes=self.max_input_bytes)
            except inputs.InputFailed as error:
                return self._failed(error.failure)
            except EngineUnreachable as error:
                return self._failed(classify.engine_crashed(f"ComfyUI did not take an input file: {error}"))
            self.timings.inputs_s = time.monotonic() - began
        deadline_in_s = self._deadline_in_s()
        if deadline_in_s is not None and deadline_in_s <= 0:
            return self._failed(classify.deadline_passed())
        order = Order(
            graph=graph,
            extra_data=self.assignment.get("extra_data") or {},
            weights=self.assignment.get("weights") or {},
            timeout_s=float(self.assignment.get("timeout_s") or 600),
            stall_s=float(self.assignment.get("stall_s") or 120),
            deadline_in_s=deadline_in_s,
            input_nodes={str(f.get("node")) for f in files},
            max_stream_bytes=self._max_output_bytes,
        )
        self.drive = Drive(self.comfy, socket, order, patience=self.patience, classes=self.classes, on_progress=self._moved)
        if self.stop_reason:
            self.drive.stop(self.stop_reason)
        if self.death:
            self.drive.engine_died(self.death)
        log.debug("submitting", prompt_id=self.drive.prompt_id, after_s=round(time.monotonic() - self.claimed_at, 4))
        conclusion = await self.drive.conclude()
        return await self._concluded(conclusion, unique)

    async def _concluded(self, conclusion: Conclusion, unique: str) -> Report:
        assert self.drive is not None
        clock, timings = self.drive.clock, self.timings
        timings.submit_s, timings.queue_s = conclusion.submit_s, conclusion.queue_s
        timings.load_s, timings.run_s = clock.load_s, clock.run_s
        self.node = None
        if conclusion.stopped is not None:
            report = self._stopped(conclusion.stopped)
        elif conclusion.failure is not None:
            report = self._failed(conclusion.failure)
        else:
            report = await self._deliver(conclusion, unique)
        report.stuck, report.prompt_id = conclusion.stuck, conclusion.prompt_id
        return report

    async def _deliver(self, conclusion: Conclusion, unique: str) -> Report:
        began = time.monotonic()
        found = outputs.collect(outputs.merge(conclusion.history, conclusion.executed), unique=unique, frames=conclusion.frames)
        if found.ignored or found.skipped_previews:
            log.info("not stored", previews=found.skipped_previews, values=list(found.ignored))
        if not found.outputs:
            return self._failed(classify.no_outputs(found.reported))
        try:
            rows = await deliver.deliver(found.outputs, comfy=self.comfy, put=self._put, max_bytes=self._max_output_bytes)
        except deliver.NotDelivered as error:
            self.timings.upload_s = time.monotonic() - began
            return self._failed(error.failure)
        self.timings.upload_s = time.monotonic() - began
        if self.stop_reason == "cancel" or self.stop_reason in SILENT_STOPS:
            return self._stopped(self.stop_reason)
        self.progress = 1.0
        return Report(self._body("succeeded", None, rows))

    def failed(self, failure: Failure) -> Report:
        """The report of a job that failed outside of its run."""
        return self._failed(failure)

    def _failed(self, failure: Failure) -> Report:
        log.warning("job failed", code=failure.code, failure_class=failure.failure_class, message=failure.message)
        if self.stop_reason in SILENT_STOPS:
            return Report(None)
        return Report(
            self._body("failed", failure, []),
            code=failure.code,
            free_memory=failure.code == "out_of_memory",
            restart_engine=failure.restart_engine,
        )

    def _stopped(self, reason: str) -> Report:
        if reason in SILENT_STOPS:
            return Report(None)
        if reason == "cancel":
            return Report(self._body("canceled", None, []), code="canceled")
        return self._failed(classify.worker_stopped())

    def _body(self, outcome: str, failure: Failure | None, rows: list[dict[str, Any]]) -> dict[str, Any]:
        self.timings.busy_s = time.monotonic() - self.claimed_at
        return {
            "outcome": outcome,
            "error": failure.body() if failure else None,
            "outputs": rows,
            "timings": self.timings.body(),
            "nodes": self.drive.clock.rows() if self.drive else [],
            "warm": [],
        }

    def _moved(self, fraction: float, node: str | None) -> None:
        self.progress, self.node = max(self.progress, fraction), node
        self.on_progress()

    async def _fetch(self, sha256: str, max_bytes: int) -> bytes:
        return await self.control.input_file(self.job, self.attempt, sha256, max_bytes)

    async def _put(self, index: int, data: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        return await self.control.put_output(self.job, self.attempt, index, data, headers)

    @property
    def _max_output_bytes(self) -> int:
        return int(self.assignment.get("max_output_bytes") or 256 * 1024**2)

    def _deadline_in_s(self) -> float | None:
        raw = self.assignment.get("deadline_at")
        return (datetime.fromisoformat(raw) - datetime.now(UTC)).total_seconds() if raw else None
