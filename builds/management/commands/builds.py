"""List builds."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from builds.images import telling
from builds.models import Build


class Command(BaseCommand):
    help = "List builds, newest first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("workflow", nargs="?", metavar="WORKFLOW", help="only of this workflow")
        parser.add_argument("--state", choices=[str(state) for state in Build.State.values], help="only in this state")
        parser.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many, default 50")
        parser.add_argument("--json", action="store_true", help="for scripts")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = Build.objects.select_related("version__workflow").order_by("-requested_at")
        if options["workflow"]:
            rows = rows.filter(version__workflow__slug=options["workflow"])
        if options["state"]:
            rows = rows.filter(state=options["state"])
        found = list(rows[: max(1, min(options["limit"], 1000))])
        if options["json"]:
            self.stdout.write(json.dumps({"builds": [telling.one(build, steps=False) for build in found]}, indent=2))
            return
        for build in found:
            took = telling.seconds(build)
            size = f"{build.size_bytes / 1e6:,.0f} MB" if build.size_bytes else ""
            why = f"{build.error['code']} in {build.failed_step[:60]}" if build.error else build.digest[:19]
            duration = "" if took is None else f"{took:,.1f} s"
            self.stdout.write(
                f"{build.requested_at:%Y-%m-%d %H:%M}  {build.state:9}  {build.version!s:30}  {build.lock_id[:12]}  {duration:>10}  {size:>9}  {why}"
            )
        if not found:
            self.stdout.write("No builds yet. manage.py build WORKFLOW makes one.")
