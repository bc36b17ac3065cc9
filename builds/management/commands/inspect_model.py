"""Say what a model file is from its header: kind, family, precision, base of a LoRA."""

from __future__ import annotations

import hashlib
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.utils import timezone

from builds import libraries
from builds.dependencies import folders, headers, model_facts, spelling
from builds.dependencies.headers import Header
from builds.dependencies.telling import short
from controlplane.kernel import fetching
from controlplane.kernel.commands import Refusing
from controlplane.kernel.errors import Invalid, NotFound, TooLarge

_FOLDERS = {kind: folder for folder, kind in reversed(folders.KINDS.items())}


class Command(Refusing):
    help = (
        "Print what a safetensors file is, from its header alone: kind, family (for a LoRA: the base it was made for), precision, size. "
        "FILE may be an http(s) address whose server answers ranges; then only the header is fetched. --keep remembers it for checking graphs."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="a .safetensors file, or its http(s) address")
        parser.add_argument("--json", action="store_true")
        parser.add_argument("--hash", action="store_true", help="also compute the sha256, which reads the whole file")
        parser.add_argument("--keep", action="store_true", help="remember the facts under the file's name and folder")
        parser.add_argument("--directory", default="", help="folder under models/, such as loras; default: by the file's kind")
        parser.add_argument("--name", default="", help="file name to remember it under; default: its own")
        parser.add_argument("--url", default="", help="where it can be had, to remember")
        parser.add_argument("--licence", default="", help="its licence, to remember")

    def handle(self, *args: Any, **options: Any) -> None:
        source: str = options["file"]
        remote = source.startswith(("http://", "https://"))
        header = _remote(source) if remote else headers.from_file(Path(source))
        digest = _sha256(Path(source)) if options["hash"] and not remote else ""
        name = spelling.basename(options["name"] or source.partition("?")[0] if remote else options["name"] or Path(source).name)
        directory = options["directory"] or _FOLDERS.get(header.kind, "")
        if options["keep"]:
            url = options["url"] or (source if remote else "")
            self._keep(header, name=name, directory=directory, url=url, sha256=digest, licence=options["licence"])
        said = {"name": name, "directory": directory, "sha256": digest, **header.as_json(), "kept": options["keep"]}
        if options["json"]:
            self.stdout.write(json.dumps(said, indent=2))
            return
        for word in ("name", "kind", "family", "precision", "because", "tensors", "parameters", "size_bytes", "licence", "directory", "sha256"):
            value = f"{said[word]:,}" if isinstance(said[word], int) else short(str(said[word])) or "unknown"
            self.stdout.write(f"{word.replace('_', ' ')}: {value}")

    def _keep(self, header: Header, *, name: str, directory: str, url: str, sha256: str, licence: str) -> None:
        if not directory:
            raise Invalid("model_folder_unknown", "Which folder the file belongs in cannot be told from its header.", "Say it with --directory, such as loras.")
        now = timezone.now()
        model_facts.remember(
            filename=name,
            directory=directory,
            url=url,
            sha256=sha256,
            licence=licence,
            header=header,
            source="header of the file",
            actor="inspect_model",
            now=now,
        )
        library = libraries.current()
        if library is not None:
            libraries.recheck_versions(library=library)


def _remote(url: str) -> Header:
    try:
        start = fetching.get(url, max_bytes=8, headers={"Range": "bytes=0-7"})
    except TooLarge as error:
        raise NotFound("ranges_not_served", "That server sends whole files only.", "Fetch the file and name it here.") from error
    whole = start.headers.get("content-range", "").rpartition("/")[2]
    if start.status != 206 or not whole.isdecimal():
        raise NotFound("ranges_not_served", "That server sends whole files only.", "Fetch the file and name it here.")
    size = int(whole)
    end = 8 + headers.length(start.body, size)
    rest = fetching.get(url, max_bytes=headers.MAX_HEADER, headers={"Range": f"bytes=8-{end - 1}"})
    if rest.status != 206:
        raise NotFound("ranges_not_served", "That server sends whole files only.", "Fetch the file and name it here.")
    return headers.read(start.body, rest.body, size_bytes=size)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise NotFound("file_unreadable", f"Cannot read {str(path)[:200]}: {error.strerror}.", "Check the path.") from error
