"""Read JSON and YAML that strangers wrote: bounded in size, depth and number, and without the parts of YAML that bite."""

from __future__ import annotations

import json
from typing import Any

import yaml

from controlplane.kernel.errors import Invalid, Malformed, TooLarge

MAX_BYTES = 4_000_000
MAX_YAML_BYTES = 2_000_000
MAX_NODES = 100_000
MAX_DEPTH = 40
# Every scalar stays text: a commit of digits is not a number, "no" is not false, and no tag makes an object.
_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_FIX = "Export it again, or open it in an editor and correct it."


def any_object(data: bytes) -> dict[str, Any]:
    """A JSON or YAML object."""
    stripped = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    return json_object(data, what="the file") if stripped.startswith((b"{", b"[")) else yaml_object(data, what="the file")


def json_object(data: bytes, *, what: str) -> dict[str, Any]:
    """A JSON object of at most 4 MB. Raises Malformed `invalid_json`, TooLarge."""
    if len(data) > MAX_BYTES:
        raise TooLarge("lock_file_too_large", f"A lock file may hold {MAX_BYTES:,} bytes.", "Lock files name models, they do not hold them.")
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Malformed("invalid_json", f"{what[:1].upper()}{what[1:]} is not JSON.", _FIX) from error
    if not isinstance(found, dict):
        raise Malformed("invalid_json", f"{what[:1].upper()}{what[1:]} is not a JSON object.", _FIX)
    return found


def yaml_object(data: bytes, *, what: str) -> dict[str, Any]:
    """A YAML mapping with text for every scalar. Raises Malformed `invalid_yaml`, TooLarge, Invalid `yaml_refused`."""
    if len(data) > MAX_YAML_BYTES:
        raise TooLarge("lock_file_too_large", f"A YAML lock file may hold {MAX_YAML_BYTES:,} bytes.", "Lock files name models, they do not hold them.")
    try:
        text = data.decode("utf-8-sig")
        _refuse_bombs(text)
        found = yaml.load(text, Loader=_LOADER)  # noqa: S506 - BaseLoader makes text, lists and mappings only
    except UnicodeDecodeError as error:
        raise Malformed("invalid_yaml", f"{what[:1].upper()}{what[1:]} is not UTF-8 text.", _FIX) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark is not None else ""
        raise Malformed("invalid_yaml", f"{what[:1].upper()}{what[1:]} is not YAML{where}.", _FIX) from error
    if not isinstance(found, dict):
        raise Malformed("invalid_yaml", f"{what[:1].upper()}{what[1:]} is not a YAML mapping.", _FIX)
    return found


def _refuse_bombs(text: str) -> None:
    depth = 0
    for nodes, event in enumerate(yaml.parse(text, Loader=_LOADER), 1):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise Invalid("yaml_refused", "The file uses YAML anchors or aliases, which lock files do not need.", "Write the values out.")
        if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            depth += 1
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise Invalid("yaml_refused", "The file is nested too deep or holds too many entries.", "A lock file is flat.")


def truth(value: Any) -> bool:
    """Whether a JSON or YAML value means yes."""
    return value is True or (isinstance(value, str) and value.strip().lower() in ("true", "yes", "on", "1"))


def nothing(value: Any) -> bool:
    """Whether a JSON or YAML value says nothing."""
    return value is None or (isinstance(value, str) and value.strip().lower() in ("", "null", "~"))


def mapping(value: Any, *, where: str) -> dict[str, Any]:
    """`value`, or an empty mapping where it says nothing. Raises Invalid `lock_file_malformed`."""
    if nothing(value):
        return {}
    if not isinstance(value, dict):
        raise Invalid("lock_file_malformed", f"{where} is not a mapping.", _FIX, details={"field": where})
    return value


def listing(value: Any, *, where: str, most: int = 5_000) -> list[Any]:
    """`value`, or an empty list where it says nothing. Raises Invalid `lock_file_malformed`."""
    if nothing(value):
        return []
    if not isinstance(value, list) or len(value) > most:
        raise Invalid("lock_file_malformed", f"{where} is not a list of at most {most:,} entries.", _FIX, details={"field": where})
    return value


class _Dumper(yaml.SafeDumper):
    """No aliases, long texts as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None))


def yaml_text(value: Any) -> bytes:
    """YAML in the given order, UTF-8, one line feed at the end."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000).encode()
