"""Whether this worker is well, for whoever runs its container: a small file, written by the agent, judged by `python -m fleet.agent.health`.

Well means that the agent moves (the file is fresh) and that its ComfyUI is warmed up. Only the standard library: it runs every few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

EVERY_S = 2.0
STALE_S = 20.0
VARIABLE = "COMFYPLANE_HEALTH_FILE"


async def keep(path: Path, ready: Callable[[], bool]) -> None:
    """Write the file every few seconds until canceled."""
    while True:
        with contextlib.suppress(OSError):  # a full disk is told elsewhere; the file then grows stale
            write(path, ready())
        await asyncio.sleep(EVERY_S)


def write(path: Path, ready: bool) -> None:
    """Replace the file, so that nobody reads half of it."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps({"ready": ready, "at": time.time()}))
    beside.replace(path)


def judge(path: Path, *, now: float) -> str:
    """Why it is not well; "" when it is."""
    try:
        told = json.loads(path.read_text())
        age = now - float(told["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return "the agent has not written its state"
    if age > STALE_S:
        return f"the agent has not moved for {age:.0f} s"
    return "" if told.get("ready") else "ComfyUI is not ready"


def main() -> int:
    where = os.environ.get(VARIABLE, "")
    why = judge(Path(where), now=time.time()) if where else f"{VARIABLE} is not set"
    sys.stdout.write((why or "well") + "\n")
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
