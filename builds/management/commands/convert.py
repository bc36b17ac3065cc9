"""Convert a workflow file to API format, exactly as the web client would send it."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError

from builds import graphs, libraries
from controlplane.kernel.errors import Invalid, NotFound, WorkflowError

INEXACT = 2


class Command(BaseCommand):
    help = "Print a workflow in API format. What cannot be converted exactly is a JSON error that names node, field and fix, and exit code 2."
    # It needs no database when the node classes come from a file.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="JSON, PNG or comfy-pack file; - reads standard input")
        parser.add_argument("--object-info", metavar="FILE", help="saved answer of /object_info, gzip accepted; default: the current node library")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            document = graphs.load(_read(options["file"], graphs.MAX_FILE_BYTES))
            info = options["object_info"]
            library = libraries.read_bytes(_read(info, libraries.MAX_BYTES)) if info else _current()
            graph = graphs.parse(document, library=library)
        except WorkflowError as error:
            self.stdout.write(json.dumps(error.envelope(), indent=2))
            self.stderr.write(f"{error.code}: {error.message} {error.suggestion}")
            sys.exit(INEXACT)
        self.stdout.write(json.dumps(graph, indent=2))


def _current() -> Any:
    try:
        return libraries.current()
    except DatabaseError as error:
        raise Invalid("no_node_library", "The database holds no node library.", "Name a saved answer of /object_info with --object-info.") from error


def _read(name: str, limit: int) -> bytes:
    try:
        with sys.stdin.buffer if name == "-" else Path(name).open("rb") as stream:
            return stream.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotFound("file_unreadable", f"Cannot read {name[:200]}: {reason}.", "Check the path.") from error
