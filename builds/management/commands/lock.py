"""Lock a version: make the one document that rebuilds its image."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from dataclasses import replace
from typing import Any

from django.utils import timezone

from builds.locking import asking, document, making
from builds.locking.sources import Sources, Target
from controlplane.kernel.commands import Refusing, write_file

STALE = 1


class Command(Refusing):
    help = (
        "Lock a version: ComfyUI and packs by commit, one Python freeze with hashes, the base image by digest, models by hash. The same content is the same "
        "lock. What cannot be locked is a JSON error with both sides of a conflict, and exit code 2; --check exits 1 when the lock would be another one now."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("workflow", metavar="WORKFLOW[@VERSION]", help="slug, with a number, channel or hash; the newest version without")
        parser.add_argument("--json", action="store_true", help="print the lock and its findings as JSON")
        parser.add_argument("--output", metavar="FILE", help="also write the lock document to FILE; - is standard output and nothing else")
        parser.add_argument("--check", action="store_true", help="keep nothing; say what would change")
        parser.add_argument("--upgrade", action="store_true", help="newest commits where none is asked for, and a fresh freeze; not those of the lock before")
        parser.add_argument(
            "--comfyui", metavar="REF", help="commit, tag or branch of ComfyUI; default: BUILD_COMFYUI_REF, else the lock before, else the newest"
        )
        parser.add_argument("--constraint", action="append", default=[], metavar="LINE", help="hold a Python package, e.g. 'numpy<2'; repeat")
        parser.add_argument("--author", default="lock")
        parser.add_argument("--reason", default="", help="why, for the audit trail")

    def handle(self, *args: Any, **options: Any) -> None:
        answer, differences = self._run(options)
        if options["output"] == "-":
            self.stdout.write(document.text(answer["document"]), ending="")
        elif options["json"]:
            self.stdout.write(json.dumps(answer | {"changes": differences}, indent=2))
        else:
            for line in [*asking.summary(answer), *(f"  change  {line}" for line in differences)]:
                self.stdout.write(line)
        if options["check"] and answer["changed"]:
            sys.exit(STALE)

    def _run(self, options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        version = asking.version_named(options["workflow"])
        held = making.of(version)
        target = Target.of_settings()
        if options["comfyui"]:
            target = replace(target, ref=options["comfyui"])
        prepared = making.prepare(version=version, sources=Sources.of_settings(), target=target, upgrade=options["upgrade"], constraints=options["constraint"])
        if options["output"] and options["output"] != "-":
            write_file(options["output"], document.text(prepared.document).encode())
        if not options["check"]:
            making.keep(version=version, prepared=prepared, actor=options["author"], reason=options["reason"], now=timezone.now())
        changed = held is None or held.lock_id != prepared.sha256
        differences = asking.changes(held.lock.document, prepared.document) if held is not None and changed else []
        return asking.said(version, prepared.document, prepared.findings, changed=changed), differences
