"""Put models where the engine looks for them: a link under its models folder, which costs no room and follows the store.

ComfyUI keeps its lists of files until a folder's time changes, and asks for the time of every folder it has listed: so a folder
that got a link is given a time of its own (two changes within one tick of the disk's clock would look like none), and no folder is
ever removed (its list would then fail instead of being made anew).
"""

from __future__ import annotations

import os
import re
import secrets
import time
from pathlib import Path

from fleet.agent.store.failures import Refused, StoreError
from fleet.agent.store.wanted import Wanted

_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.new")


def place(models: Path, one: Wanted, file: Path, *, store: Path) -> bool:
    """Link `file` as models/directory/filename; whether anything changed. Raises StoreError when somebody else's file has the name.

    `one` was parsed by `wanted.parse`, so its names are plain; links among the folders may not lead out of the engine's folder.
    """
    link = models / one.directory / one.filename
    root = models / one.folder
    try:
        _folders(link.parent)
        # The first folder may be a link of the operator's (a mount); what is below it must stay below it.
        if not link.parent.resolve(strict=True).is_relative_to(root.resolve(strict=True)):
            raise Refused(f"{one.name} would leave the engine's folder.", "Remove the link among its folders.", model=one.name)
        if link.is_symlink():
            if link.readlink() == file:
                return False
            if not _is_ours(link, store):
                raise _taken(one)
        elif link.exists():
            raise _taken(one)
        fresh = link.with_name(f".{secrets.token_hex(8)}.new")
        fresh.symlink_to(file)
        fresh.replace(link)
        _touch(link.parent)
    except OSError as error:
        raise StoreError(
            f"{one.name} cannot be put into the engine's models folder: {error.strerror or error}.",
            "Make COMFYPLANE_MODELS_DIR a directory the agent may write.",
            code="model_not_placed",
            model=one.name,
        ) from error
    return True


def is_link_of(link: Path, store: Path) -> bool:
    """Whether it is a link into the store."""
    return link.is_symlink() and _is_ours(link, store)


def remove(models: Path, one: Wanted, *, store: Path) -> None:
    """Take our link of this name away, if there is one."""
    link = models / one.directory / one.filename
    if is_link_of(link, store):
        link.unlink(missing_ok=True)
        _touch(link.parent)


def sweep(models: Path, *, store: Path) -> int:
    """Remove links to files that the store no longer has, and those a killed process left half made, so that the engine does not offer them. How many."""
    removed = 0
    for folder, _, files in os.walk(models):
        for name in files:
            link = Path(folder, name)
            if is_link_of(link, store) and (not link.exists() or _UNFINISHED.fullmatch(name)):
                link.unlink(missing_ok=True)
                _touch(link.parent)
                removed += 1
    return removed


def _folders(path: Path) -> None:
    """Make the folders that are missing; each one that gets a new entry gets a new time too."""
    if path.is_dir():
        return
    _folders(path.parent)
    path.mkdir(exist_ok=True)
    _touch(path.parent)


def _touch(folder: Path) -> None:
    now = time.time_ns()
    os.utime(folder, ns=(now, now))


def _is_ours(link: Path, store: Path) -> bool:
    return Path(os.path.normpath(link.parent / link.readlink())).is_relative_to(store)


def _taken(one: Wanted) -> StoreError:
    return StoreError(
        f"The engine's models folder already has a {one.name} that is not from the store.",
        "Move that file away, or give the agent a models folder of its own (COMFYPLANE_MODELS_DIR).",
        code="model_name_taken",
        model=one.name,
    )
