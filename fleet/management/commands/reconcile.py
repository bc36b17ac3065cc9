"""`manage.py reconcile`: prove that terminal jobs, ledger and accounts agree; print the drift."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import connection, transaction
from django.utils import timezone

from fleet import reconcile


class Command(BaseCommand):
    help = "Prove that every terminal job has exactly its ledger lines and every account adds up. Exits 1 when the drift is not 0."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the whole report as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            if connection.vendor == "postgresql":  # one snapshot, while jobs go on; SQLite has one anyway
                with connection.cursor() as cursor:
                    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            found = reconcile.drift(now=timezone.now())
        if options["json"]:
            self.stdout.write(json.dumps({**asdict(found), "drift": found.total}))
        else:
            self.stdout.write(f"{found.terminal_jobs} terminal jobs, {found.entries} ledger entries, drift {found.total}")
            for title, items in (
                ("jobs without their entries", found.jobs_without_entries),
                ("entries without a terminal job", found.entries_without_jobs),
                ("jobs whose price differs from the ledger", found.price_differs),
                ("accounts that do not add up", found.accounts_differ),
            ):
                if items:
                    self.stdout.write(f"  {len(items)} {title}: {', '.join(items[:10])}{' …' if len(items) > 10 else ''}")
        if found.total:
            raise SystemExit(1)
