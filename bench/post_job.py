"""POST a job end to end against a DRF view that only checks a key and inserts one row: requests a second and p99.

Both views in the same gunicorn (2 workers × 4 threads), same PostgreSQL, same run; load by wrk with 16 connections,
in turns of a few seconds so that the machine's noise meets both; the keys of eight customers take turns.

    python bench/post_job.py [--seconds 4] [--rounds 3] [--profile]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench.throwaway_postgres import cluster  # noqa: E402

LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local keys = {{ {secrets} }}
local turn = 0
request = function()
  turn = turn % #keys + 1
  wrk.headers["Authorization"] = "Bearer " .. keys[turn]
  return wrk.format()
end
wrk.body = '{{"inputs": {{"width": 64}}, "metadata": {{"bench": true}}}}'
local bad = 0
function response(status) if status ~= 202 then bad = bad + 1; if bad == 1 then io.stderr:write("status " .. status .. "\\n") end end end
"""


def prepare(customers: int) -> tuple[str, list[str]]:
    """A workflow, and customers with room for everything; returns the slug and a secret each."""
    import factories

    at = datetime.now(UTC)
    plan = factories.make_plan(now=at, monthly_limit_microusd=10**15, max_active_jobs=10**7, requests_per_minute=10**8)
    workflow = factories.make_runnable(now=at)
    return workflow.slug, [factories.make_key(factories.make_customer(now=at, plan=plan), now=at)[1] for _ in range(customers)]


def load(url: str, script: Path, seconds: int) -> tuple[float, float]:
    """Requests a second and p99 in ms."""
    out = subprocess.run(
        ["wrk", "-t1", "-c16", f"-d{seconds}s", "--latency", "-s", str(script), url], capture_output=True, text=True, check=True, timeout=seconds + 30
    )
    if out.stderr or "Non-2xx" in out.stdout:
        raise SystemExit(f"{url}: {out.stderr} {out.stdout}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out.stdout)[1])  # type: ignore[index]
    value, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", out.stdout).groups()  # type: ignore[union-attr]
    return rate, float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def profile(slug: str, secret: str) -> None:
    """What one POST spends its time on, in process."""
    import cProfile
    import pstats

    from django.test import Client

    client = Client(headers={"authorization": f"Bearer {secret}"})
    body = {"inputs": {"width": 64}}

    def post() -> None:
        for _ in range(300):
            assert client.post(f"/v1/workflows/{slug}/jobs", body, content_type="application/json").status_code == 202

    post()
    measured = cProfile.Profile()
    measured.runcall(post)
    pstats.Stats(measured).sort_stats("cumtime").print_stats(45)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--customers", type=int, default=8, help="whose keys take turns; 1 shows what one account's row lock costs")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed: apt-get install wrk")
    with cluster() as url, tempfile.TemporaryDirectory() as home:
        os.environ.update(DATABASE_URL=url, DJANGO_SETTINGS_MODULE="bench.reference_settings", LOG_LEVEL="ERROR", DATA_DIR=home)
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        slug, secrets = prepare(options.customers)
        if options.profile:
            profile(slug, secrets[0])
        script = Path(home) / "post.lua"
        script.write_text(LUA.format(secrets=", ".join(f'"{s}"' for s in secrets)))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        web = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "controlplane.wsgi", "-k", "gthread", "-w", "2", "--threads", "4", "-b", f"127.0.0.1:{port}", "--log-level", "error", "--reuse-port"],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            base = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 30
            while time.monotonic() < until:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            job, reference = f"{base}/v1/workflows/{slug}/jobs", f"{base}/reference"
            load(reference, script, 2)
            load(job, script, 2)
            rows = []
            for _ in range(options.rounds):
                rows.append((load(job, script, options.seconds), load(reference, script, options.seconds)))
                (ours, ours_p99), (theirs, theirs_p99) = rows[-1]
                print(f"POST job {ours:6.0f}/s p99 {ours_p99:5.0f} ms   reference {theirs:6.0f}/s p99 {theirs_p99:5.0f} ms   ratio {ours / theirs:.2f}")
            print(f"POST job against the reference, median: {statistics.median(a[0] / b[0] for a, b in rows):.2f} (asked: 0.50)")
            print(f"p99 at 16 connections, median: {statistics.median(a[1] for a, _ in rows):.0f} ms (asked: < 100 ms)")
        finally:
            web.terminate()
            web.wait(20)


if __name__ == "__main__":
    main()
