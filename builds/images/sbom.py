"""What is in an image, as a CycloneDX document: Python and Debian packages as found inside, ComfyUI and packs as locked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.utils import canonicalize_name

MEDIA_TYPE = "application/vnd.cyclonedx+json"


def make(document: Mapping[str, Any], *, lock_id: str, image: str, image_id: str, python: Mapping[str, str], debian: Mapping[str, str], now: datetime) -> bytes:
    """The document as JSON. A package that is installed but was not locked carries `comfyplane:locked` = false, and the other way round."""
    locked: dict[str, Mapping[str, Any]] = {canonicalize_name(str(p["name"])): p for p in document["python_packages"]}
    installed: dict[str, str] = {canonicalize_name(name): version for name, version in python.items()}
    bom = Bom()
    bom.serial_number = uuid5(NAMESPACE_URL, f"{lock_id}/{image_id}")
    bom.metadata.timestamp = now
    bom.metadata.component = Component(
        type=ComponentType.CONTAINER,
        name=image.partition(":")[0] or "image",
        version=lock_id[:12],
        bom_ref="image",
        hashes=_sha256([image_id]),
        properties=[Property(name="comfyplane:lock", value=lock_id)],
    )
    for name in sorted(set(locked) | set(installed)):
        bom.components.add(_python(name, installed.get(name), locked.get(name)))
    for package, version in sorted(debian.items()):
        url = PackageURL("deb", "debian", package, version)
        bom.components.add(Component(type=ComponentType.LIBRARY, name=package, version=version, purl=url, bom_ref=f"deb/{package}"))
    comfyui = document["comfyui"]
    bom.components.add(_source("ComfyUI", comfyui.get("repository", ""), comfyui.get("commit", ""), comfyui.get("version", ""), ComponentType.APPLICATION))
    for pack in document["packs"]:
        bom.components.add(_source(pack["key"], pack.get("repository", ""), pack.get("commit", ""), pack.get("version", ""), ComponentType.LIBRARY))
    base = document["base_image"]
    if base.get("reference"):
        bom.components.add(
            Component(
                type=ComponentType.CONTAINER,
                name=str(base["reference"]).partition("@")[0],
                version=str(base.get("digest") or ""),
                bom_ref="base-image",
                hashes=_sha256([str(base.get("digest") or "")]),
            )
        )
    bom.register_dependency(bom.metadata.component, list(bom.components))
    return json.dumps(json.loads(JsonV1Dot6(bom).output_as_string()), indent=1, sort_keys=True).encode()


def _python(name: str, installed: str | None, locked: Mapping[str, Any] | None) -> Component:
    version = installed or str((locked or {}).get("version") or "")
    facts = {"comfyplane:locked": locked is not None, "comfyplane:installed": installed is not None}
    properties = [Property(name=key, value=str(value).lower()) for key, value in facts.items()]
    # A locked package has one hash for each file of its release; which one was taken, pip does not tell.
    properties += [Property(name="comfyplane:accepted-hash", value=str(h)) for h in sorted((locked or {}).get("hashes") or ())[:20]]
    return Component(
        type=ComponentType.LIBRARY, name=name, version=version, purl=PackageURL("pypi", None, name, version), bom_ref=f"pypi/{name}", properties=properties
    )


def _source(name: str, repository: str, commit: str, version: str, kind: ComponentType) -> Component:
    owner, _, short = repository.partition("://")[2].partition("/")[2].partition("/")
    url = PackageURL("github", owner.lower(), short.lower(), commit) if "github.com/" in repository and owner and short else None
    return Component(
        type=kind,
        name=name,
        version=commit or version,
        purl=url,
        bom_ref=f"source/{name}",
        properties=[Property(name="comfyplane:repository", value=repository)] if repository else [],
    )


def _sha256(values: list[str]) -> list[HashType]:
    found = [v.removeprefix("sha256:") for v in values if v.startswith("sha256:")]
    return [HashType(alg=HashAlgorithm.SHA_256, content=v) for v in found]
