"""Kubernetes' own published schemas, strict: unknown fields, wrong types and removed versions are refused."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from jsonschema.validators import Draft202012Validator
from referencing import Registry, Resource

VERSION = "1.31"


def refusals(body: dict[str, Any], *, version: str = VERSION) -> list[str]:
    """What is wrong with an object; empty when its schema takes it."""
    try:
        validator = _validator(str(body.get("kind")), str(body.get("apiVersion")), version)
    except FileNotFoundError:
        return [f"Kubernetes {version} knows no {body.get('kind')} in {body.get('apiVersion')}"]
    return [f"{'.'.join(str(p) for p in error.absolute_path)}: {error.message[:300]}" for error in validator.iter_errors(body)]


def folder(version: str = VERSION) -> Path:
    """Where the schemas of a version lie, found without importing their package, which takes seconds."""
    spec = importlib.util.find_spec("kubernetes_validate")
    assert spec is not None and spec.origin is not None, "kubernetes-validate is one of the development requirements"
    return Path(spec.origin).parent / "kubernetes-json-schema" / f"v{version}.0-local-strict"


@functools.cache
def _validator(kind: str, api_version: str, version: str) -> Draft202012Validator:
    # rbac.authorization.k8s.io/v1 -> rbac-v1
    suffix = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", "meta/v1" if kind == "DeleteOptions" else api_version)
    path = folder(version) / f"{kind.lower()}-{suffix}.json"
    return Draft202012Validator(json.loads(path.read_text()), registry=_definitions(version))


@functools.cache
def _definitions(version: str) -> Registry:
    found = json.loads((folder(version) / "_definitions.json").read_text())
    return Registry().with_resource("/api/_definitions.json", Resource.from_contents(found | {"$schema": "https://json-schema.org/draft/2020-12/schema"}))
