"""The digest of the base image, asked of a Docker client and of registries that are open, ask for a token, or misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from builds.locking import base_image, image_registry
from controlplane.kernel.errors import Invalid

DIGEST = "sha256:" + "d" * 64


class Registry(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        path, port = urlsplit(self.path).path, self.server.server_address[1]
        assert "oci.image.index" in self.headers["Accept"]
        if "/private/" in path and self.headers.get("Authorization") != "Bearer yes":
            realm = f"http://127.0.0.1:{port}/token" if "elsewhere" not in path else "http://169.254.169.254/token"
            self.send(401, **{"WWW-Authenticate": f'Bearer realm="{realm}",service="here"'})
        elif path.endswith("/manifests/1.0"):
            self.send(200, **{"Docker-Content-Digest": DIGEST if "garbled" not in path else "sha256:xyz"})
        else:
            self.send(404)

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        self.send(200, json.dumps({"token": "yes" if asked["scope"] == ["repository:private/base:pull"] else "no"}).encode())

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def no_docker(settings: Any) -> None:
    settings.BUILD = {**settings.BUILD, "DOCKER": "/nowhere/docker"}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("open/base:1.0", DIGEST),
        ("private/base:1.0", DIGEST),
        ("private/elsewhere:1.0", ""),
        ("private/other:1.0", ""),
        ("garbled/base:1.0", ""),
        ("open/base:2.0", ""),
        ("open/base", ""),
    ],
)
def test_a_registry_tells_what_a_tag_means(registry: str, path: str, found: str) -> None:
    assert image_registry.digest(f"{registry}/{path}") == found


def test_a_registry_that_is_down_leaves_it_open(no_docker: None) -> None:
    image, findings = base_image.pinned("127.0.0.1:9/base:1.0")
    assert image == {"reference": "127.0.0.1:9/base:1.0", "digest": ""} and [one["code"] for one in findings] == ["base_image_unpinned"]


def test_a_digest_is_asked_once_and_then_kept(registry: str, no_docker: None) -> None:
    image, findings = base_image.pinned(f"{registry}/open/base:1.0")
    assert image == {"reference": f"{registry}/open/base:1.0", "digest": DIGEST} and findings == []
    kept = image | {"digest": "sha256:" + "e" * 64}
    assert base_image.pinned(f"{registry}/open/base:1.0", before=kept)[0] == kept
    assert base_image.pinned(f"debian:bookworm@{DIGEST}", before=kept)[0] == {"reference": "debian:bookworm", "digest": DIGEST}


@pytest.mark.parametrize(
    ("inspect", "found"),
    [
        ([{"Id": "sha256:" + "1" * 64, "RepoDigests": [f"debian@{DIGEST}"]}], DIGEST),
        ([{"Id": "sha256:" + "1" * 64, "RepoDigests": []}], "sha256:" + "1" * 64),
        ([], ""),
        ("garbled", ""),
    ],
)
def test_the_engine_here_is_asked_first(tmp_path: Path, settings: Any, inspect: Any, found: str) -> None:
    client = tmp_path / "docker"
    client.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(inspect) if inspect != 'garbled' else '<html>'}\nEND\n")
    client.chmod(0o755)
    settings.BUILD = {**settings.BUILD, "DOCKER": str(client)}
    assert base_image.pinned("debian:bookworm", offline=True)[0]["digest"] == found


@pytest.mark.parametrize("reference", ["", "UPPER:1", "a b", "debian@sha256:short", "--privileged", "debian;rm"])
def test_what_is_no_image_is_refused(reference: str) -> None:
    with pytest.raises(Invalid) as refused:
        base_image.pinned(reference, offline=True)
    assert refused.value.code == "base_image_malformed"


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("python", ("registry-1.docker.io", "library/python", "latest")),
        ("python:3.11-slim-bookworm", ("registry-1.docker.io", "library/python", "3.11-slim-bookworm")),
        ("people/base", ("registry-1.docker.io", "people/base", "latest")),
        ("docker.io/people/base:1", ("registry-1.docker.io", "people/base", "1")),
        ("ghcr.io/people/base:1", ("ghcr.io", "people/base", "1")),
        ("localhost:5000/base:1", ("localhost:5000", "base", "1")),
        ("127.0.0.1:5000/people/base", ("127.0.0.1:5000", "people/base", "latest")),
    ],
)
def test_references_are_read_as_docker_reads_them(reference: str, parts: tuple[str, str, str]) -> None:
    assert image_registry.split(reference) == parts
