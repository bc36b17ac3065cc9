"""Pin a node class to a pack, with the reason; or take a pin back."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.utils import timezone

from builds import queries
from builds.dependencies import pins
from builds.models import Pin
from controlplane.kernel.commands import Refusing
from controlplane.kernel.errors import Invalid


class Command(Refusing):
    help = "Say which pack a node class comes from; the choice and its reason are kept. Without CLASS it lists the pins."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("class_name", metavar="CLASS", nargs="?", help="node class as the graph writes it")
        parser.add_argument("pack", metavar="PACK", nargs="?", help="registry id, or the address of a repository")
        parser.add_argument("--reason", default="", help="why; required")
        parser.add_argument("--workflow", metavar="SLUG", help="for this workflow only")
        parser.add_argument("--pack-version", metavar="VERSION", default="", help="full commit or registry version")
        parser.add_argument("--remove", action="store_true", help="take the pin back")
        parser.add_argument("--author", default="manage.py pin")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> None:
        said = self._act(options)
        if options["json"]:
            self.stdout.write(json.dumps(said, indent=2))
        else:
            for one in said:
                reach = one["workflow"] or "all workflows"
                self.stdout.write(f"{one['class']}  {one['pack']}  {one['version'] or 'any version'}  {reach}  {one['author']}: {one['reason']}")

    def _act(self, options: dict[str, Any]) -> list[dict[str, str]]:
        workflow = queries.workflow(options["workflow"]) if options["workflow"] else None
        name, now = options["class_name"], timezone.now()
        if not name:
            rows = Pin.objects.select_related("pack", "workflow").order_by("class_name", "workflow__slug")
            return [shown(row) for row in (rows.filter(workflow=workflow) if workflow else rows)]
        if options["remove"]:
            pins.remove(class_name=name, workflow=workflow, reason=options["reason"], actor=options["author"], now=now)
            return []
        if not options["pack"]:
            raise Invalid("pack_missing", "No pack is named.", "Say manage.py pin CLASS PACK --reason …")
        pin = pins.place(
            class_name=name,
            pack=options["pack"],
            version=options["pack_version"],
            reason=options["reason"],
            workflow=workflow,
            actor=options["author"],
            now=now,
        )
        return [shown(pin)]


def shown(pin: Pin) -> dict[str, str]:
    """A pin as JSON."""
    return {
        "class": pin.class_name,
        "pack": pin.pack.key,
        "version": pin.version,
        "workflow": pin.workflow.slug if pin.workflow else "",
        "reason": pin.reason,
        "author": pin.author,
    }
