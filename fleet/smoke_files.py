"""A version's smoke job without a job: the bound graph, and the bytes of the files it names. For images and for warm-ups."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builds import graphs
from builds import inputs as input_rules
from builds.models import Version
from controlplane.kernel import blobs
from controlplane.kernel.errors import TooLarge
from fleet import input_files, media

SEED_IF_NONE = 42


@dataclass(frozen=True, slots=True)
class File:
    """A file the graph names, with its bytes."""

    name: str
    media_type: str
    node: str
    input: str
    data: bytes


def placed(version: Version, inputs: Mapping[str, Any], *, max_bytes: int) -> tuple[dict[str, Any], list[File]]:
    """The graph with `inputs` bound, and its files; raises TooLarge when those pass `max_bytes` together."""
    values, files = dict(inputs), []
    held = {}
    for one in input_rules.exposed_of(version):
        value = values.get(one.name)
        if one.randomize and value is None:
            values[one.name] = SEED_IF_NONE
        if one.is_file and isinstance(value, str) and value.startswith("data:"):
            data = base64.b64decode(value.partition(",")[2] + "==")
            found = media.sniff(data[:4096])
            name = f"{hashlib.sha256(data).hexdigest()[:24]}{input_files.extension(found)}"
            files.append(File(name, found, one.node, one.input, data))
            held[one.name] = name
            del values[one.name]
    seen, kept = input_files.resolve(version, values)
    total = sum(len(file.data) for file in files) + sum(row["size_bytes"] for row in kept)
    if total > max_bytes:
        raise TooLarge(
            "smoke_files_too_large", f"The files of its smoke job have {total:,} bytes, more than {max_bytes:,}.", "Write inputs with smaller files."
        )
    for row in kept:
        with blobs.open(row["sha256"]) as stream:
            files.append(File(row["name"], row["media_type"], row["node"], row["input"], stream.read()))
    return graphs.bind(version.graph, input_rules.exposed_of(version), {**seen, **held}), files
