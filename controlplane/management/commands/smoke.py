"""Ask for smoke runs, wait for them, and say how they went."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.utils import timezone

from builds import queries, smoke_keeping
from controlplane.console.smoke import chosen
from controlplane.console.smoke_api import one
from controlplane.kernel import jsonbody
from controlplane.kernel.commands import Refusing, read_file
from controlplane.kernel.errors import Invalid, NotFound
from controlplane.kernel.ids import parse_uuid
from fleet import smoke
from fleet.models import Job, SmokeRun

FAILED = 1
ACTOR = "manage.py smoke"
LOOK_EVERY_S = 1.0


class Command(Refusing):
    help = "Run the smoke job of a version, of all that fail, or of all. The controller runs them. Exit code 1 when one failed, 2 when refused."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", nargs="?", metavar="SLUG[@VERSION]", help="a workflow, and a number or channel; default: what production runs")
        parser.add_argument("--all", action="store_true", help="every workflow: its newest version and each channel's")
        parser.add_argument("--failing", action="store_true", help="those whose last run failed")
        parser.add_argument("--record", metavar="JOB", help="first keep the inputs of this test run of the version, which succeeded")
        parser.add_argument("--inputs", metavar="FILE", help="first keep the inputs in this JSON file, - for standard input")
        parser.add_argument("--wait", action="store_true", help="until all are over")
        parser.add_argument("--timeout", type=float, default=3700.0, metavar="SECONDS", help="longest wait, default 3700")
        parser.add_argument("--json", action="store_true", help="for scripts")

    def handle(self, *args: Any, **options: Any) -> None:
        versions = self._versions(options)
        self._keep(versions, options)
        runs = [self._asked(version) for version in versions]
        if options["wait"]:
            self._wait([run.id for run in runs], most_s=options["timeout"])
        rows = [one(run) for run in SmokeRun.objects.filter(id__in=[r.id for r in runs]).select_related("version__workflow", "build").order_by("requested_at")]
        failed = sum(row["state"] == "failed" for row in rows)
        still_open = sum(row["finished_at"] is None for row in rows)
        if options["json"]:
            self.stdout.write(json.dumps({"runs": rows, "failed": failed, "open": still_open}, indent=2))
        else:
            for row in rows:
                why = f"  {row['error']['code']}: {row['error']['message']}" if row["error"] else ""
                took = f"  {row['run_s']} s" if row["run_s"] is not None else ""
                self.stdout.write(f"{row['state']:8} {row['workflow']} v{row['version']}{took}{why}")
            self.stdout.write(f"{len(rows)} runs, {failed} failed, {still_open} open")
        if failed or (options["wait"] and still_open):
            sys.exit(FAILED)

    def _versions(self, options: dict[str, Any]) -> list[Any]:
        named = [options["what"] is not None, options["all"], options["failing"]]
        if sum(named) != 1:
            raise Invalid("nothing_named", "Name one workflow, or --all, or --failing.", "For instance: manage.py smoke first-image@3 --wait")
        if options["what"] is None:
            return chosen("all" if options["all"] else "failing")
        slug, _, number = options["what"].partition("@")
        return [queries.version(queries.workflow(slug), number or None)]

    def _keep(self, versions: list[Any], options: dict[str, Any]) -> None:
        """Record or write the inputs of the one version that was named."""
        if not (options["record"] or options["inputs"]):
            return
        if options["what"] is None or (options["record"] and options["inputs"]):
            raise Invalid("inputs_of_many", "Inputs are kept for one version, from one place.", "Name a workflow, and either --record or --inputs.")
        version, now = versions[0], timezone.now()
        if options["record"]:
            job_id = parse_uuid(options["record"])
            job = Job.objects.select_related("customer", "version__workflow").filter(id=job_id, version=version).first() if job_id else None
            if job is None:
                raise NotFound("job_not_found", f"{version} has no job {options['record'][:60]}.", "Name a test run of this version.")
            smoke.record_inputs(job=job, actor=ACTOR, now=now)
            return
        raw = read_file(options["inputs"], limit=smoke_keeping.MAX_BYTES + 1)
        smoke_keeping.write(version=version, inputs=jsonbody.load(raw), actor=ACTOR, now=now)

    def _asked(self, version: Any) -> SmokeRun:
        return smoke.request(version=version, trigger=SmokeRun.Trigger.PERSON, actor=ACTOR, now=timezone.now())

    def _wait(self, ids: list[Any], *, most_s: float) -> None:
        until = time.monotonic() + most_s
        while SmokeRun.objects.filter(id__in=ids, state__in=SmokeRun.OPEN).exists() and time.monotonic() < until:
            time.sleep(LOOK_EVERY_S)
