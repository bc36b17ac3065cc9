"""What a finished build teaches: which node classes a pack really brings, and the object_info of exactly this make."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from builds import libraries
from builds.images import dockerfile
from builds.models import Build, Pack, PackClass
from controlplane.kernel.errors import WorkflowError

log = logging.getLogger(__name__)


def keep(build: Build, document: Mapping[str, Any], object_info: Mapping[str, Any], *, now: datetime) -> None:
    """Store the class table under the lock's name, and classes of packs as seen. What cannot be kept does not fail a good image."""
    try:
        libraries.store(
            name=f"lock {build.lock_id[:12]}",
            document=object_info,
            source=f"build {build.id}",
            comfyui_version=str(document["comfyui"].get("version") or ""),
            actor="builder",
            now=now,
        )
    except WorkflowError as error:
        log.warning("class table of a build not kept", extra={"build": str(build.id), "code": error.code})
    brought = by_pack(document, object_info)
    packs = {pack.key: pack for pack in Pack.objects.filter(key__in=list(brought))}
    rows = [
        PackClass(pack=packs[key], class_name=name[:200], evidence=PackClass.Evidence.BUILT) for key, names in brought.items() if key in packs for name in names
    ]
    PackClass.objects.bulk_create(rows, ignore_conflicts=True, batch_size=500)


def by_pack(document: Mapping[str, Any], object_info: Mapping[str, Any]) -> dict[str, list[str]]:
    """Class names by the key of the pack whose module they come from."""
    keys = {dockerfile.folder(pack): str(pack["key"]) for pack in document["packs"]}
    found: dict[str, list[str]] = {}
    for name, facts in object_info.items():
        module = str(facts.get("python_module") or "") if isinstance(facts, Mapping) else ""
        folder = module.removeprefix("custom_nodes.").split(".", 1)[0] if module.startswith("custom_nodes.") else ""
        # A folder's name may hold dots, which a module's name then shows as well.
        key = keys.get(module.removeprefix("custom_nodes.")) or keys.get(folder)
        if key and name.isprintable():  # packs choose these names, and no database keeps every character
            found.setdefault(key, []).append(name)
    return found
