"""What every command does alike: refuse, read a file somebody named, write one.

A command of ours derives from `Refusing` and simply raises. What was refused is then said twice: as the JSON envelope on
standard output, for scripts, and as one sentence on standard error, for people; and the exit code is `REFUSED`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DatabaseError, InterfaceError

from controlplane.kernel.errors import Invalid, NotFound, WorkflowError

REFUSED = 2
STANDARD_INPUT = "-"


class Refusing(BaseCommand):
    """A command whose refusals are JSON on standard output, a sentence on standard error, and exit code 2."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except WorkflowError as error:
            refusal = error
        except (DatabaseError, InterfaceError) as error:
            reason = {"reason": str(error)[:200]}
            refusal = Invalid("no_database", "The database cannot be used.", "Check DATABASE_URL, and run manage.py migrate first.", details=reason)
        self.stdout.write(json.dumps(refusal.envelope(), indent=2))
        self.stderr.write(plain(f"{refusal.code}: {refusal.message} {refusal.suggestion}".rstrip()))
        sys.exit(REFUSED)


def plain(text: str) -> str:
    """`text` without line breaks and other characters that steer a terminal: it may quote what strangers wrote."""
    return "".join(char if char.isprintable() else " " for char in text)


def read_file(name: str, *, limit: int) -> bytes:
    """The first `limit` bytes of the file, `-` for standard input; `NotFound` when it cannot be read."""
    try:
        with sys.stdin.buffer if name == STANDARD_INPUT else Path(name).open("rb") as stream:
            return stream.read(limit)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotFound("file_unreadable", f"Cannot read {name[:200]}: {reason}.", "Check the path.") from error


def write_file(name: str, data: bytes) -> None:
    """Write the whole file; `NotFound` when that is not possible."""
    try:
        Path(name).write_bytes(data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotFound("file_not_written", f"Cannot write {name[:200]}: {reason}.", "Check the path.") from error
