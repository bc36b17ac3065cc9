"""`Prefer: wait=N`: hold an answer until the job is over, for a bounded time and a bounded number of callers.

A waiter holds a thread of the web process, so only half of them may wait; everybody else is answered at once.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from uuid import UUID

from django.conf import settings

from fleet.models import Job

MAX_WAIT_S = 60
_WAIT = re.compile(r'wait\s*=\s*"?(\d{1,9})"?', re.IGNORECASE)
_places = threading.BoundedSemaphore(max(1, settings.WEB_THREADS // 2))


def asked(prefer: str) -> int:
    """Seconds to wait according to a Prefer header, at most MAX_WAIT_S; 0 when it asks for none. What cannot be read is not preferred."""
    for preference in prefer[:1000].split(","):
        match = _WAIT.fullmatch(preference.partition(";")[0].strip())
        if match:
            return min(int(match[1]), MAX_WAIT_S)
    return 0


def until_over(job_id: UUID, *, seconds: float, pause: Callable[[float], None] = time.sleep) -> bool:
    """Wait for the end of a job; says whether it ended. Returns at once when too many wait already."""
    if not _places.acquire(blocking=False):
        return False
    try:
        began = time.monotonic()
        while True:
            if Job.objects.filter(id=job_id).values_list("status", flat=True).first() in Job.TERMINAL:
                return True
            gone = time.monotonic() - began
            if gone >= seconds:
                return False
            # Quick jobs are noticed quickly, slow ones cost few looks.
            pause(min(0.02 + gone * 0.03, 0.3, max(0.0, seconds - gone)))
    finally:
        _places.release()
