"""Import a workflow file as a version of a workflow."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.utils import timezone
from django.utils.text import slugify

from builds import graphs, heads, importing, libraries, versions
from builds.findings import ERROR
from builds.models import Channel
from controlplane.kernel.commands import STANDARD_INPUT, Refusing, read_file


class Command(Refusing):
    help = (
        "Import a workflow: canvas or API format, or a picture or comfy-pack that holds one. "
        "Faulty graphs are kept as drafts with their findings; --strict refuses them."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="JSON, PNG or comfy-pack file; - reads standard input")
        parser.add_argument("--slug", help="workflow to add a version to, made when new; default: the file's name")
        parser.add_argument("--name", help="name people see, for a new workflow")
        parser.add_argument("--description", default="", help="one sentence for the catalogue, for a new workflow")
        parser.add_argument("--category", help="default: guessed from the graph")
        parser.add_argument("--pool", help="pool that runs it, for a new workflow")
        parser.add_argument("--expose", action="append", metavar="NODE.INPUT[=NAME]", help="customers may set this input; repeat; default: a handful")
        parser.add_argument("--branch", default=heads.MAIN, metavar="NAME", help="branch to add it to, made where main stands when new; default: main")
        parser.add_argument("--message", default="", help="what changed")
        parser.add_argument("--author", default="import_workflow")
        parser.add_argument("--timeout", type=int, default=300, metavar="SECONDS")
        parser.add_argument("--strict", action="store_true", help="refuse a graph that cannot run")
        parser.add_argument("--promote", metavar="CHANNEL", choices=Channel.Name.values, help="point this channel at the version")
        parser.add_argument("--dry-run", action="store_true", help="say what would be kept, and keep nothing")
        parser.add_argument("--json", action="store_true", help="machine-readable result")

    def handle(self, *args: Any, **options: Any) -> None:
        said = self._run(options)
        self.stdout.write(json.dumps(said, indent=2) if options["json"] else _text(said))

    def _run(self, options: dict[str, Any]) -> dict[str, Any]:
        document = graphs.load(read_file(options["file"], limit=graphs.MAX_FILE_BYTES + 1))
        now = timezone.now()
        if options["dry_run"]:
            seen = importing.examine(document=document, expose=options["expose"], library=libraries.current())
            if options["strict"]:
                versions.refuse_faulty(seen.findings)
            inputs = [one.name for one in seen.exposed]
            return {"dry_run": True, "runnable": seen.runnable, "nodes": len(seen.graph), "inputs": inputs, "findings": seen.findings}
        stem = "" if options["file"] == STANDARD_INPUT else slugify(Path(options["file"]).stem.replace("_", "-"))[:60].strip("-")
        slug = options["slug"] or (None if options["name"] and not stem else stem or None)
        result = importing.import_graph(
            document=document,
            slug=slug,
            name=options["name"],
            message=options["message"],
            branch=options["branch"],
            make_branch=True,
            author=options["author"],
            expose=options["expose"],
            draft=not options["strict"],
            category=options["category"],
            description=options["description"],
            pool_slug=options["pool"],
            timeout_s=options["timeout"],
            now=now,
        )
        said = {
            "workflow": result.workflow.slug,
            "version": result.version.number,
            "branch": options["branch"],
            "sha256": result.version.sha256,
            "created": result.created,
            "runnable": result.version.runnable,
            "inputs": [one["name"] for one in result.version.inputs],
            "findings": result.findings,
        }
        if options["promote"]:
            versions.promote(workflow=result.workflow, channel=options["promote"], version=result.version, actor=options["author"], now=now)
            said["promoted"] = options["promote"]
        return said


def _text(said: dict[str, Any]) -> str:
    if said.get("dry_run"):
        lines = [f"Nothing kept (dry run). {said['nodes']} nodes."]
    else:
        where = "" if said["branch"] == heads.MAIN else f" on {said['branch']}"
        lines = [f"{said['workflow']} version {said['version']}{where}, {'new' if said['created'] else 'there already'}, {said['sha256'][:12]}"]
    lines.append(f"Inputs: {', '.join(said['inputs']) or 'none'}")
    lines.append("It can run." if said["runnable"] else "It cannot run yet:")
    for one in said["findings"]:
        where = ".".join(part for part in (one["node"], one["field"]) if part)
        mark = "error  " if one["level"] == ERROR else "warning"
        lines.append(f"  {mark} {one['code']}{f' at {where}' if where else ''}: {one['message']} {one['suggestion']}")
    if said.get("promoted"):
        lines.append(f"Promoted to {said['promoted']}.")
    return "\n".join(lines)
