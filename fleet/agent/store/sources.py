"""Where a model may come from: http(s)://, s3://bucket/key, hf://org/repo@revision/path, file:///path or a plain path.

Each becomes something to read: a local file, or a function that gives a fresh target for a request (a presigned address
does not last for ever). What may be read is asked here, before anything is.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from fleet.agent.store import credentials
from fleet.agent.store.failures import Gone, Misconfigured, Refused
from fleet.agent.store.reach import Reach
from fleet.agent.store.settings import StoreSettings
from fleet.agent.store.wire import Target

SIGNED_FOR_S = 6 * 3600


@dataclass(frozen=True)
class Source:
    """One place that has the file. `mark` tells sources apart across processes without giving their address away."""

    shown: str
    mark: str
    path: Path | None = None
    target: Callable[[], Target] | None = None


class Sources:
    """Turns addresses into sources under the rules of the settings."""

    def __init__(self, settings: StoreSettings) -> None:
        also = [u for u in (settings.hf_endpoint, settings.s3_endpoint, *settings.mirrors) if u.startswith(("http://", "https://"))]
        self.reach = Reach(settings.hosts, also)
        self._settings = settings
        self._own_buckets = {urlsplit(m).netloc for m in settings.mirrors if m.startswith("s3://")}
        self._roots = (*settings.local_roots, *(Path(unquote(urlsplit(m).path)).resolve() for m in settings.mirrors if m.startswith("file://")))

    def mirrors_of(self, sha256: str) -> list[str]:
        """Where the operator's mirrors would have the file."""
        return [f"{mirror}/sha256/{sha256[:2]}/{sha256}" for mirror in self._settings.mirrors]

    def of(self, url: str) -> Source:
        """The source behind an address. Raises Refused, Gone or Misconfigured."""
        secrets = credentials.load(self._settings.secrets_file)
        mark = hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:16]
        scheme = url.partition("://")[0].lower() if "://" in url else ""
        if scheme in ("", "file"):
            return self._local(url, mark)
        if scheme == "s3":
            return self._s3(url, mark, secrets)
        secret = secrets.of(url)
        if scheme == "hf":
            url = hub_address(url, self._settings.hf_endpoint)
            secret = secret or secrets.of(url)
        place = self.reach.check(url)
        return Source(place.shown, mark, target=lambda: _target(url, secret))

    def _local(self, url: str, mark: str) -> Source:
        if url.startswith("file://"):
            parts = urlsplit(url)
            if parts.netloc not in ("", "localhost"):
                raise Refused("A file:// address names no host.", "Write file:///path.")
            text = unquote(parts.path)
        else:
            text = url
        if not text.startswith("/") or "\x00" in text:
            raise Refused(f"{text[:200]!r} is no address that models are fetched from.", "Use https://, s3://, hf:// or file:///path.")
        try:
            path = Path(text).resolve(strict=False)
            allowed = any(path.is_relative_to(root) for root in self._roots)
            if not allowed:  # said before looking, so that nobody can ask which files exist
                raise Refused(f"{text[:200]} is not under an allowed directory.", "Add its directory to COMFYPLANE_STORE_LOCAL_ROOTS.")
            mode = path.stat().st_mode
        except OSError as error:
            raise Gone(f"{text[:200]} cannot be read: {error.strerror or error}.") from None
        if not stat.S_ISREG(mode):
            raise Refused(f"{text[:200]} is no regular file.")
        return Source(text[:300], mark, path=path)

    def _s3(self, url: str, mark: str, secrets: credentials.Secrets) -> Source:
        parts = urlsplit(url)
        bucket, key = parts.netloc, unquote(parts.path.lstrip("/"))
        if not bucket or not key or "@" in bucket:
            raise Refused(f"{url[:200]} names no bucket and key.", "Write s3://bucket/key.")
        secret = secrets.of(f"s3://{bucket}/{key}")
        if not (self.reach.bucket_allowed(bucket) or bucket in self._own_buckets or (secret is not None and secret.kind == "s3")):
            raise Refused(f"The bucket {bucket} is not among those that models may come from.", f"Add s3://{bucket} to COMFYPLANE_STORE_HOSTS.")
        values = dict(secret.values) if secret is not None and secret.kind == "s3" else {}
        client = _s3_client(values, self._settings)

        def target() -> Target:
            try:
                return Target(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=SIGNED_FOR_S))
            except Exception as error:  # botocore's own hierarchy, which is not imported here
                raise Misconfigured(
                    f"S3 cannot be asked for {bucket}: {type(error).__name__}.", "Give its keys in the file named by COMFYPLANE_STORE_SECRETS."
                ) from None

        endpoint = values.get("endpoint") or self._settings.s3_endpoint
        if endpoint or not self.reach.allows_anyone:
            # An endpoint or bucket the operator named is reachable wherever it is, and under the bucket's own host name too.
            self.reach.trust(client.meta.endpoint_url, bucket)
        return Source(f"s3://{bucket}/{key}"[:300], mark, target=target)


def hub_address(url: str, endpoint: str) -> str:
    """The resolve address of hf://org/repo@revision/path (revision main when left out). Raises Refused. Pure."""
    parts = [part for part in url.partition("://")[2].split("/") if part]
    if len(parts) < 3 or any(part in (".", "..") for part in parts):
        raise Refused(f"{url[:200]} names no file of a repository.", "Write hf://org/repo@revision/path/to/file.")
    repo, _, revision = parts[1].partition("@")
    path = "/".join(quote(unquote(part)) for part in parts[2:])
    return f"{endpoint}/{quote(parts[0])}/{quote(repo)}/resolve/{quote(unquote(revision) or 'main', safe='')}/{path}"


def _target(url: str, secret: credentials.Secret | None) -> Target:
    if secret is None:
        return Target(url)
    if extra := secret.query():
        parts = urlsplit(url)
        query = urlencode([*((k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if k not in extra), *extra.items()])
        return Target(parts._replace(query=query).geturl())
    return Target(url, secret.headers())


def _s3_client(values: dict[str, str], settings: StoreSettings) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise Misconfigured("Sources on s3:// need the package boto3, which is not installed here.", "Install boto3 beside the agent.") from None
    endpoint = values.get("endpoint") or settings.s3_endpoint or None
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=values.get("region") or settings.s3_region or "us-east-1",
            aws_access_key_id=values.get("access_key_id"),
            aws_secret_access_key=values.get("secret_access_key"),
            aws_session_token=values.get("session_token"),
            config=Config(signature_version="s3v4", s3={"addressing_style": "path" if endpoint else "auto"}),
        )
    except ValueError as error:
        raise Misconfigured(f"The S3 endpoint is not usable: {error}.") from None
