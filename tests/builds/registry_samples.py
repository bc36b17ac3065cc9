"""Real prompts and the object_info they were captured beside, and small makers for this room's tests."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

DATA = Path(__file__).parent / "data"
PROMPTS = sorted(path.stem for path in (DATA / "prompts").glob("*.json"))


def prompt(name: str) -> dict[str, Any]:
    return json.loads((DATA / "prompts" / f"{name}.json").read_text())


@cache
def object_info() -> dict[str, Any]:
    return json.loads(gzip.decompress((DATA / "object_info.json.gz").read_bytes()))


def version_of(exposed: list[Any]) -> Any:
    """Anything with an id and inputs serves as a version for validation."""
    return SimpleNamespace(pk=uuid4(), inputs=[one if isinstance(one, dict) else one.dump() for one in exposed])
