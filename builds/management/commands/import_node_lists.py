"""Import the public node lists: which pack brings which node class, the packs, the models."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.utils import timezone

from builds.dependencies import importing, lists
from controlplane.kernel import fetching
from controlplane.kernel.commands import Refusing


class Command(Refusing):
    help = (
        "Import the public node lists and say what changed. SOURCE is a folder, a wheel or zip (the PyPI package comfyui-manager carries the lists: "
        "pip download --no-deps comfyui-manager), one of its JSON files, or an http(s) address of any of these. Importing the same again changes nothing."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", metavar="SOURCE", help="folder, wheel, zip, JSON file or http(s) address")
        parser.add_argument("--json", action="store_true", help="print what changed as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        source: str = options["source"]
        if source.startswith(("http://", "https://")):
            fetched = fetching.get(source, max_bytes=lists.MAX_ARCHIVE_BYTES)
            read = lists.from_bytes(source.partition("?")[0], fetched.body)
            shown = source.partition("?")[0]
        else:
            read, shown = lists.from_path(Path(source)), Path(source).name
        changes = importing.keep(read, source=shown, actor="import_node_lists", now=timezone.now())
        if options["json"]:
            self.stdout.write(json.dumps(changes.as_json(), indent=2))
            return
        words = {"node_map": "classes in the node map", "pack_list": "packs", "model_list": "models", "stats": "repositories with stars"}
        self.stdout.write("Read " + ", ".join(f"{count:,} {words[kind]}" for kind, count in changes.entries.items()) + ".")
        if changes.nothing:
            self.stdout.write("Nothing changed.")
        else:
            self.stdout.write(
                f"Packs: {changes.packs_new:,} new, {changes.packs_changed:,} changed. "
                f"Classes: {changes.classes_new:,} new, {changes.classes_changed:,} changed, {changes.classes_gone:,} gone. "
                f"Models: {changes.models_new:,} new, {changes.models_changed:,} changed, {changes.models_gone:,} gone."
            )
        for why, count in sorted(changes.left_out.items()):
            self.stdout.write(f"Left out: {count:,} {why}.")
