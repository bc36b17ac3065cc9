"""`manage.py savings`: what sizing saved, day by day, against the seed's rule and against the maximum all day."""

from __future__ import annotations

import csv
import json
from argparse import ArgumentParser
from datetime import date
from typing import Any

from django.utils import timezone

from controlplane.kernel import money
from controlplane.kernel.commands import Refusing
from controlplane.kernel.errors import Invalid, NotFound
from fleet import savings
from fleet.models import Pool


class Command(Refusing):
    help = "Work out the finished days that are missing and print them, newest first. Refusals exit with 2."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--pool", help="only this pool")
        parser.add_argument("--from", dest="since", metavar="DAY", help="from this day on, e.g. 2026-11-01 (UTC)")
        parser.add_argument("--to", dest="until", metavar="DAY", help="up to this day")
        parser.add_argument("--again", action="store_true", help="work the shown days out anew")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print {days, total} as JSON")
        form.add_argument("--csv", action="store_true", help="print CSV")

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        since, until = _day(options["since"]), _day(options["until"])
        pool = _pool(options["pool"]) if options["pool"] else None
        savings.catch_up(now=now)
        rows = savings.days(pool=pool, since=since, until=until)
        if options["again"]:
            rows = [savings.of_day(row.pool, row.day, now=now) for row in rows]
        whole = savings.total(rows)
        if options["json"]:
            shown = {name: getattr(whole, name) for name in savings.Sum.__slots__} | {"saved_microusd": whole.saved_microusd, "said": whole.said()}
            self.stdout.write(json.dumps({"days": [savings.as_row(row) for row in rows], "total": shown}, indent=2))
        elif options["csv"]:
            writer = csv.DictWriter(self.stdout, savings.COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(savings.as_row(row) for row in rows)
        else:
            for row in rows:
                figures = "  ".join(f"{name} {money.display(getattr(row, f'{name}_microusd')):>10}" for name in ("actual", "replayed", "seed", "static"))
                self.stdout.write(f"{row.day}  {row.pool.slug:<20} {row.jobs:>8,} jobs  {figures}")
            self.stdout.write(whole.said())


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Invalid("day_invalid", f"{text[:40]!r} is not a day.", "Write 2026-11-01.") from None


def _pool(slug: str) -> Pool:
    found = Pool.objects.filter(slug=slug).first()
    if found is None:
        raise NotFound("pool_not_found", f"There is no pool called {slug[:60]!r}.", "Check its name.")
    return found
