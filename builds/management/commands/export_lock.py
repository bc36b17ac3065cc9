"""Write a version's lock as a file of the field: ComfyUI-Manager, comfy-pack, comfy-lock.yaml, comfy-build.yaml."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from builds.locking import asking, formats, making
from controlplane.kernel.commands import Refusing, write_file
from controlplane.kernel.errors import Invalid


class Command(Refusing):
    help = "Print the lock of a version in another tool's format. What that format cannot hold is said on standard error."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("workflow", metavar="WORKFLOW[@VERSION]", help="slug, with a number, channel or hash; the newest version without")
        parser.add_argument("--format", default="comfyplane", metavar="FORMAT", help=f"{', '.join(formats.FORMATS)} or cpack (a .cpack.zip)")
        parser.add_argument("--output", metavar="FILE", help="write to FILE; default: standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        written = making.export(version=asking.version_named(options["workflow"]), name=options["format"])
        if options["output"]:
            write_file(options["output"], written.data)
        elif options["format"] == "cpack":
            raise Invalid("output_missing", "A .cpack.zip is no text.", "Name a file with --output.")
        else:
            self.stdout.write(written.data.decode(), ending="")
        for one in written.findings:
            self.stderr.write(f"{one['level']} {one['code']}: {one['message']} {one['suggestion']}".rstrip())
