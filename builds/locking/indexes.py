"""Which package index the resolver asks, in this order: our settings, uv's own, pip's.

uv does not read pip's configuration, but a machine in a closed network often has only that; so it is read here.
"""

from __future__ import annotations

import configparser
import os
import sys
from pathlib import Path

from builds.locking.sources import Sources

_UV = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX", "UV_CONFIG_FILE")


def arguments(sources: Sources) -> list[str]:
    """The part of uv's command line that says where packages come from."""
    given = [part for link in sources.find_links for part in ("--find-links", link)]
    if sources.offline and not sources.index:
        return [*given, "--no-index", "--offline"]
    if sources.index:
        first, *more = sources.index.split()
        given += ["--default-index", first, *(part for one in more for part in ("--index", one))]
        # Several indexes are one shelf to pip and to whoever set them up; see _of_pip.
        return given + (["--index-strategy", "unsafe-best-match"] if more else []) + (["--offline"] if sources.offline else [])
    if given or any(os.environ.get(name) for name in _UV):
        return given
    return _of_pip()


def _of_pip() -> list[str]:
    read = {name: value.split() for name in ("index-url", "extra-index-url", "find-links") if (value := _pip_value(name))}
    given = [part for link in read.get("find-links", []) for part in ("--find-links", link)]
    if index := read.get("index-url"):
        given += ["--default-index", index[0]]
    if extra := read.get("extra-index-url"):
        # pip takes the best version of all its indexes; with uv's rule (the first index that knows the name) the
        # same configuration would resolve to other versions.
        given += [*(part for one in extra for part in ("--index", one)), "--index-strategy", "unsafe-best-match"]
    return given


def _pip_value(name: str) -> str:
    from_environment = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if from_environment:
        return from_environment
    found = ""
    for path in _pip_files():
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        for section in ("global", "install"):
            found = parser.get(section, name, fallback=found)
    return found


def _pip_files() -> list[Path]:
    """Later ones win, as with pip."""
    if os.environ.get("PIP_CONFIG_FILE") == os.devnull:
        return []
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", config / "pip" / "pip.conf", Path(sys.prefix) / "pip.conf"]
    return [*files, *([Path(os.environ["PIP_CONFIG_FILE"])] if os.environ.get("PIP_CONFIG_FILE") else [])]
