"""Convert a workflow file to API format, exactly as the web client would send it."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.db import DatabaseError

from builds import graphs, libraries
from controlplane.kernel.commands import Refusing, read_file
from controlplane.kernel.errors import Invalid


class Command(Refusing):
    help = "Print a workflow in API format. What cannot be converted exactly is a JSON error that names node, field and fix, and exit code 2."
    # It needs no database when the node classes come from a file.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="JSON, PNG or comfy-pack file; - reads standard input")
        parser.add_argument("--object-info", metavar="FILE", help="saved answer of /object_info, gzip accepted; default: the current node library")

    def handle(self, *args: Any, **options: Any) -> None:
        document = graphs.load(read_file(options["file"], limit=graphs.MAX_FILE_BYTES + 1))
        info = options["object_info"]
        library = libraries.read_bytes(read_file(info, limit=libraries.MAX_BYTES + 1)) if info else _current()
        graph = graphs.parse(document, library=library)
        self.stdout.write(json.dumps(graph, indent=2))


def _current() -> Any:
    try:
        return libraries.current()
    except DatabaseError as error:
        raise Invalid("no_node_library", "The database holds no node library.", "Name a saved answer of /object_info with --object-info.") from error
