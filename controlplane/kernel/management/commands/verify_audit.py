"""`manage.py verify_audit`: prove that nobody changed the audit trail."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from controlplane.kernel import audit


class Command(BaseCommand):
    help = "Walk the audit trail's hash chain and report the first entry that does not hold. Exit code 1 when it is broken."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", type=int, default=0, metavar="SEQ", help="Trust the trail up to this entry and check what follows (default: check all).")

    def handle(self, *args: Any, **options: Any) -> None:
        verdict = audit.verify(since=options["since"])
        if not verdict.intact:
            raise CommandError(f"The audit trail is broken at entry {verdict.broken_at}: {verdict.why}. {verdict.entries} entries before it are intact.")
        self.stdout.write(f"The audit trail is intact: {verdict.entries} entries.")
