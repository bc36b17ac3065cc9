"""Credentials by address, read from a file at every download so that a rotated one counts at once. Never logged, never shown.

The file is JSON or TOML: {"secrets": [{"url": "https://hub.example/**", "type": "bearer", "token": {"env": "HUB_TOKEN"}}, ...]}.
The first entry that matches counts. `*` stands for anything but "/", `**` for anything; a host is named in full or as *.host.
A value is text, {"env": "NAME"} or {"file": "/path"}.
"""

from __future__ import annotations

import base64
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.agent.store.failures import Misconfigured

_FIELDS = {
    "bearer": ({"token"}, set()),
    "basic": ({"username", "password"}, set()),
    "header": ({"name", "value"}, set()),
    "query": ({"name", "value"}, set()),
    "s3": ({"access_key_id", "secret_access_key"}, {"session_token", "region", "endpoint"}),
}
_PATTERN = re.compile(r"(?P<scheme>https?|s3|hf)://(?P<star>\*\.)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(?P<port>:\d+)?(?P<path>/.*)?")


@dataclass(frozen=True)
class Secret:
    """One credential. Its values never show in a repr."""

    pattern: str
    kind: str
    values: Mapping[str, str] = field(repr=False)

    def headers(self) -> dict[str, str]:
        if self.kind == "bearer":
            return {"Authorization": f"Bearer {self.values['token']}"}
        if self.kind == "basic":
            pair = f"{self.values['username']}:{self.values['password']}"
            return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        return {self.values["name"]: self.values["value"]} if self.kind == "header" else {}

    def query(self) -> dict[str, str]:
        return {self.values["name"]: self.values["value"]} if self.kind == "query" else {}


class Secrets:
    """What the file holds; values are read when they are used."""

    def __init__(self, entries: list[Mapping[str, Any]], env: Mapping[str, str] = os.environ) -> None:
        self._entries = [(_compiled(entry), entry) for entry in entries]
        self._env = env

    def of(self, url: str) -> Secret | None:
        """The credential for an address. Raises Misconfigured when its value cannot be read."""
        plain = url.partition("?")[0].partition("#")[0]
        for pattern, entry in self._entries:
            if pattern.fullmatch(plain):
                kind = str(entry["type"])
                needed, optional = _FIELDS[kind]
                return Secret(str(entry["url"]), kind, {name: self._value(entry, name) for name in (needed | (optional & entry.keys()))})
        return None

    def _value(self, entry: Mapping[str, Any], name: str) -> str:
        raw, where = entry[name], f"{name} of the secret for {entry['url']}"
        text = raw
        if isinstance(raw, Mapping) and isinstance(raw.get("env"), str):
            text = self._env.get(raw["env"], "")
        elif isinstance(raw, Mapping) and isinstance(raw.get("file"), str):
            try:
                text = Path(raw["file"]).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise Misconfigured(f"The {where} cannot be read: {type(error).__name__}.") from None
        if not isinstance(text, str) or not text or re.search(r"[\x00-\x1f\x7f]", text):
            raise Misconfigured(f"The {where} is empty or no single line of text.")
        return text


def load(path: Path | None) -> Secrets:
    """The secrets of a file; none without one. Raises Misconfigured, which never quotes the file."""
    if path is None:
        return Secrets([])
    try:
        text = path.read_text("utf-8")
        document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"The file of COMFYPLANE_STORE_SECRETS cannot be read: {type(error).__name__}.") from None
    entries = document.get("secrets") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        raise Misconfigured("The file of COMFYPLANE_STORE_SECRETS needs a list called secrets.")
    return Secrets(entries)


def _compiled(entry: Any) -> re.Pattern[str]:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("url"), str) or entry.get("type") not in _FIELDS:
        raise Misconfigured(f"Each secret needs a url and a type, one of {', '.join(_FIELDS)}.")
    found = _PATTERN.fullmatch(entry["url"])
    if found is None:
        raise Misconfigured("The url of a secret must name its host in full or as *.host, so that no other host is ever sent it.")
    missing = _FIELDS[str(entry["type"])][0] - entry.keys()
    if missing:
        raise Misconfigured(f"The secret for {entry['url']} lacks {', '.join(sorted(missing))}.")
    path = "".join({"**": ".*", "*": "[^/]*"}.get(piece, re.escape(piece)) for piece in re.split(r"(\*\*|\*)", found["path"] or "/**"))
    star = r"[^/?#@:\\]+\." if found["star"] else ""
    return re.compile(f"{found['scheme']}://{star}{re.escape(found['host'])}{re.escape(found['port'] or '')}{path}", re.DOTALL)
