"""Write the catalogue of all living workflows as JSON."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from builds import catalogue, queries
from builds.models import Channel
from controlplane.kernel.commands import Refusing, read_file, write_file
from controlplane.kernel.errors import Invalid

MOST_MEASURED_BYTES = 64 * 2**20


class Command(Refusing):
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
                measured = json.loads(read_file(options["measured"], limit=MOST_MEASURED_BYTES))
            except ValueError as error:
                why = f"Cannot read the measurements: {str(error)[:200]}."
                raise Invalid("measurements_unreadable", why, "Write the JSON object that --help shows.") from error
        entries = []
        for workflow in queries.living():
            version = queries.serving(workflow, Channel.Name.PRODUCTION)
            if version is None and options["all"]:
                version = queries.latest(workflow)
            if version:
                entries.append(catalogue.with_measurements(catalogue.entry(workflow, version), measured.get(workflow.slug)))
        text = json.dumps(entries, indent=2, ensure_ascii=False)
        if options["output"]:
            write_file(options["output"], f"{text}\n".encode())
        else:
            self.stdout.write(text)
