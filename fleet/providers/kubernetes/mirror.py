"""A collection of the API server kept at hand: listed, then watched from there on, listed again before it grows old.

Truth is the list. The watch only makes it fresher: it goes on from the last resourceVersion after a broken connection, starts anew
when that is forgotten (410), and a thread for it runs only where somebody looks regularly. What `objects` gives is never older than
RELIST_S, however silently a connection died; a list that fails is told, and the old one is not given out in its place.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from fleet.providers.base import ProviderError, Unavailable
from fleet.providers.kubernetes.api import Api, Expired

log = logging.getLogger(__name__)

Json = dict[str, Any]

RELIST_S = 30.0
PAGE = 500
LOOKS_S = 120.0
"""Two looks within so long are regular ones."""
FORGET_S = 600.0
"""So long after the last look the watch ends."""
WATCH_S = 290
"""How long the server may keep one watch open."""
LONGEST_WAIT_S = 30.0


class Mirror:
    """One collection, e.g. the pods of an installation in a namespace."""

    def __init__(
        self, api: Api, path: str, *, selector: str = "", watched: bool = True, relist_s: float = RELIST_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.api, self.path, self.selector, self.relist_s, self.clock = api, path, selector, relist_s, clock
        self.lists = 0
        """How often it was listed."""
        self.connections = 0
        """How often it was watched."""
        self._watched = watched
        self._lock = threading.RLock()
        self._objects: dict[str, Json] = {}
        self._version = ""
        self._generation = 0
        self._listed_at: float | None = None
        self._heard_at: float | None = None
        self._looked_at: float | None = None
        self._in_step = False
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def objects(self, *, fresh: bool = False) -> dict[str, Json]:
        """By name. With `fresh` as the server has them now; else at most `relist_s` old. Raises Unavailable or Refused."""
        now = self.clock()
        regular = self._looked_at is not None and now - self._looked_at <= LOOKS_S
        self._looked_at = now
        with self._lock:
            at_hand = self._in_step and self._listed_at is not None and now - self._listed_at < self.relist_s
            if not fresh and at_hand:
                return dict(self._objects)
        self._list()
        if regular and self._watched:
            self._start()
        with self._lock:
            return dict(self._objects)

    @property
    def age_s(self) -> float | None:
        """Seconds since the server last said anything about it; None before the first list."""
        return None if self._heard_at is None else self.clock() - self._heard_at

    def forget(self) -> None:
        """Something was written: the next look lists."""
        with self._lock:
            self._listed_at = None

    def close(self) -> None:
        self._stop.set()

    def _list(self) -> None:
        for last in (False, True):
            try:
                found, version = self._pages()
                break
            except Expired as error:  # the first page was forgotten before the last was read
                if last:
                    raise Unavailable(f"The list could not be read to its end: {error}") from error
        with self._lock:
            self._objects, self._version = found, version
            self._generation += 1
            self.lists += 1
            self._listed_at = self._heard_at = self.clock()

    def _pages(self) -> tuple[dict[str, Json], str]:
        found: dict[str, Json] = {}
        query: dict[str, Any] = {"limit": PAGE} | ({"labelSelector": self.selector} if self.selector else {})
        while True:
            page = self.api.call("GET", self.path, query=query)
            for item in page.get("items") or ():
                found[item["metadata"]["name"]] = item
            meta = page.get("metadata") or {}
            if not meta.get("continue"):
                return found, str(meta.get("resourceVersion") or "")
            query["continue"] = meta["continue"]

    # The watch

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=f"watch {self.path}", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        wait = 0.5
        while not self._stop.is_set() and self._wanted():
            try:
                self._follow()
                wait = 0.5
            except Expired:
                if self._relist():
                    continue
            except ProviderError as error:
                log.info("watch broken", extra={"path": self.path, "why": str(error)})
                self._in_step = False
                self._stop.wait(max(wait, error.retry_after_s or 0.0))
                wait = min(wait * 2, LONGEST_WAIT_S)
            except Exception:
                log.exception("watch failed", extra={"path": self.path})
                self._in_step = False
                self._stop.wait(LONGEST_WAIT_S)
        self._in_step = False

    def _wanted(self) -> bool:
        return self._looked_at is not None and self.clock() - self._looked_at < FORGET_S

    def _relist(self) -> bool:
        self._in_step = False
        try:
            self._list()
        except ProviderError:
            self._stop.wait(1.0)
            return False
        return True

    def _follow(self) -> None:
        """One connection. Events of before the newest list are not taken: it is asked anew from there."""
        with self._lock:
            generation, version = self._generation, self._version
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true", "timeoutSeconds": WATCH_S}
        if self.selector:
            query["labelSelector"] = self.selector
        self.connections += 1
        self._in_step = True  # from `version` on nothing is lost: it comes by this connection, or by the next
        for event in self.api.watch(self.path, query=query, quiet_s=WATCH_S + 10):
            with self._lock:
                if generation != self._generation:
                    return
                self._take(event)
            if self._stop.is_set() or not self._wanted():
                return

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, what = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            if what.get("code") == 410:
                raise Expired(str(what.get("message") or "the version is too old"))
            raise Unavailable(f"The watch said {what.get('message') or what.get('reason')}.")
        meta = what.get("metadata") or {}
        if kind in ("ADDED", "MODIFIED"):
            self._objects[meta["name"]] = what
        elif kind == "DELETED":
            self._objects.pop(meta["name"], None)
        self._version = str(meta.get("resourceVersion") or self._version)
        self._heard_at = self.clock()
