"""`manage.py credentials`: print the login and the key that `up` made."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from controlplane import credentials


class Command(BaseCommand):
    help = "Print the console's address, the operator's login and a customer's key. They were made by the first start and are kept in DATA_DIR/secrets."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="for scripts")

    def handle(self, *args: Any, **options: Any) -> None:
        shown = credentials.shown()
        if not shown["operator"]:
            raise CommandError("There are no credentials yet: start Comfyplane once with `make up` (and the same DATA_DIR).")
        if options["json"]:
            self.stdout.write(json.dumps(shown))
            return
        operator = shown["operator"]
        self.stdout.write(f"console   {shown['base_url']}/ops/")
        self.stdout.write(f"operator  {operator['username']} / {operator['password']}")
        self.stdout.write(f"API key   {shown['api_key'] or 'none: it was started without demo data'}")
