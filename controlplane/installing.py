"""Make a database ready to serve: tables, roles, the operator, what nodes there are; and the demo, when it is wanted.

Every step may be repeated; on a database that is ready it changes nothing.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from billing import customers
from billing.models import Customer
from builds import libraries
from builds import tasks as build_tasks
from builds.models import NodeLibrary
from controlplane import credentials
from controlplane.console import roles
from fleet import tasks
from fleet.engine import ENGINE_NAME, ENGINE_VERSION, nodes
from fleet.engine.directories import Directories
from fleet.engine.specs import NODES

FIRST_WORKFLOW = "first-image"


def prepare(*, demo: bool, say: Callable[[str], None], now: datetime) -> bool:
    """Bring the installation up to date; tells whether demo data was made now."""
    migrate(say=say)
    roles.ensure()
    credentials.ensure_operator()
    tasks.ensure_schedules(now=now)
    build_tasks.ensure_schedules(now=now)
    ensure_nodes(say=say, now=now)
    ensure_house(now=now)
    if not demo:
        return False
    from controlplane.demo.seeding import seed

    return seed(say=say, now=now)


def ensure_house(*, now: datetime) -> None:
    """Who pays for the test runs of the console, when nobody else is chosen: us, at a price of nothing."""
    if Customer.objects.filter(slug=customers.HOUSE).exists():
        return
    terms = customers.publish_plan(
        slug=customers.INTERNAL_PLAN,
        name="Internal",
        price_per_job_microusd=0,
        price_per_gpu_second_microusd=0,
        monthly_limit_microusd=1_000_000_000,
        max_active_jobs=20,
        requests_per_minute=600,
        max_priority="high",
        now=now,
    )
    customers.create(slug=customers.HOUSE, name="Console test runs", plan_revision=terms, now=now)


def migrate(*, say: Callable[[str], None]) -> None:
    """Apply migrations that are missing."""
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        say("preparing the database")
        call_command("migrate", verbosity=0, interactive=False)


def ensure_nodes(*, say: Callable[[str], None], now: datetime) -> None:
    """The nodes graphs are judged by: those of the ComfyUI the workers will drive."""
    url, directory = os.environ.get("COMFYUI_URL", ""), os.environ.get("COMFYUI_DIR", "")
    name = f"ComfyUI at {url or directory}"[:120] if url or directory else f"Embedded engine {ENGINE_VERSION}"
    current = NodeLibrary.objects.filter(current=True).only("name").first()
    if current is not None and current.name != name and not current.name.startswith(("ComfyUI at ", "Embedded engine ")):
        return  # somebody imported one by hand
    if url or directory:
        if current is None or current.name != name:
            say("reading the nodes of your ComfyUI")
            document = _fetch(url) if url else asyncio.run(_start_and_fetch())
            libraries.store(name=name, document=document, source=url or directory, current=True, now=now)
        return
    libraries.store(name=name, document=embedded_nodes(), source=ENGINE_NAME, current=True, now=now)


def embedded_nodes() -> dict[str, Any]:
    """What the embedded engine answers to /object_info when it has no files."""
    assert nodes.__all__  # importing them registers their classes
    with tempfile.TemporaryDirectory() as empty:
        directories = Directories(*(Path(empty) / name for name in ("input", "output", "temp", "models")))
        return {name: known.described(directories) for name, known in NODES.items()}


def _fetch(url: str) -> dict[str, Any]:
    answer = httpx.get(f"{url.rstrip('/')}/object_info", timeout=60, trust_env=False)
    answer.raise_for_status()
    return libraries.read_bytes(answer.content)


async def _start_and_fetch() -> dict[str, Any]:
    """Start the ComfyUI of COMFYUI_DIR once, the way the agent does, and ask it."""
    from fleet.agent import config
    from fleet.agent.process import Engine

    chosen, _ = config.from_args(["--url", "unused", "--pool-token", "unused"])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work_dir:
        engine = Engine(chosen.engine, Path(work_dir))
        await engine.start()
        try:
            return await asyncio.to_thread(_fetch, engine.url)
        finally:
            await engine.stop()
