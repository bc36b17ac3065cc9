"""How gunicorn serves the web process. Values a deployment changes come from the environment."""

from __future__ import annotations

import os
from typing import Any

bind = os.environ.get("WEB_BIND", "127.0.0.1:8001")
worker_class = "gthread"
workers = int(os.environ.get("WEB_WORKERS", "2"))
threads = int(os.environ.get("WEB_THREADS", "12"))
# The kernel spreads connections over the workers; from one shared socket the first to wake takes them all and keeps them.
reuse_port = not bind.startswith("unix:")
# A request may wait for its job (Prefer: wait=60) and an upload may be slow.
timeout = 120
graceful_timeout = 8
keepalive = 75
# Memory that creeps is given back; the spread keeps both workers from leaving at once.
max_requests = 50_000
max_requests_jitter = 5_000
accesslog = None
loglevel = "warning"
control_socket_disable = True


def child_exit(server: Any, worker: Any) -> None:
    """Live gauges of a worker that ended are dropped."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)
