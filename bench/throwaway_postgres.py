"""A PostgreSQL of one's own for the length of a `with` block: on loopback, in a temporary directory, as a non-root user."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534


def available() -> bool:
    """Whether the server's programs are on PATH."""
    return all(shutil.which(name) for name in ("initdb", "pg_ctl", "postgres"))


@contextlib.contextmanager
def cluster(*, durable: bool = True, database: str = "comfyplane") -> Iterator[str]:
    """Yield a DATABASE_URL. `durable` keeps fsync and synchronous commit on, as production has them."""
    home = Path(tempfile.mkdtemp(prefix="comfyplane-pg-"))
    root = os.geteuid() == 0
    prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if root else []
    if root:
        os.chown(home, NOBODY, NOBODY)
    home.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "HOME": str(home), "LC_ALL": "C.UTF-8"}
    fast = "" if durable else " -c fsync=off -c synchronous_commit=off -c full_page_writes=off"

    def run(*command: str) -> None:
        subprocess.run([*prefix, *command], check=True, env=environment, cwd=home, stdout=subprocess.DEVNULL)

    run("initdb", "-D", str(home / "data"), "-U", "app", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {home} -c max_connections=120{fast}"
    run("pg_ctl", "-D", str(home / "data"), "-w", "-l", str(home / "log"), "-o", options, "start")
    try:
        run("psql", "-h", "127.0.0.1", "-p", str(port), "-U", "app", "-d", "postgres", "-qc", f"CREATE DATABASE {database}")
        yield f"postgres://app@127.0.0.1:{port}/{database}"
    finally:
        subprocess.run(
            [*prefix, "pg_ctl", "-D", str(home / "data"), "-m", "immediate", "stop"], env=environment, cwd=home, stdout=subprocess.DEVNULL, check=False
        )
        shutil.rmtree(home, ignore_errors=True)
