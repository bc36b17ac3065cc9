"""A file whose age tells whether a process without a port still works: `HEARTBEAT_FILE`, where one is set.

It is touched by whatever would stop if the process hung; an orchestrator restarts one whose file grows old (deploy/kustomize).
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from django.conf import settings
from django_q.brokers.orm import ORM

log = logging.getLogger(__name__)


def beat() -> None:
    """Say that this process works. A file that cannot be written is logged and otherwise let be: then its age tells."""
    if not settings.HEARTBEAT_FILE:
        return
    path = Path(settings.HEARTBEAT_FILE)
    try:
        path.touch()
        os.utime(path)
    except OSError as error:
        log.warning("no heartbeat", extra={"path": str(path), "why": str(error)})


class Broker(ORM):
    """The queue of the tasks process. Its guard, which looks after the workers, reports here twice a second: that is its heartbeat."""

    def set_stat(self, key: str, value: str, timeout: int) -> None:
        beat()
        super().set_stat(key, value, timeout)
