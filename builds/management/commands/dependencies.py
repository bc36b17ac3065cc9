"""Say what a workflow file needs: packs for its node classes, and its models."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from builds import graphs, libraries, queries
from builds.dependencies import of_document
from builds.dependencies.report import AMBIGUOUS, CORE, MISSING, UI_ONLY, Report
from controlplane.kernel.commands import Refusing, read_file


class Command(Refusing):
    help = (
        "Print what a workflow needs: node classes with their packs, packs with versions, models with folder, address, size, sha256, licence and family. "
        "FILE is a canvas file, an API graph, or a picture or archive that carries one. A file that cannot be read is a JSON error and exit code 2."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="JSON, PNG or comfy-pack file; - reads standard input")
        parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
        parser.add_argument("--object-info", metavar="FILE", help="saved answer of the target's /object_info, gzip accepted; default: the current node library")
        parser.add_argument("--library", metavar="NAME", help="a node library by name as the target")
        parser.add_argument("--workflow", metavar="SLUG", help="also heed the pins of this workflow")

    def handle(self, *args: Any, **options: Any) -> None:
        document = graphs.load(read_file(options["file"], limit=graphs.MAX_FILE_BYTES + 1))
        workflow = queries.workflow(options["workflow"]) if options["workflow"] else None
        report = of_document(document=document, library=_target(options), workflow=workflow)
        if options["json"]:
            self.stdout.write(json.dumps(report.as_json(), indent=2))
        else:
            for line in _lines(report):
                self.stdout.write(line)


def _target(options: dict[str, Any]) -> Any:
    if options["object_info"]:
        return libraries.read_bytes(read_file(options["object_info"], limit=libraries.MAX_BYTES + 1))
    return libraries.named(options["library"]) if options["library"] else libraries.current()


def _lines(report: Report) -> list[str]:
    counts, about = report.counts, report.comfyui
    target = f"{about['target']}, {about['classes']:,} classes" if about["target"] else "unknown: no node library is imported"
    lines = [f"Target ComfyUI: {target}", f"{counts['nodes']:,} nodes, {len(report.classes):,} classes: {counts.get(CORE, 0):,} of ComfyUI itself, "
             f"{counts.get(UI_ONLY, 0):,} of the canvas only, {counts.get(AMBIGUOUS, 0):,} ambiguous, {counts.get(MISSING, 0):,} missing"]  # fmt: skip
    lines += ["", f"Packs ({len(report.packs)})"]
    for use in report.packs:
        pack = use.pack
        lines.append(
            f"  {_plain(pack.registry_id or pack.repository or pack.key)}  {pack.version or 'any version'}  {len(use.classes)} class(es)  {_plain(use.why)}"
        )
    open_classes = report.of_status(AMBIGUOUS, MISSING)
    if open_classes:
        lines += ["", f"To decide ({len(open_classes)})"]
    for one in open_classes:
        lines.append(f"  {_plain(one.name)}: {_plain(one.why)}{' Not needed: muted or bypassed.' if one.asleep else ''}")
        for candidate in one.candidates[:5]:
            lines.append(f"    {candidate.score:>4}  {_plain(candidate.pack.key)}  {_plain(' '.join(reason.sentence for reason in candidate.evidence))}")
    lines += ["", f"Models ({len(report.models)})"]
    for model in report.models:
        facts = [model.directory or "folder unknown", model.family, model.sha256[:12], f"{model.size_bytes:,} bytes" if model.size_bytes else model.size_about]
        lines.append(f"  {_plain(model.name)}  {'  '.join(fact for fact in facts if fact)}  {_plain(model.url) or model.status}")
    if report.findings:
        lines += ["", f"Findings ({len(report.findings)})"]
    lines += [f"  {one['level']}  {one['code']}  {_plain(one['message'])} {_plain(one['suggestion'])}" for one in report.findings]
    return lines


def _plain(text: str) -> str:
    """Text of strangers without what a terminal would obey."""
    return "".join(char if char.isprintable() else "?" for char in text)[:400]
