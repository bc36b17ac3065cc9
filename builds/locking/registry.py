"""The registry of packs: from an id and a version to the archive that was published.

A published version never changes, so its archive is fetched once and kept by its hash. Addresses it answers with are
checked like any address from outside.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
import zipfile
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import getproxies

import httpx

from builds.locking import sources as places
from builds.locking.sources import Sources
from controlplane.kernel import fetching
from controlplane.kernel.errors import Invalid, NotFound, TooLarge, Unavailable

PUBLIC = "https://api.comfy.org"
OFF = "off"  # as PACK_REGISTRY: there is none
MAX_ARCHIVE = 300_000_000
MAX_ANSWER = 1_000_000
MAX_TEXT = 1_000_000
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
VERSION = re.compile(r"\d+(\.\d+){1,3}([-+.][0-9A-Za-z.-]{1,40})?")


@dataclass(frozen=True)
class Archive:
    """A published version: where its bytes lie here, and their hash."""

    path: Path
    sha256: str

    @property
    def written_at(self) -> datetime | None:
        """The newest date of a file inside. Of the bytes alone, so that no mirror of the registry changes a lock."""
        with self._open() as archive:
            newest = max((entry.date_time for entry in archive.infolist()), default=(1980, 1, 1, 0, 0, 0))
        try:
            return datetime(*newest, tzinfo=UTC) if newest[0] > 1980 else None
        except ValueError:
            return None

    def whole(self) -> bool:
        """Whether its bytes are here as they came: a machine that lost power may have kept fewer."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except OSError:
            return False

    def read(self, path: str) -> str | None:
        """A text file of at most a megabyte; None when there is none of that name."""
        with self._open() as archive:
            name = self._prefix(archive) + path
            if name not in archive.namelist():
                return None
            try:
                with archive.open(name) as member:
                    data = member.read(MAX_TEXT + 1)
            except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, OSError) as error:
                raise _damaged() from error
        if len(data) > MAX_TEXT:
            raise Invalid("file_too_large", f"{path} of the pack is larger than a megabyte.", "Use another version of the pack.")
        return data.decode("utf-8-sig", "replace")

    def names(self) -> list[str]:
        """What lies at the top."""
        with self._open() as archive:
            prefix = self._prefix(archive)
            return sorted({name.removeprefix(prefix).partition("/")[0] for name in archive.namelist() if name != prefix})

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(io.BytesIO(self.path.read_bytes()))
        except (zipfile.BadZipFile, OSError) as error:
            raise _damaged() from error

    @staticmethod
    def _prefix(archive: zipfile.ZipFile) -> str:
        """The single directory around everything, if there is one."""
        tops = {name.partition("/")[0] for name in archive.namelist()}
        return f"{next(iter(tops))}/" if len(tops) == 1 and all("/" in name for name in archive.namelist()) else ""


def archive(registry_id: str, version: str, *, sources: Sources, sha256: str = "") -> Archive:
    """The archive of a published version; with `sha256`, only those bytes.

    Raises Invalid `pack_id_refused`, `archive_changed`, `archive_damaged`; NotFound `pack_version_gone`; Unavailable `registry_unreachable`.
    """
    if not ID.fullmatch(registry_id) or not VERSION.fullmatch(version):
        raise Invalid(
            "pack_id_refused", f"{registry_id[:80]!r} {version[:40]!r} is no pack and version of the registry.", "Use an id and a version like 1.2.0."
        )
    kept = sources.cache / "archives" / f"{registry_id.lower()}-{version}.json"
    known = _known(kept)
    if known is None or not known.whole():
        if sources.offline or sources.registry == OFF:
            raise Unavailable("registry_unreachable", "Nothing may be fetched, and the pack is not here.", "Lock it where the registry can be reached.")
        known = _fetched(registry_id, version, kept, sources)
    if sha256 and known.sha256 != sha256:
        message = f"The registry's archive of {registry_id} {version} has other bytes than the lock says."
        raise Invalid(
            "archive_changed", message, "Do not use it. Ask the pack's author, or lock another version.", details={"wanted": sha256, "found": known.sha256}
        )
    return known


def _fetched(registry_id: str, version: str, kept: Path, sources: Sources) -> Archive:
    base = (sources.registry or PUBLIC).rstrip("/")
    answer = _get(f"{base}/nodes/{quote(registry_id)}/install?version={quote(version)}", sources, MAX_ANSWER, trusted=base)
    try:
        said: dict[str, Any] = json.loads(answer)
        url, answered = str(said["downloadUrl"]), str(said.get("version", version))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unavailable("registry_unreachable", "The registry answers in a way that is not understood.", "Try again later.") from error
    if answered != version:
        raise NotFound("pack_version_gone", f"The registry has no version {version} of {registry_id}; it offers {answered[:40]}.", "Choose a version it has.")
    data = _get(url, sources, MAX_ARCHIVE, trusted=base)
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise _damaged()
    sha256 = hashlib.sha256(data).hexdigest()
    path = kept.parent / f"{sha256}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, content in ((path, data), (kept, json.dumps({"sha256": sha256}).encode())):
        part = target.with_suffix(f".{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")
        part.write_bytes(content)
        part.replace(target)
    found = _known(kept)
    assert found is not None
    return found


def _known(kept: Path) -> Archive | None:
    try:
        sha256 = str(json.loads(kept.read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Archive(kept.parent / f"{sha256}.zip", sha256)


def _get(url: str, sources: Sources, limit: int, *, trusted: str) -> bytes:
    """What is behind `url`. Addresses of strangers are connected to where they were checked; a proxy checks for us where there is one."""
    ends = time.monotonic() + sources.timeout_s
    for _ in range(4):
        if not url.startswith(f"{trusted}/") or trusted == PUBLIC:
            places.check(url, sources)
            if not getproxies():
                return _guarded(url, sources, limit)
        try:
            with (
                httpx.Client(timeout=httpx.Timeout(min(30.0, sources.timeout_s), connect=5.0), follow_redirects=False) as client,
                client.stream("GET", url, headers={"User-Agent": "comfyplane"}) as response,
            ):
                if response.is_redirect:
                    url = urljoin(url, response.headers.get("location", ""))
                    continue
                if response.status_code in (404, 410):
                    raise _gone()
                if response.status_code != 200:
                    raise _silent(f"it answered {response.status_code}")
                data = bytearray()
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > limit:
                        raise _too_large(limit)
                    if time.monotonic() > ends:
                        raise _silent(f"it did not end within {sources.timeout_s:g} s")
                return bytes(data)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _silent(f"{type(error).__name__} at {urlsplit(url).hostname}") from error
    raise _silent("it redirects in circles")


def _guarded(url: str, sources: Sources, limit: int) -> bytes:
    try:
        return fetching.get(url, max_bytes=limit, timeout_s=sources.timeout_s, headers={"User-Agent": "comfyplane"}, schemes=("https",)).body
    except TooLarge as error:
        raise _too_large(limit) from error
    except NotFound as error:
        if error.details.get("status") in (404, 410):
            raise _gone() from error
        raise _silent(error.message) from error


def _too_large(limit: int) -> Invalid:
    return Invalid("archive_too_large", f"The pack's archive is larger than {limit:,} bytes.", "Use its repository.")


def _gone() -> NotFound:
    return NotFound("pack_version_gone", "The registry does not have this pack or version.", "Choose a version it has, or use its repository.")


def _silent(why: str) -> Unavailable:
    return Unavailable(
        "registry_unreachable", f"The registry of packs cannot be used: {why[:200]}.", "Try again later, or name the pack by repository and commit."
    )


def _damaged() -> Invalid:
    return Invalid("archive_damaged", "The pack's archive cannot be unpacked.", "Lock another version of the pack.")
