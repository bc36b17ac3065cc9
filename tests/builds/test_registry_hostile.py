"""A registry of packs, and what it names, that means us harm: names that change their address, redirects inside, cut archives."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from builds.images import context
from builds.locking import registry
from builds.locking.sources import Sources
from controlplane.kernel import fetching
from controlplane.kernel.errors import Invalid, NotFound, Unavailable, WorkflowError


def packed() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("__init__.py", "NODE_CLASS_MAPPINGS = {}")
    return made.getvalue()


ZIP = packed()


class Handler(BaseHTTPRequestHandler):
    leads_to = ""
    asked: list[str] = []

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/inside")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        own = f"http://127.0.0.1:{self.server.server_address[1]}"
        body = ZIP if self.path.startswith("/file") else json.dumps({"downloadUrl": type(self).leads_to.replace("OWN", own), "version": "1.0.0"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Handler.asked = []
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()
    thread.join()


def test_a_name_that_turns_inward_between_check_and_connection_is_not_followed(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = int(server.rpartition(":")[2])
    Handler.leads_to = f"https://rebinding.example.com:{port}/file.zip"
    given = iter(["93.184.216.34"])
    real = socket.getaddrinfo

    def answer(host: Any, *args: Any, **kwargs: Any) -> Any:
        if str(host).strip("b'") == "rebinding.example.com":
            return real(next(given, "127.0.0.1"), *args, **kwargs)
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with pytest.raises(WorkflowError) as refused:
        registry.archive("pack", "1.0.0", sources=Sources(cache=tmp_path, registry=server, timeout_s=5.0))
    assert "private" in refused.value.message
    assert not [path for path in Handler.asked if path.startswith("/file")]


def test_a_build_follows_no_redirect_of_a_registry_into_the_house(server: str, tmp_path: Path) -> None:
    Handler.leads_to = "OWN/moved"
    pack = {"key": "cnr:pack", "registry_id": "pack", "version": "1.0.0", "sha256": "0" * 64}
    with pytest.raises(Unavailable) as refused:
        list(context._pack(pack, Sources(cache=tmp_path, registry=server, timeout_s=5.0), []))
    assert refused.value.code == "archive_unreachable"
    assert "allowed" in refused.value.details["reason"] or "cannot be used" in refused.value.details["reason"]


def test_a_build_takes_the_archive_its_lock_was_made_with(server: str, tmp_path: Path) -> None:
    Handler.leads_to = "OWN/file.zip"
    online = Sources(cache=tmp_path, registry=server, timeout_s=5.0)
    locked = registry.archive("pack", "1.0.0", sources=online)
    pack = {"key": "cnr:pack", "registry_id": "pack", "version": "1.0.0", "sha256": locked.sha256}
    files = list(context._pack(pack, Sources(cache=tmp_path, offline=True), []))
    assert [file.path for file in files] == ["__init__.py"]


def test_an_archive_that_was_cut_in_the_cache_is_fetched_again(server: str, tmp_path: Path) -> None:
    Handler.leads_to = "OWN/file.zip"
    sources = Sources(cache=tmp_path, registry=server, timeout_s=5.0)
    first = registry.archive("pack", "1.0.0", sources=sources)
    first.path.write_bytes(ZIP[:20])
    again = registry.archive("pack", "1.0.0", sources=sources)
    assert hashlib.sha256(again.path.read_bytes()).hexdigest() == again.sha256 == hashlib.sha256(ZIP).hexdigest()


def test_a_signed_address_of_a_thousand_characters_is_fetched(server: str, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_NETWORKS = ["127.0.0.1/32"]
    assert fetching.get(f"{server}/file?signature={'a' * 1_500}", max_bytes=10_000).body == ZIP


def test_only_the_schemes_that_were_allowed_are_spoken(server: str, settings: Any) -> None:
    settings.WEBHOOK_ALLOW_NETWORKS = ["127.0.0.1/32"]
    with pytest.raises(Invalid, match="address_refused"):
        fetching.get(f"{server}/file", max_bytes=10_000, schemes=("https",))


def test_a_redirect_to_what_is_no_address_is_told_as_such(server: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WEBHOOK_ALLOW_NETWORKS = ["127.0.0.1/32"]
    moved = fetching.Fetched(302, {"location": "http://["}, b"", server)
    monkeypatch.setattr(fetching, "_once", lambda url, **_: moved)
    with pytest.raises(NotFound, match="address_unreachable"):
        fetching.get(server, max_bytes=100)
