"""Lock a version with what another tool's lock file says."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.utils import timezone

from builds.locking import asking, formats, making
from builds.locking.formats import texts
from controlplane.kernel.commands import Refusing, read_file


class Command(Refusing):
    help = (
        "Read a ComfyUI-Manager snapshot, a comfy-pack snapshot or .cpack.zip, comfy-lock.yaml, comfy-build.yaml or a Comfyplane lock. With --workflow, the "
        "version is locked with its commits, versions, pins and models; without, only what it says is printed. Refusals are JSON errors with exit code 2."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="the lock file; - reads standard input")
        parser.add_argument("--workflow", metavar="WORKFLOW[@VERSION]", help="lock this version with it; the newest version without @")
        parser.add_argument("--format", default="", metavar="FORMAT", help=f"{', '.join(formats.FORMATS)}; default: what the file looks like")
        parser.add_argument("--all-packs", action="store_true", help="also take packs that no node of the workflow needs")
        parser.add_argument("--without-pins", action="store_true", help="resolve the Python packages anew, not at the file's versions")
        parser.add_argument("--dry-run", action="store_true", help="make the lock and keep nothing")
        parser.add_argument("--json", action="store_true", help="machine-readable result")
        parser.add_argument("--author", default="import_lock")

    def handle(self, *args: Any, **options: Any) -> None:
        parts = formats.read(read_file(options["file"], limit=64 * texts.MAX_BYTES), options["format"])
        if not options["workflow"]:
            self.stdout.write(json.dumps(parts.lock or parts.as_json(), indent=2))
            return
        version = asking.version_named(options["workflow"])
        prepared = making.prepare_from(version=version, parts=parts, pins=not options["without_pins"], all_packs=options["all_packs"])
        if not options["dry_run"]:
            making.keep(version=version, prepared=prepared, actor=options["author"], reason=f"imported from {parts.format}", now=timezone.now())
        answer = asking.said(version, prepared.document, prepared.findings)
        self.stdout.write(json.dumps(answer, indent=2) if options["json"] else "\n".join(asking.summary(answer)))
