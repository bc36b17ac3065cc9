"""Build the image of a workflow's version, here and now."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.utils import timezone

from builds import queries
from builds.images import asking, building, running, telling
from builds.models import Build
from controlplane.kernel.commands import Refusing
from controlplane.kernel.errors import Invalid

FAILED = 1
LOOK_EVERY_S = 0.5


class Command(Refusing):
    help = (
        "Build the image of a version and show every line as it comes. The same lock is not built twice: an image that is there is named at once. "
        "Exit code 1 when the build failed, 2 when it was refused."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", metavar="WORKFLOW[@VERSION]", help="a workflow, and a number, channel or hash; default: its newest version")
        parser.add_argument("--no-push", action="store_true", help="leave the image in the engine")
        parser.add_argument("--json", action="store_true", help="print the finished build as JSON")
        parser.add_argument("--follow", action="store_true", help="stay with a build that another process makes; with --json, lines go to standard error")

    def handle(self, *args: Any, **options: Any) -> None:
        build = self._build(options, self._say(options))
        if options["json"]:
            self.stdout.write(json.dumps(telling.one(build), indent=2))
        else:
            for line in _summary(build):
                self.stdout.write(line)
        if build.state in (Build.State.FAILED, Build.State.CANCELED):
            sys.exit(FAILED)

    def _build(self, options: dict[str, Any], said: Any) -> Build:
        slug, _, wanted = options["what"].partition("@")
        workflow = queries.workflow(slug)
        version = queries.version(workflow, wanted) if wanted else queries.latest(workflow)
        if version is None:
            raise Invalid("no_version", f"{workflow.slug} has no version.", "Import a workflow file first.")
        build = asking.ask(version=version, actor="command line", make_lock=True, now=timezone.now())
        if build.state == Build.State.SUCCEEDED:
            return building.find(build.id) if options["no_push"] else running.publish(build.id, clock=timezone.now, follow=said)
        build = running.run(build.id, clock=timezone.now, follow=said, push=not options["no_push"])
        if build.state in Build.OPEN and options["follow"]:
            return _stay(build, said)
        return build

    def _say(self, options: dict[str, Any]) -> Any:
        if options["json"] and not options["follow"]:
            return lambda _: None
        stream = self.stderr if options["json"] else self.stdout
        return lambda text: stream.write(text, ending="\n")


def _stay(build: Build, said: Any) -> Build:
    """Show what another process writes down, to the end."""
    seen = 0
    while True:
        ended = building.find(build.id).state not in Build.OPEN
        while lines := telling.lines_after(build, seen):
            for line in lines:
                said(line["text"])
            seen = lines[-1]["seq"]
        if ended:
            return building.find(build.id)
        time.sleep(LOOK_EVERY_S)


def _summary(build: Build) -> list[str]:
    told = telling.one(build)
    lines = ["", f"{build.version}: {build.state}" + (f" in {told['seconds']:g} s" if told["seconds"] is not None else "")]
    if build.state in Build.OPEN:
        lines.append("Another process builds it; --follow shows its lines.")
    if build.state == Build.State.SUCCEEDED:
        cache, size = told["cache"], build.size_bytes or 0
        lines += [f"image    {build.image}", f"id       {build.image_id}", f"digest   {build.digest or 'not pushed'}", f"size     {size / 1e6:,.1f} MB"]
        lines += [f"steps    {cache['steps']}, {cache['cached']} from the cache", f"classes  {build.classes.get('wanted', 0)} of the lock came up"]
        report = build.vulnerabilities or {}
        lines.append(f"known vulnerabilities: {len(report['found'])}" if report.get("scanner") else str(report.get("reason", "")))
    if build.error:
        lines += [f"step     {build.failed_step}", f"{build.error['code']}: {build.error['message']} {build.error['suggestion']}"]
        lines += [f"  | {line}" for line in (build.error.get("details") or {}).get("tail", [])]
    return lines
