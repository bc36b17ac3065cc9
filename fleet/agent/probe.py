"""`python -m fleet.agent.probe`: start ComfyUI as the agent would, write what it offers to standard output as one JSON line, end.

A build runs this in the finished image, without network: {"object_info", "python", "debian", "log"}, or {"error", "log"}
and exit code 1 when ComfyUI does not come up.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from fleet.agent import config, fingerprint, logs
from fleet.agent.comfy import Comfy, EngineUnreachable
from fleet.agent.process import Engine, EngineFailed

LOG_LINES = 400
DPKG = Path("/var/lib/dpkg/status")


async def probe(choice: config.EngineChoice, work_dir: Path) -> dict[str, Any]:
    """Start, ask, stop; what `main` writes."""
    engine = Engine(choice, work_dir, tail_lines=LOG_LINES)
    try:
        await engine.start()
        comfy = Comfy(engine.url)
        try:
            object_info, packages = await asyncio.gather(comfy.object_info(), fingerprint.packages(choice))
        finally:
            await comfy.close()
    except (EngineFailed, EngineUnreachable) as error:
        return {"error": str(error) or type(error).__name__, "log": engine.tail}
    finally:
        await engine.stop()
    return {"object_info": object_info, "python": packages, "debian": debian(DPKG), "log": engine.tail}


def debian(status: Path) -> dict[str, str]:
    """Installed Debian packages by name; empty elsewhere."""
    found: dict[str, str] = {}
    try:
        paragraphs = status.read_text("utf-8", "replace").split("\n\n")
    except OSError:
        return found
    for paragraph in paragraphs:
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed") and "Package" in fields:
            found[fields["Package"]] = fields.get("Version", "")
    return found


def main() -> int:
    env = {"COMFYPLANE_URL": "http://127.0.0.1:9", "COMFYPLANE_POOL_TOKEN": "none", **os.environ}
    settings, _ = config.from_args([], env)
    logs.configure("warning")
    with tempfile.TemporaryDirectory(prefix="comfyplane-probe-", ignore_cleanup_errors=True) as work_dir:
        told = asyncio.run(probe(settings.engine, Path(work_dir)))
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    return 1 if "error" in told else 0


if __name__ == "__main__":
    sys.exit(main())
