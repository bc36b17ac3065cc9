"""Run a prompt: node after node in one thread, with the messages a client expects.

Interrupts act between nodes. What a node returned stays cached even when a later
one fails, and a failing node never takes the engine down.
"""

from __future__ import annotations

import threading
import time
import traceback
from typing import Any

from fleet.engine.cache import Cache, Entry, array_bytes
from fleet.engine.directories import Directories
from fleet.engine.faults import Faults
from fleet.engine.inputs import arguments
from fleet.engine.memory import MemoryBudget
from fleet.engine.order import Plan, is_link
from fleet.engine.progress import Progress
from fleet.engine.queue import Queued
from fleet.engine.run import Interrupted, Result, Run
from fleet.engine.sockets import Hub
from fleet.engine.specs import NODES, NodeClass
from fleet.engine.validation import type_name


class Executor:
    def __init__(self, hub: Hub, directories: Directories, memory: MemoryBudget, faults: Faults) -> None:
        self.hub = hub
        self.directories = directories
        self.memory = memory
        self.faults = faults
        self.cache = Cache()
        self.interrupt = threading.Event()

    def free(self) -> None:
        """Forget every cached result."""
        self.cache.clear()
        self.memory.held_bytes = 0

    def execute(self, item: Queued) -> dict[str, Any]:
        """Run a queued prompt to its end; returns its history entry."""
        self.interrupt.clear()
        execution = _Execution(self, item)
        try:
            execution.run()
        finally:
            self.hub.current_node = None
            self.faults.prompt_finished()
        return execution.history()


class _Execution:
    """One prompt on its way through the engine."""

    def __init__(self, executor: Executor, item: Queued) -> None:
        self.engine = executor
        self.item = item
        self.cache = executor.cache
        self.progress = Progress(item.prompt_id)
        self.messages: list[list[Any]] = []
        self.executed: list[str] = []
        self.shown: dict[str, Any] = {}
        self.meta: dict[str, Any] = {}
        self.succeeded = False

    def run(self) -> None:
        prompt = self.item.prompt
        self.engine.hub.client_id = self.item.client_id
        self._note("execution_start", {})
        self.cache.begin(prompt, stamp=self._stamp)
        self.engine.memory.held_bytes = self.cache.nbytes
        cached = [node_id for node_id in prompt if self.cache.get(node_id)]
        self._note("execution_cached", {"nodes": cached})
        plan = Plan(
            {node_id: self._sources(node_id) for node_id in prompt},
            self.item.outputs,
            is_terminal=lambda node_id: self._class(node_id).terminal,
            is_cached=lambda node_id: node_id in cached,
        )
        while plan:
            node_id = plan.pick()
            if not self._node(node_id):
                return
            plan.done(node_id)
        self.succeeded = True
        self._note("execution_success", {})

    def _node(self, node_id: str) -> bool:
        """Run one node or take it from the cache; False ends the prompt."""
        entry = self.cache.get(node_id)
        if entry is not None:
            self._repeat(node_id, entry)
            return True
        self._send("progress_state", self.progress.start(node_id))
        if self.item.client_id is not None:
            self.engine.hub.current_node = node_id
            self._send("executing", {"node": node_id, "display_node": node_id, "prompt_id": self.item.prompt_id})
        inputs: dict[str, Any] = {}
        try:
            inputs = self._inputs(node_id)
            if self.engine.interrupt.is_set():
                raise Interrupted
            self.engine.faults.before_node()
            entry = self._call(node_id, inputs)
        except Interrupted:
            self._note("execution_interrupted", {"node_id": node_id, "node_type": self._type(node_id), "executed": self.executed}, broadcast=True)
            return False
        except Exception as error:
            self._failed(node_id, inputs, error)
            return False
        self.cache.put(node_id, entry)
        self.engine.memory.held_bytes += entry.nbytes
        if entry.ui:
            self._show(node_id, entry.ui)
            if self.item.client_id is not None:
                self._send("executed", {"node": node_id, "display_node": node_id, "output": entry.ui, "prompt_id": self.item.prompt_id})
        self.executed.append(node_id)
        self._send("progress_state", self.progress.finish(node_id))
        return True

    def _repeat(self, node_id: str, entry: Entry) -> None:
        # Without a client the cached output is not repeated, not even in history.
        if entry.ui and self.item.client_id is not None:
            self._show(node_id, entry.ui)
            self._send("executed", {"node": node_id, "display_node": node_id, "output": entry.ui, "prompt_id": self.item.prompt_id})
        self._send("progress_state", self.progress.finish(node_id))

    def _given(self, node_id: str) -> dict[str, Any]:
        """The inputs the class knows; others in the prompt are ignored."""
        known = self._class(node_id)
        given = self.item.prompt[node_id].get("inputs", {})
        return {name: value for name, value in given.items() if known.input(name.partition(".")[0])}

    def _sources(self, node_id: str) -> list[str]:
        return [value[0] for value in self._given(node_id).values() if is_link(value)]

    def _inputs(self, node_id: str) -> dict[str, Any]:
        inputs: dict[str, Any] = {}
        for name, value in self._given(node_id).items():
            if is_link(value):
                source = self.cache.get(value[0])
                if source is None:
                    raise KeyError(value[0])
                value = source.outputs[value[1]]
            inputs[name] = value
        return inputs

    def _call(self, node_id: str, inputs: dict[str, Any]) -> Entry:
        known = self._class(node_id)
        if known.run is None:
            raise NotImplementedError(f"{known.name} needs a model; the embedded engine executes only model-free nodes")
        returned = known.run(self._context(node_id), **arguments(inputs))
        if not isinstance(returned, Result):
            returned = Result(outputs=returned if isinstance(returned, tuple) else (returned,))
        return Entry(returned.outputs, returned.ui or None, array_bytes(returned.outputs))

    def _context(self, node_id: str) -> Run:
        def report_progress(value: float, maximum: float) -> None:
            self._send("progress_state", self.progress.update(node_id, value, maximum))
            self._send("progress", {"value": value, "max": maximum, "prompt_id": self.item.prompt_id, "node": node_id})

        return Run(
            node_id=node_id,
            prompt=self.item.prompt,
            extra_data=self.item.extra_data,
            directories=self.engine.directories,
            memory=self.engine.memory,
            interrupt=self.engine.interrupt,
            report_progress=report_progress,
            report_text=lambda text: self.engine.hub.send_node_text(text, node_id, self.item.client_id),
        )

    def _failed(self, node_id: str, inputs: dict[str, Any], error: Exception) -> None:
        details = {
            "node_id": node_id,
            "node_type": self._type(node_id),
            "executed": self.executed,
            "exception_message": f"{error}\n",
            "exception_type": type_name(error),
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": {name: [_readable(value)] for name, value in (inputs | self._hidden(node_id)).items()},
            "current_outputs": list(self.item.prompt),
        }
        self._note("execution_error", details)

    def _hidden(self, node_id: str) -> dict[str, Any]:
        """What first-generation nodes get without asking; error reports list it."""
        known = self._class(node_id)
        values = {"PROMPT": self.item.prompt, "EXTRA_PNGINFO": self.item.extra_data.get("extra_pnginfo"), "UNIQUE_ID": node_id}
        return {} if known.v3 else {name: values[kind] for name, kind in known.hidden.items() if kind in values}

    def _show(self, node_id: str, ui: dict[str, Any]) -> None:
        self.shown[node_id] = ui
        self.meta[node_id] = {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}

    def _note(self, event: str, data: dict[str, Any], *, broadcast: bool = False) -> None:
        """A message that history keeps; sent when somebody asked for it or all must know."""
        data = {"prompt_id": self.item.prompt_id, **data, "timestamp": int(time.time() * 1000)}
        if event == "execution_cached":
            data = {"nodes": data.pop("nodes"), **data}
        self.messages.append([event, data])
        if self.item.client_id is not None or broadcast:
            self._send(event, data)

    def _send(self, event: str, data: dict[str, Any]) -> None:
        self.engine.hub.send(event, data, self.item.client_id)

    def _stamp(self, node_id: str) -> Any:
        known = self._class(node_id)
        if known.stamp is None:
            return None
        given = {name: value for name, value in self._given(node_id).items() if not is_link(value)}
        try:
            return known.stamp(self.engine.directories, **given)
        except Exception:
            # What cannot be read now must be tried again when the node runs.
            return time.monotonic_ns()

    def _type(self, node_id: str) -> str:
        return str(self.item.prompt[node_id]["class_type"])

    def _class(self, node_id: str) -> NodeClass:
        return NODES[self._type(node_id)]

    def history(self) -> dict[str, Any]:
        status = {"status_str": "success" if self.succeeded else "error", "completed": self.succeeded, "messages": self.messages}
        return {"prompt": self.item.shown(), "outputs": self.shown, "status": status, "meta": self.meta}


def _readable(value: Any) -> Any:
    """An input as the error report shows it: plain values as they are, others as text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
