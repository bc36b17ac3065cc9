"""Drive one prompt through ComfyUI to a conclusion that can be trusted.

The websocket is fast and may lie by silence; history is slow and true. Events move the progress
bar and tell when to look; what happened is read from history.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from fleet.agent import classify, submission, verdicts
from fleet.agent.classify import Failure
from fleet.agent.comfy import Comfy, EngineUnreachable
from fleet.agent.config import Patience
from fleet.agent.events import Event, EventSocket
from fleet.agent.logs import Log
from fleet.agent.order import Classes, Conclusion, Order
from fleet.agent.progress import Progress
from fleet.agent.timings import NodeClock
from fleet.agent.verdicts import Verdict

log = Log(__name__)

STREAMING_CLASS = "SaveImageWebsocket"  # its images come only through the socket, as binary frames
SOCKET_WAIT_S = 3.0
LATE_HISTORY_S = 3.0
HASTY = ("sigterm", "silence", "retired")  # the agent goes anyway, so it does not wait long for the engine
HASTY_GRACE_S = 2.0


class Drive:
    """One prompt. `conclude` runs it; `stop` and `engine_died` may be called meanwhile."""

    def __init__(
        self,
        comfy: Comfy,
        socket: EventSocket,
        order: Order,
        *,
        patience: Patience,
        classes: Classes | None = None,
        on_progress: Callable[[float, str | None], None] | None = None,
        prompt_id: str | None = None,
    ) -> None:
        self.prompt_id = prompt_id or str(uuid.uuid4())
        self.progress = Progress(order.graph, order.weights, (classes or Classes()).outputs)
        self.clock = NodeClock(order.graph)
        self._comfy, self._socket, self._order, self._patience = comfy, socket, order, patience
        self._classes = classes or Classes()
        self._on_progress = on_progress or (lambda fraction, node: None)
        self._executed: dict[str, Any] = {}
        self._frames: list[tuple[str, bytes]] = []
        self._frame_bytes = 0
        self._last_words: tuple[str, Mapping[str, Any]] | None = None  # the final event seen on the socket
        self._ended_at: float | None = None
        self._stop: str | None = None
        self._stop_failure: Failure | None = None
        self._died: str | None = None
        self._interrupted_at: float | None = None
        self._unreachable_since: float | None = None
        self._submit_s = 0.0
        self._accepted_at = 0.0
        now = time.monotonic()
        self._last_sign = self._last_event = now
        self._next_poll = now + patience.poll_s

    def stop(self, reason: str) -> None:
        """Interrupt the prompt for a reason of ours (cancel, lost, sigterm, silence)."""
        self._stop = self._stop or reason
        self._socket.queue.put_nowait(Event("wake"))

    def engine_died(self, message: str) -> None:
        self._died = message
        self._socket.queue.put_nowait(Event("wake"))

    async def conclude(self) -> Conclusion:
        """Submit and watch until the end, a bound, a stop or a crash. Does not raise for what ComfyUI does."""
        refused = await self._submit()
        if refused is None:
            conclusion = await self._watch()
        else:
            conclusion = self._done(failure=refused)
        self.clock.end(time.monotonic())
        conclusion.submit_s = self._submit_s
        conclusion.queue_s = max((self.clock.started_at or self._accepted_at) - self._accepted_at, 0.0)
        log.debug("concluded", prompt_id=self.prompt_id, stopped=conclusion.stopped, stuck=conclusion.stuck)
        return conclusion

    async def _submit(self) -> Failure | None:
        await self._socket.ready(SOCKET_WAIT_S)
        body = {
            "prompt": self._order.graph,
            "client_id": self._socket.client_id,
            "prompt_id": self.prompt_id,
            "extra_data": dict(self._order.extra_data),
        }
        began = time.monotonic()
        handed = await submission.hand_over(self._comfy, body, gone_s=self._patience.gone_s, given_up=lambda: self._died is not None or self._stop is not None)
        self.prompt_id = handed.prompt_id
        if handed.in_part:
            await self._quiet_interrupt()
        if handed.failure is not None:
            return handed.failure
        self._accepted_at = self._last_sign = self._last_event = time.monotonic()
        self._submit_s = self._accepted_at - began
        return None

    async def _watch(self) -> Conclusion:
        while True:
            if self._died is not None:
                return self._done(failure=classify.engine_crashed(self._died))
            now = time.monotonic()
            await self._bounds(now)
            if self._interrupted_at is not None and now - self._interrupted_at > self._grace_s:
                return self._done(stuck=True)
            if now >= self._next_poll:
                conclusion = await self._poll()
                if conclusion is not None:
                    return conclusion
                continue
            event = await self._next_event(self._wake_in(now))
            if event is not None:
                self._take(event)

    async def _next_event(self, timeout_s: float) -> Event | None:
        queue = self._socket.queue
        if not queue.empty():
            return queue.get_nowait()
        try:
            async with asyncio.timeout(max(timeout_s, 0.001)):
                return await queue.get()
        except TimeoutError:
            return None

    def _wake_in(self, now: float) -> float:
        at = [self._next_poll, self._last_sign + self._order.stall_s, self._accepted_at + self._order.timeout_s]
        if self._order.deadline_in_s is not None:
            at.append(self._accepted_at + self._order.deadline_in_s)
        if self._interrupted_at is not None:
            at = [self._next_poll, self._interrupted_at + self._grace_s]
        return max(min(at) - now, 0.0)

    @property
    def _grace_s(self) -> float:
        return min(self._patience.interrupt_grace_s, HASTY_GRACE_S) if self._stop in HASTY else self._patience.interrupt_grace_s

    async def _bounds(self, now: float) -> None:
        """Find out whether it is time to interrupt, and do it once."""
        if self._interrupted_at is not None:
            return
        order, node = self._order, self.progress.node
        if self._stop is None:
            if order.deadline_in_s is not None and now - self._accepted_at >= order.deadline_in_s:
                self._stop, self._stop_failure = "deadline", classify.deadline_passed()
            elif now - self._accepted_at >= order.timeout_s:
                self._stop, self._stop_failure = "timeout", classify.run_timeout(order.timeout_s, node)
            elif now - self._last_sign >= order.stall_s:
                self._stop, self._stop_failure = "stall", classify.engine_stalled(order.stall_s, node)
        if self._stop is None:
            if now - self._last_event > self._patience.quiet_socket_s:
                self._last_event = now
                await self._socket.renew()
            return
        log.warning("interrupting", reason=self._stop, node=node)
        self._interrupted_at = now
        self._next_poll = now + 0.05
        await self._quiet_interrupt()

    async def _quiet_interrupt(self) -> None:
        try:
            await self._comfy.interrupt(self.prompt_id)
        except EngineUnreachable as error:
            log.warning("interrupt failed", error=str(error))

    def _take(self, event: Event) -> None:
        """One event from the socket."""
        now = time.monotonic()
        if event.kind in ("closed", "wake"):
            self._next_poll = min(self._next_poll, now + 0.02)
            return
        owner = event.data.get("prompt_id")
        if owner is not None and owner != self.prompt_id:
            return
        self._last_event = now
        if event.kind == "frame":
            self._last_sign = now
            self._keep_frame(event)
            return
        if owner is None:
            # After a reconnect the server repeats the current node without a prompt id: no sign of life.
            if event.kind == "executing" and event.data.get("node") is not None:
                self.progress.event("executing", event.data)
            return
        self._last_sign = now
        self.clock.event(event.kind, event.data, event.at)
        if self.progress.event(event.kind, event.data):
            self._on_progress(self.progress.fraction, self.progress.node)
        if event.kind == "executed" and isinstance(event.data.get("output"), dict):
            self._executed[str(event.data.get("node"))] = event.data["output"]
        elif event.kind in ("execution_success", "execution_error", "execution_interrupted"):
            # History is written after this and before executing{node: null}; look soon, but not yet.
            self._last_words = (event.kind, event.data)
            self._next_poll = min(self._next_poll, now + 0.25)
        elif event.kind == "executing" and event.data.get("node") is None:
            self._ended_at = now
            self._next_poll = now

    def _keep_frame(self, event: Event) -> None:
        node = str(event.data.get("node") or self.progress.node or "")
        if (self._order.graph.get(node) or {}).get("class_type") != STREAMING_CLASS:
            return
        self._frame_bytes += len(event.payload)
        if self._frame_bytes <= self._order.max_stream_bytes:
            self._frames.append((node, event.payload))

    async def _poll(self) -> Conclusion | None:
        """Ask history; when it knows nothing, make sure that the queue still does."""
        now = time.monotonic()
        self._next_poll = now + (0.1 if self._interrupted_at is not None or self._ended_at is not None else self._patience.poll_s)
        try:
            entry = await self._comfy.history(self.prompt_id)
            state = await self._comfy.queued(self.prompt_id) if entry is None else None
            if entry is None and state is None:
                # It may have ended between the two questions.
                entry = await self._comfy.history(self.prompt_id)
        except EngineUnreachable as error:
            self._unreachable_since = self._unreachable_since or now
            self._next_poll = now + min(self._patience.poll_s, 0.5)
            if now - self._unreachable_since >= self._patience.gone_s:
                return self._done(failure=classify.engine_crashed(f"ComfyUI stopped answering during the run: {error}"))
            return None
        self._unreachable_since = None
        if entry is not None:
            self._drain_events()
            return self._from_history(entry)
        if state == "pending":
            self._last_sign = now
        return self._forgotten(now) if state is None else None

    def _drain_events(self) -> None:
        """Events that arrived before history was read still carry timings and cached outputs."""
        while not self._socket.queue.empty():
            self._take(self._socket.queue.get_nowait())

    def _from_history(self, entry: Mapping[str, Any]) -> Conclusion:
        verdict = verdicts.from_history(entry)
        return self._verdict(verdict, entry)

    def _forgotten(self, now: float) -> Conclusion | None:
        """Neither queue nor history knows the prompt."""
        if self._interrupted_at is not None:
            return self._done()
        if self._last_words is not None:
            # Its history was removed by somebody; the socket saw the end.
            if self._ended_at is None or now - self._ended_at < LATE_HISTORY_S:
                self._ended_at = self._ended_at or now
                self._next_poll = now + 0.1
                return None
            return self._verdict(verdicts.from_event(*self._last_words), {})
        return self._done(failure=classify.engine_crashed("ComfyUI restarted and forgot the job."))

    def _verdict(self, verdict: Verdict, entry: Mapping[str, Any]) -> Conclusion:
        if verdict.success:
            if self._stop in ("cancel", "lost"):
                return self._done()
            self._stop = self._stop_failure = None
            return self._done(history=entry.get("outputs") or {})
        if self._stop is not None and verdict.interrupted:
            return self._done()
        if verdict.interrupted:
            return self._done(failure=classify.interrupted(verdict.data))
        titles = {n: str((node.get("_meta") or {}).get("title", "")) for n, node in self._order.graph.items() if isinstance(node, dict)}
        if verdict.data is None:
            return self._done(failure=classify.platform("engine_error", "ComfyUI reported an error without saying which."))
        return self._done(
            failure=classify.execution_error(
                verdict.data,
                titles=titles,
                input_nodes=self._order.input_nodes,
                api_classes=self._classes.external,
            )
        )

    def _done(self, *, failure: Failure | None = None, history: Mapping[str, Any] | None = None, stuck: bool = False) -> Conclusion:
        if failure is None:
            failure = self._stop_failure
        stopped = self._stop if failure is None else None
        return Conclusion(self.prompt_id, failure, stopped, history or {}, self._executed, self._frames, stuck)
