"""Images an engine does not have are fetched beside the sizing of the pool, which waits for nobody."""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import dataclass

from fleet.providers.base import ProviderError, Refused, Unavailable
from fleet.providers.docker_engine import PULL_S, Engine, short

log = logging.getLogger(__name__)

RETRY_S = 15.0
FAILED_FOR_S = 60.0
_LONGEST_S = 3600.0
_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}")


@dataclass
class _Pull:
    began: float
    failed: str = ""
    ended: float | None = None


class Pulls:
    """Fetches under way in this process, by engine and image. Whoever takes over asks again, and the engine goes on where it was."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, str], _Pull] = {}
        self._lock = threading.Lock()

    def fetch(self, engine: Engine, image: str, missing: ProviderError) -> None:
        """Begin to fetch, or say how it goes. Always raises: Unavailable while it is fetched, Refused when it cannot be had."""
        if not from_registry(image):
            raise Refused(f"{missing} It was built on another machine, or was removed; build it again, or push it to a registry.") from missing
        key, now = (engine.host, image), time.monotonic()
        with self._lock:
            pull = self._under_way.get(key)
            if pull is not None and pull.failed and pull.ended is not None and now - pull.ended < FAILED_FOR_S:
                raise Refused(f"The image {image[:200]} cannot be fetched: {pull.failed}")
            if pull is None or pull.ended is not None or now - pull.began > _LONGEST_S:
                pull = self._under_way[key] = _Pull(now)
                threading.Thread(target=self._run, args=(engine, image, pull), name="docker-pull", daemon=True).start()
        raise Unavailable(f"The image {image[:200]} is being fetched ({now - pull.began:.0f} s so far).", retry_after_s=RETRY_S)

    def _run(self, engine: Engine, image: str, pull: _Pull) -> None:
        try:
            engine.call(lambda api: _whole(api, image), within_s=PULL_S)
            log.info("image fetched", extra={"image": image, "seconds": round(time.monotonic() - pull.began, 1)})
        except Exception as error:
            pull.failed = short(error)
            log.warning("image not fetched", extra={"image": image, "why": pull.failed})
        pull.ended = time.monotonic()


def from_registry(image: str) -> bool:
    """Whether a registry may have it: an id alone is known only to the engine that made it."""
    return not _ID.fullmatch(image)


def _whole(api: object, image: str) -> None:
    """Fetch and read to the end: the engine tells of failures there."""
    name, _, tag = image.rpartition("@") if "@" in image else image.rpartition(":") if ":" in image.rpartition("/")[2] else (image, "", "latest")
    for line in api.pull(name, tag=tag, stream=True, decode=True):  # type: ignore[attr-defined]
        if isinstance(line, dict) and line.get("error"):
            raise Refused(short(line["error"]))
