"""Run git and uv within limits: a deadline, a bound on what they say, and nothing of ours in their environment."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# What a child may know of this process: how to find programs and certificates, proxies, and its own settings.
_PASSED = re.compile(
    r"(PATH|HOME|USER|LANG|LC_ALL|TMPDIR|XDG_\w+|SSL_CERT_\w+|CURL_CA_BUNDLE|REQUESTS_CA_BUNDLE|GIT_SSL_\w+|UV_\w+|(https?|no|all)_proxy)", re.I
)
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
MAX_OUTPUT = 32_000_000
MAX_FILE = 4_000_000_000


class TooSlow(Exception):
    """The program was ended at its deadline."""


class TooMuch(Exception):
    """The program wrote more than its bound and was ended."""


@dataclass(frozen=True)
class Said:
    """Exit code, standard output, and standard error as text without credentials, cut to 20,000 characters."""

    code: int
    out: bytes
    err: str


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    max_output: int = MAX_OUTPUT,
    max_file: int = MAX_FILE,
) -> Said:
    """Run `argv` (no shell) and wait. Raises TooSlow, TooMuch, or FileNotFoundError when there is no such program.

    No file that it writes, its output included, grows beyond `max_file` bytes: the system ends it there.

    What it writes goes to files, so that no pipe can fill and a child it left behind cannot hold us.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(
            list(argv), stdin=given, stdout=out, stderr=err, cwd=cwd, env=environment() | dict(env or {}), start_new_session=True, close_fds=True
        )
        with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):  # gone already, or no Linux
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (max_file, max_file))
        try:
            code = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise TooSlow(f"{Path(argv[0]).name} did not end within {timeout_s:g} s") from None
        finally:
            # Children it started are of its process group and go with it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if out.tell() > max_output or out.seek(0, os.SEEK_END) > max_output:
            raise TooMuch(f"{Path(argv[0]).name} wrote more than {max_output:,} bytes")
        out.seek(0)
        err.seek(0)
        return Said(code, out.read(max_output), redacted(err.read(200_000).decode("utf-8", "replace"))[:20_000])


def environment() -> dict[str, str]:
    """The part of our environment that children get."""
    return {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}


def redacted(text: str) -> str:
    """`text` without user names and passwords in addresses."""
    return _CREDENTIALS.sub("", text)
