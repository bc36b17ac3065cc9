"""`manage.py demo_load`: send slow jobs to the demo's pool and watch it grow and shrink on its page."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from controlplane import credentials
from controlplane.demo import load
from controlplane.kernel.commands import Refusing
from controlplane.kernel.errors import Invalid


class Command(Refusing):
    help = (
        "Send jobs of a slow demo workflow to a running Comfyplane (`make up`) and say where to watch its pool grow to its maximum and go back to its base. "
        "Refused, it exits with 2 and says why."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--jobs", type=int, default=50, help=f"how many, 1 to {load.MOST} (50)")
        parser.add_argument("--workflow", default=load.SLOW, help=f"which demo workflow ({load.SLOW})")
        parser.add_argument("--json", action="store_true", help="print the ids as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        jobs, workflow, as_json = options["jobs"], options["workflow"], options["json"]
        if not 1 <= jobs <= load.MOST:
            raise Invalid("jobs_invalid", f"Send 1 to {load.MOST} jobs, not {jobs}.", "50 are enough to see a pool grow.")
        sent = load.send(jobs=jobs, workflow=workflow, clock=timezone.now)
        page = f"{credentials.shown()['base_url']}/ops/fleet/pools/default/"
        if as_json:
            self.stdout.write(json.dumps({"jobs": [str(id_) for id_ in sent], "workflow": workflow, "page": page}))
            return
        self.stdout.write(f"{len(sent)} jobs of {workflow} were sent. Watch the pool: {page}")
