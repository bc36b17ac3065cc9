"""Write the catalogue of all living workflows as JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from builds import catalogue, queries
from builds.models import Channel


class Command(BaseCommand):
    help = "Print the catalogue. Figures nobody has measured are null; --measured FILE lays measured ones over it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--measured", metavar="FILE", help='JSON object: workflow → {"p50_s", "success_rate", "cost_per_job_usd", "cost_per_image_usd", "jobs"}'
        )
        parser.add_argument("--all", action="store_true", help="also workflows that are not in production")
        parser.add_argument("--output", metavar="FILE", help="write there instead of standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        measured: dict[str, Any] = {}
        if options["measured"]:
            try:
                measured = json.loads(Path(options["measured"]).read_bytes())
            except (OSError, ValueError) as error:
                raise CommandError(f"Cannot read the measurements: {error}.") from error
        entries = []
        for workflow in queries.living():
            version = queries.serving(workflow, Channel.Name.PRODUCTION)
            if version is None and options["all"]:
                version = queries.latest(workflow)
            if version:
                entries.append(catalogue.with_measurements(catalogue.entry(workflow, version), measured.get(workflow.slug)))
        text = json.dumps(entries, indent=2, ensure_ascii=False)
        if options["output"]:
            Path(options["output"]).write_text(text + "\n", encoding="utf-8")
        else:
            self.stdout.write(text)
