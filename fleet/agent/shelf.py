"""A job's models: brought to this host and put where its ComfyUI looks, before the prompt is sent, and held until the job is over.

The store works in threads; what it says is passed on to the loop. Its figures are read beside the heartbeats, which never wait for a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.agent import classify
from fleet.agent.classify import Failure
from fleet.agent.config import Settings
from fleet.agent.logs import Log
from fleet.agent.store import placing, wanted
from fleet.agent.store.failures import Gone as SourceGone
from fleet.agent.store.failures import NoRoom, Refused, Stopped, StoreError, WrongBytes
from fleet.agent.store.store import Store
from fleet.agent.store.wanted import Wanted

log = Log(__name__)

LOOK_EVERY_S = 2.0
STOP_GRACE_S = 2.0
MOST_STORED = 50


class ModelsFailed(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ModelsStopped(Exception):
    """The job is not wanted any more."""


@dataclass(frozen=True)
class Loading:
    """How far a job's models are."""

    done_bytes: int
    total_bytes: int


class Shelf:
    """The store as the agent uses it, and the folder its engine reads."""

    def __init__(self, store: Store, models_dir: Path, tree: Path | None = None) -> None:
        self.models_dir, self._tree = models_dir, tree
        self.figures: dict[str, Any] = {}
        self.stored: list[str] = []
        self._store = store

    async def bring(
        self, models: Sequence[Any], *, job: str, stop: threading.Event, within_s: float | None = None, on_progress: Callable[[Loading], None] = lambda _: None
    ) -> list[str]:
        """Have all models here, whole and linked; their hashes. Raises ModelsFailed, or ModelsStopped when `stop` was set.

        What is fetched when the job ends early is kept, and the next job goes on from there.
        """
        loop = asyncio.get_running_loop()
        late = False

        def say(done: int, total: int) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be gone when a detached thread still speaks
                loop.call_soon_threadsafe(on_progress, Loading(done, total))

        def ring() -> None:
            nonlocal late
            late = True
            stop.set()

        timer = loop.call_later(within_s, ring) if within_s is not None else None
        work = loop.run_in_executor(None, self._bring, list(models), job, stop, say)
        try:
            brought = await self._unless_stopped(work, stop)
        except Stopped:
            if late:
                raise ModelsFailed(classify.deadline_passed()) from None
            raise ModelsStopped from None
        except StoreError as error:
            raise ModelsFailed(failure_of(error)) from error
        finally:
            if timer is not None:
                timer.cancel()
            await self.look()
        return brought

    async def _unless_stopped(self, work: asyncio.Future[list[str]], stop: threading.Event) -> list[str]:
        """The result; a thread that hangs in a connection is left behind after a moment, and ends by itself."""
        while not stop.is_set():
            done, _ = await asyncio.wait({work}, timeout=0.2)
            if done:
                return work.result()
        await asyncio.wait({work}, timeout=STOP_GRACE_S)
        if not work.done():
            work.add_done_callback(lambda f: f.exception())
            raise Stopped("The download was stopped.")
        return work.result()

    def _bring(self, models: list[Any], job: str, stop: threading.Event, say: Callable[[int, int], None]) -> list[str]:
        root = self._store.settings.root
        ones = wanted.parse(models)
        lacking = [one for one in ones if not self._has_own(one)]
        paths = self._store.ensure(lacking, job=job, stop=stop, progress=say)
        try:
            if stop.is_set():  # whoever asked has gone, and will not say that the job is over
                raise Stopped("The download was stopped.")
            placing.sweep(self.models_dir, store=root)
            for one in lacking:
                placing.place(self.models_dir, one, paths[one.sha256], store=root)
        except BaseException:
            self._store.release(job)
            raise
        return [one.sha256 for one in lacking]

    def _has_own(self, one: Wanted) -> bool:
        """Whether the engine has this very file without us: in its models folder or in its tree's, and no link of ours before it."""
        for folder in (self.models_dir, self._tree):
            path = folder / one.directory / one.filename if folder is not None else None
            if path is not None and path.is_file() and not placing.is_link_of(path, self._store.settings.root):
                if one.size_bytes in (None, path.stat().st_size) and self._store.digest_of(path) == one.sha256:
                    placing.remove(self.models_dir, one, store=self._store.settings.root)
                    return True
        return False

    async def release(self, job: str) -> None:
        """The job is over."""
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(self._store.release, job)

    async def remember(self, warm_key: Any, hashes: Sequence[str]) -> None:
        """These are the models behind a warm key, so that this host can say later that it has them."""
        if isinstance(warm_key, str) and warm_key and hashes:
            with contextlib.suppress(StoreError):
                await asyncio.to_thread(self._store.remember_warm, warm_key[:64], list(hashes))
                await self.look()

    async def look(self) -> None:
        """Read the figures anew."""
        with contextlib.suppress(StoreError):
            self.figures, self.stored = await asyncio.to_thread(lambda: (self._store.figures(), self._store.warm_keys(MOST_STORED)))

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    def close(self) -> None:
        with contextlib.suppress(StoreError):
            self._store.close()


def open_shelf(settings: Settings) -> Shelf | None:
    """The shelf of an agent, or None when no store is set up or its engine's folder is not known. Raises StoreError."""
    if settings.store is None:
        return None
    if settings.engine.models_dir is None:
        log.warning("no model store: COMFYPLANE_MODELS_DIR does not say where this ComfyUI looks for models")
        return None
    settings.engine.models_dir.mkdir(parents=True, exist_ok=True)
    store = Store(settings.store)
    removed = placing.sweep(settings.engine.models_dir, store=settings.store.root)
    log.info("model store", directory=str(settings.store.root), cap_bytes=settings.store.cap_bytes, models_dir=str(settings.engine.models_dir), swept=removed)
    tree = settings.engine.directory
    return Shelf(store, settings.engine.models_dir, tree / "models" if tree else None)


def failure_of(error: StoreError) -> Failure:
    """What a missing model means for the job and its price. Pure.

    What the version itself got wrong (a file that is gone, other bytes than it locked, a name or kind that is not allowed) is the
    same on every worker: `workflow`. No room is `capacity`. All else is ours, `platform`, and tried again: another worker may
    have the file already, the credential, or a way to the source, and the customer has no part in it.
    """
    if isinstance(error, NoRoom):
        kind = "capacity"
    elif isinstance(error, Refused | SourceGone | WrongBytes):
        kind = "workflow"
    else:
        kind = "platform"
    return Failure(error.code, error.message, kind, error.suggestion, error.details)
