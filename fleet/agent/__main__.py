"""`python -m fleet.agent`: see --help."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from fleet.agent import config, logs


def main(argv: list[str] | None = None) -> int:
    settings, serverless_input = config.from_args(sys.argv[1:] if argv is None else argv)
    logs.configure(settings.log_level)
    if serverless_input is not None:
        from fleet.agent.serverless import main as run_once

        return run_once(serverless_input, settings)
    from fleet.agent.loop import Agent

    async def live(work_dir: Path) -> int:
        with logs.about(worker=settings.name):
            return await Agent(settings, work_dir).run()

    if settings.work_dir is not None:
        settings.work_dir.mkdir(parents=True, exist_ok=True)
        return asyncio.run(live(settings.work_dir))
    with tempfile.TemporaryDirectory(prefix="comfyplane-agent-", ignore_cleanup_errors=True) as temporary:
        return asyncio.run(live(Path(temporary)))


if __name__ == "__main__":
    sys.exit(main())
