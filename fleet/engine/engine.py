"""The engine as one object: queue, history, cache and the thread that runs prompts."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import fleet.engine.nodes  # noqa: F401 - registers the node classes
from fleet.engine.directories import Directories
from fleet.engine.executor import Executor
from fleet.engine.faults import Faults
from fleet.engine.history import History
from fleet.engine.memory import MemoryBudget
from fleet.engine.queue import Queue, Queued
from fleet.engine.sockets import Hub
from fleet.engine.validation import Verdict, validate

# Credentials of a hosted service; they are taken out before a prompt is stored anywhere.
SECRET_KEYS = ("auth_token_comfy_org", "api_key_comfy_org")
IDLE_S = 60.0


@dataclass
class Engine:
    directories: Directories
    memory: MemoryBudget = field(default_factory=MemoryBudget)
    faults: Faults = field(default_factory=Faults)
    allow_faults: bool = False

    def __post_init__(self) -> None:
        self.hub = Hub(self.faults)
        self.history = History()
        self.queue = Queue(changed=self._announce)
        self.executor = Executor(self.hub, self.directories, self.memory, self.faults)
        self._number = 0

    def start(self) -> None:
        """Run prompts from now on, in a thread that ends with the process."""
        threading.Thread(target=self._work, name="prompts", daemon=True).start()

    def status(self) -> dict[str, Any]:
        return {"status": {"exec_info": self.exec_info()}}

    def exec_info(self) -> dict[str, int]:
        return {"queue_remaining": self.queue.remaining()}

    def submit(self, body: Any) -> tuple[Verdict, Queued | None]:
        """Judge a POST /prompt body and queue it when something in it can run.

        Raises whatever a malformed body makes Python raise; the server answers 500.
        """
        if "number" in body:
            number = float(body["number"])
        else:
            number = -self._number if _is_true(body, "front") else self._number
            self._number += 1
        if "prompt" not in body:
            problem = {"type": "no_prompt", "message": "No prompt provided", "details": "No prompt provided", "extra_info": {}}
            return Verdict(problem), None
        prompt_id = str(body.get("prompt_id", uuid4()))
        verdict = validate(body["prompt"], targets=body.get("partial_execution_targets"), directories=self.directories)
        if verdict.error is not None:
            return verdict, None
        extra_data = {key: value for key, value in body.get("extra_data", {}).items() if key not in SECRET_KEYS}
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        extra_data["create_time"] = int(time.time() * 1000)
        item = Queued(number, prompt_id, body["prompt"], extra_data, verdict.outputs)
        self.queue.put(item)
        return verdict, item

    def interrupt(self, prompt_id: str | None) -> None:
        """Stop the running prompt; with an id only when that one runs."""
        if prompt_id is None or any(item.prompt_id == prompt_id for item in self.queue.running):
            self.executor.interrupt.set()

    def _announce(self) -> None:
        self.hub.send("status", self.status())

    def _work(self) -> None:
        while True:
            item = self.queue.take(IDLE_S)
            if item is not None:
                self._run(item)
            if self.queue.take_free():
                self.executor.free()

    def _run(self, item: Queued) -> None:
        try:
            entry = self.executor.execute(item)
        except Exception:
            # The thread must survive whatever a prompt does; the client still gets an end.
            traceback.print_exc()
            status = {"status_str": "error", "completed": False, "messages": []}
            entry = {"prompt": item.shown(), "outputs": {}, "status": status, "meta": {}}
        self.queue.done(lambda: self.history.put(item.prompt_id, entry))
        if item.client_id is not None:
            self.hub.send("executing", {"node": None, "prompt_id": item.prompt_id}, item.client_id)


def _is_true(body: Any, key: str) -> bool:
    # A body may be any JSON; a text has no `get` and must come out as "no prompt" all the same.
    return key in body and bool(body[key])
