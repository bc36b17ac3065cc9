"""`manage.py announce`: tell a pool of a batch or an event, list what is announced, cancel it."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from datetime import UTC, datetime
from getpass import getuser
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from builds.models import Workflow
from controlplane.kernel.commands import Refusing
from controlplane.kernel.errors import Invalid, NotFound
from fleet import announcing
from fleet.models import PlannedDemand, Pool


class Command(Refusing):
    help = "Announce a batch of jobs or an event of the calendar, so that workers are ready. Prints it; with --json as JSON. Refusals exit with 2."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("pool", nargs="?", help="short name of the pool")
        parser.add_argument("--jobs", type=int, help="a batch of so many jobs")
        parser.add_argument("--workflow", help="of this workflow")
        parser.add_argument("--event", metavar="NAME", help="an event in place of a batch")
        parser.add_argument("--factor", type=float, default=1.0, help="demand is so many times the usual during the event")
        parser.add_argument("--workers", type=int, default=0, help="at least so many workers during the event")
        parser.add_argument("--at", metavar="TIME", help="when it starts, e.g. 2026-11-27T06:00Z; now unless said")
        parser.add_argument("--until", metavar="TIME", help="when it ends; a batch arrives evenly until then, or all at once")
        parser.add_argument("--cancel", metavar="ID", help="cancel an announcement")
        parser.add_argument("--list", action="store_true", help="list what is announced, of this pool or of all")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        found = _do(options, now=timezone.now(), actor=f"command by {getuser()}")
        if options["json"]:
            self.stdout.write(json.dumps([announcing.as_json(one) for one in found], indent=2))
            return
        for one in found:
            self.stdout.write(_line(one))
        if not found:
            self.stdout.write("Nothing is announced.")


def _do(options: dict[str, Any], *, now: datetime, actor: str) -> list[PlannedDemand]:
    if options["cancel"]:
        try:
            planned = UUID(options["cancel"])
        except ValueError:
            raise NotFound("announcement_not_found", "There is no such announcement.", "List them with --list.") from None
        return [announcing.cancel(announcing.find(planned), actor=actor, now=now)]
    pool = _pool(options["pool"]) if options["pool"] else None
    if options["list"]:
        return list(announcing.open_ones(pool=pool, now=now))
    if pool is None:
        raise Invalid("pool_missing", "No pool is named.", "Name one, or use --list.")
    starts, ends = _moment(options["at"]) or now, _moment(options["until"])
    if options["event"] is not None:
        if ends is None:
            raise Invalid("until_missing", "An event needs its end.", "Give --until.")
        return [
            announcing.event(
                pool=pool, name=options["event"], starts_at=starts, ends_at=ends, factor=options["factor"], workers=options["workers"], actor=actor, now=now
            )
        ]
    if options["jobs"] is None:
        raise Invalid("jobs_missing", "Neither a batch nor an event is given.", "Give --jobs or --event.")
    workflow = None
    if options["workflow"] and (workflow := Workflow.objects.filter(slug=options["workflow"]).first()) is None:
        raise NotFound("workflow_not_found", f"There is no workflow called {options['workflow'][:60]!r}.", "Check its name.")
    return [announcing.batch(pool=pool, jobs=options["jobs"], workflow=workflow, starts_at=starts, ends_at=ends, actor=actor, now=now)]


def _pool(slug: str) -> Pool:
    found = Pool.objects.filter(slug=slug).first()
    if found is None:
        raise NotFound("pool_not_found", f"There is no pool called {slug[:60]!r}.", "Check its name.")
    return found


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = parse_datetime(text)
    except ValueError:
        at = None
    if at is None:
        raise Invalid("time_invalid", f"{text[:40]!r} is not a time.", "Write 2026-11-27T06:00Z.")
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _line(one: PlannedDemand) -> str:
    what = f"{one.jobs:,} jobs" if one.kind == PlannedDemand.Kind.BATCH else f"{one.name}: {one.factor:g} times the usual, at least {one.workers:,} workers"
    state = " (canceled)" if one.canceled_at else ""
    return f"{one.id}  {one.pool.slug}  {one.starts_at:%Y-%m-%d %H:%M} to {one.ends_at:%Y-%m-%d %H:%M} UTC  {what}{state}"
