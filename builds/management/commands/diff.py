"""Compare two versions, or a version and a file, node by node."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from builds import libraries, revisions
from builds.comparing import diff, telling
from controlplane.kernel.commands import Refusing, read_file

DIFFERENT = 1
NAMES = """A and B are each one of:
  slug               the head of the workflow's main branch
  slug@v3            a version; slug@branch the head of a branch; slug@deadbeef the start of a version's hash
  slug:production    what a channel points at
  path/to/file.json  a file: canvas or API format, or a picture or archive that holds one.
                     Beside a version, it is read as if it were imported on that version.

Exit code: 0; with --exit-code 1 when they differ; 2 with a JSON error when one cannot be read."""


class Command(Refusing):
    help = "Say what changes from A to B: the API first, then nodes, values, links, models and packs."

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        return super().create_parser(prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, epilog=NAMES, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("a", metavar="A", help="what it was")
        parser.add_argument("b", metavar="B", help="what it is")
        parser.add_argument("--json", action="store_true", help="machine-readable result")
        parser.add_argument("--whole", action="store_true", help="with --json: cut no list and no value")
        parser.add_argument("--exit-code", action="store_true", help="exit with 1 when they differ")
        parser.add_argument("--object-info", metavar="FILE", help="saved answer of /object_info for canvas files; default: the current node library")

    def handle(self, *args: Any, **options: Any) -> None:
        info = options["object_info"]
        library = libraries.read_bytes(read_file(info, limit=libraries.MAX_BYTES + 1)) if info else libraries.current()
        a, b = revisions.pair(options["a"], options["b"], library=library)
        found = diff(a.content, b.content)
        if options["json"]:
            said = {"a": _named(a), "b": _named(b), **telling.as_json(found, whole=options["whole"])}
            self.stdout.write(json.dumps(said, indent=2))
        else:
            self.stdout.write("\n".join([telling.one_line(f"{a.label} → {b.label}"), *telling.lines(found)]))
        if options["exit_code"] and not found.is_empty:
            sys.exit(DIFFERENT)


def _named(one: revisions.Revision) -> dict[str, Any]:
    version = one.version
    return {"label": one.label} | ({"workflow": version.workflow.slug, "version": version.number, "sha256": version.sha256} if version else {})
