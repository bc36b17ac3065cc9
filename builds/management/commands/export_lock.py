"""Write a version's lock as a file of the field: ComfyUI-Manager, comfy-pack, comfy-lock.yaml, comfy-build.yaml."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError

from builds.locking import asking, formats, making
from controlplane.kernel.errors import Invalid, NotFound, WorkflowError

REFUSED = 2


class Command(BaseCommand):
    help = "Print the lock of a version in another tool's format. What that format cannot hold is said on standard error."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("workflow", metavar="WORKFLOW[@VERSION]", help="slug, with a number, channel or hash; the newest version without")
        parser.add_argument("--format", default="comfyplane", metavar="FORMAT", help=f"{', '.join(formats.FORMATS)} or cpack (a .cpack.zip)")
        parser.add_argument("--output", metavar="FILE", help="write to FILE; default: standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            written = making.export(version=asking.version_named(options["workflow"]), name=options["format"])
            if options["output"]:
                _write(Path(options["output"]), written.data)
            elif options["format"] == "cpack":
                raise Invalid("output_missing", "A .cpack.zip is no text.", "Name a file with --output.")
            else:
                self.stdout.write(written.data.decode(), ending="")
        except (WorkflowError, DatabaseError) as error:
            told = error if isinstance(error, WorkflowError) else Invalid("no_database", "The database cannot be used.", "Run manage.py migrate first.")
            self.stdout.write(json.dumps(told.envelope(), indent=2))
            self.stderr.write(f"{told.code}: {told.message} {told.suggestion}".rstrip())
            sys.exit(REFUSED)
        for one in written.findings:
            self.stderr.write(f"{one['level']} {one['code']}: {one['message']} {one['suggestion']}".rstrip())


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise NotFound("file_not_written", f"Cannot write {str(path)[:200]}: {error.strerror}.", "Check the path.") from error
