"""What a worker runs before its first claim: small jobs of the versions its pool serves, as the control plane named them.

The tiny warm-up says that the engine works; these say that it works for what customers will ask, and leave their models
loaded. Bounded in number by who sends them and in seconds here: what does not fit is left out and said so.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.agent import inputs, outputs, prefixes
from fleet.agent.comfy import Comfy, EngineUnreachable
from fleet.agent.config import Patience
from fleet.agent.drive import Drive
from fleet.agent.events import EventSocket
from fleet.agent.logs import Log
from fleet.agent.order import Classes, Order
from fleet.agent.shelf import ModelsFailed, ModelsStopped, Shelf

log = Log(__name__)

MOST = 8
LONGEST_S = 600.0
LAST_LINES = 20


@dataclass(frozen=True)
class File:
    """An input file that came with the prompt."""

    name: str
    media_type: str
    node: str
    input: str
    data: bytes


@dataclass(frozen=True)
class Piece:
    """One small job."""

    title: str
    graph: Mapping[str, Any]
    files: tuple[File, ...] = ()
    warm_key: str = ""
    models: tuple[Mapping[str, Any], ...] = ()


@dataclass
class Rehearsal:
    """The pieces, the seconds they have together, and how far it is: none, running, passed or failed."""

    pieces: tuple[Piece, ...] = ()
    within_s: float = 60.0
    state: str = "none"
    shelf: Shelf | None = None
    warm: list[str] = field(default_factory=list)  # keys of the models that passed pieces loaded
    done: int = 0
    left_out: int = 0
    message: str = ""
    log: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def due(self) -> bool:
        return bool(self.pieces) and self.state != "passed"

    def body(self) -> dict[str, Any]:
        """As heartbeats carry it."""
        said = {"state": self.state, "done": self.done, "of": len(self.pieces), "left_out": self.left_out, "seconds": round(self.seconds, 3)}
        return said | ({"message": self.message[:500], "log": self.log[-LAST_LINES:]} if self.message else {})

    def failed(self, message: str, tail: list[str]) -> None:
        """Keep why, with the engine's last lines."""
        self.state, self.message, self.log = "failed", message, list(tail)[-LAST_LINES:]


def read(answer: Any) -> Rehearsal:
    """The rehearsal in the answer to a registration. What cannot be read is left out: it must keep no worker from working."""
    given = answer.get("warmup") if isinstance(answer, Mapping) else None
    if not isinstance(given, Mapping):
        return Rehearsal()
    rows = given.get("prompts")
    pieces = [piece for row in (rows if isinstance(rows, list) else [])[:MOST] if (piece := _piece(row)) is not None]
    within = given.get("within_s")
    return Rehearsal(tuple(pieces), min(float(within), LONGEST_S) if isinstance(within, int | float) and within > 0 else 60.0)


def _piece(row: Any) -> Piece | None:
    if not isinstance(row, Mapping) or not isinstance(row.get("graph"), Mapping) or not row["graph"]:
        return None
    try:
        files = tuple(
            File(str(f["name"]), str(f.get("media_type") or ""), str(f["node"]), str(f["input"]), base64.b64decode(f["data"], validate=True))
            for f in row.get("files") or []
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    models = tuple(m for m in row.get("models") or [] if isinstance(m, Mapping))
    return Piece(f"{row.get('workflow', '?')} v{row.get('version', '?')}"[:120], row["graph"], files, str(row.get("warm_key") or ""), models)


async def run(
    plan: Rehearsal, *, comfy: Comfy, socket: Callable[[], EventSocket], patience: Patience, classes: Classes, work_dir: Path | None, moved: Callable[[], None]
) -> str | None:
    """Run what is in `plan`; None when all of it passed, else why not. `work_dir` is the engine's, where it is ours to tidy."""
    began = time.monotonic()
    plan.state, plan.done, plan.left_out, plan.message = "running", 0, 0, ""
    plan.warm.clear()
    moved()
    for piece in plan.pieces:
        left = plan.within_s - (time.monotonic() - began)
        # Models that are not on this host's disk yet may take minutes: the first job that wants them waits for them, not every worker.
        if (left <= 0 and plan.done) or (piece.models and plan.shelf is not None and piece.warm_key not in plan.shelf.stored):
            plan.left_out += 1
            continue
        reason = await _one(piece, plan.shelf, within_s=max(left, 1.0), comfy=comfy, socket=socket, patience=patience, classes=classes, work_dir=work_dir)
        plan.seconds = time.monotonic() - began
        if reason is not None:
            return f"{piece.title}: {reason}"
        plan.done += 1
        plan.warm += [piece.warm_key] if piece.warm_key else []
        moved()
    plan.state = "passed"
    log.info("rehearsed", prompts=plan.done, left_out=plan.left_out, seconds=round(plan.seconds, 3))
    moved()
    return None


async def _one(
    piece: Piece,
    shelf: Shelf | None,
    *,
    within_s: float,
    comfy: Comfy,
    socket: Callable[[], EventSocket],
    patience: Patience,
    classes: Classes,
    work_dir: Path | None,
) -> str | None:
    unique = prefixes.folder(piece.title, 0)
    graph, placed = prefixes.make_unique(piece.graph, unique), []
    opened = socket()
    drive: Drive | None = None
    try:
        if piece.models and shelf is not None:
            await shelf.bring(piece.models, job=unique, stop=threading.Event(), within_s=within_s)
        for file in piece.files:
            folder, name = inputs.safe_name(file.name)
            kept = await comfy.upload(name, file.data, file.media_type or "application/octet-stream", folder)
            placed.append(kept)
            if kept != file.name and file.node in graph:
                graph[file.node] = {**graph[file.node], "inputs": {**graph[file.node]["inputs"], file.input: kept}}
        drive = Drive(comfy, opened, Order(graph, timeout_s=within_s, stall_s=within_s), patience=patience, classes=classes)
        conclusion = await drive.conclude()
        if conclusion.failure is not None:
            return conclusion.failure.message
        found = outputs.collect(outputs.merge(conclusion.history, conclusion.executed), unique=unique, frames=conclusion.frames)
        return None if found.outputs else "it had no output"
    except (ValueError, EngineUnreachable, ModelsFailed, ModelsStopped) as error:
        return str(error)
    finally:
        await opened.close()
        if piece.models and shelf is not None:
            await shelf.release(unique)
        await _tidy(comfy, drive, work_dir, unique, placed)


async def _tidy(comfy: Comfy, drive: Drive | None, work_dir: Path | None, unique: str, placed: list[str]) -> None:
    if drive is not None:
        with contextlib.suppress(EngineUnreachable):
            await comfy.forget(drive.prompt_id)
    if work_dir is not None:
        await asyncio.to_thread(shutil.rmtree, work_dir / "output" / unique, True)
        for name in placed:
            with contextlib.suppress(OSError):
                (work_dir / "input" / name).unlink()
