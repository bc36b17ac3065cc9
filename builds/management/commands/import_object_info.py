"""Import the object_info of a ComfyUI as a node library."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from django.utils import timezone

from builds import libraries
from controlplane.kernel.commands import Refusing, read_file
from controlplane.kernel.errors import NotFound


class Command(Refusing):
    help = "Import what a ComfyUI's nodes take and give, from a file (gzip accepted) or from a running server."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("source", metavar="FILE_OR_URL", help="saved answer of /object_info, or the address of a ComfyUI")
        parser.add_argument("--name", required=True, help="e.g. 'ComfyUI 0.8.0'; the same name is replaced")
        parser.add_argument("--comfyui-version", default="")
        parser.add_argument("--current", action="store_true", help="judge new graphs, and all versions again, against it")

    def handle(self, *args: Any, **options: Any) -> None:
        source = options["source"]
        remote = source.startswith(("http://", "https://"))
        document = libraries.read_bytes(_fetch(source) if remote else read_file(source, limit=libraries.MAX_BYTES + 1))
        library = libraries.store(
            name=options["name"],
            document=document,
            source=_shown(source),
            comfyui_version=options["comfyui_version"],
            current=options["current"],
            actor="import_object_info",
            now=timezone.now(),
        )
        self.stdout.write(f"{library.name}: {len(library.classes)} node classes, {library.sha256[:12]}{', current' if library.current else ''}")


def _fetch(url: str) -> bytes:
    if urlsplit(url).path in ("", "/"):
        url = url.rstrip("/") + "/object_info"
    data = bytearray()
    try:
        with httpx.stream("GET", url, timeout=60, follow_redirects=False) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > libraries.MAX_BYTES:
                    break
    except httpx.HTTPError as error:
        raise NotFound("comfyui_unreachable", f"Cannot fetch {_shown(url)}: {type(error).__name__}.", "Check that ComfyUI is running there.") from error
    return bytes(data)


def _shown(source: str) -> str:
    """An address without user name and password; of a file, its name only."""
    if not source.startswith(("http://", "https://")):
        return Path(source).name
    parts = urlsplit(source)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
