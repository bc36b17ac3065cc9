"""Addresses that people name are fetched under the guard: every hop is checked, size and kind of answer are bounded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from controlplane.kernel import fetching
from controlplane.kernel.errors import Invalid, NotFound, TooLarge


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        port = self.server.server_address[1]
        hops = {
            "/once": f"http://127.0.0.1:{port}/good",
            "/relative": "/good",
            "/for-ever": "/for-ever",
            "/inside": "http://169.254.169.254/latest/meta-data/",
            "/file": "file:///etc/passwd",
        }
        if self.path in hops:
            self.send_response(302)
            self.send_header("Location", hops[self.path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = b"x" * 5_000 if self.path == "/long" else b"good"
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(settings: Any) -> Iterator[str]:
    settings.WEBHOOK_ALLOW_NETWORKS = ["127.0.0.1/32"]
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.mark.parametrize("path", ["/good", "/once", "/relative"])
def test_an_answer_is_fetched_over_checked_hops(server: str, path: str) -> None:
    assert fetching.get(server + path, max_bytes=100).body == b"good"


@pytest.mark.parametrize("path", ["/inside", "/file"])
def test_a_hop_into_the_house_is_refused(server: str, path: str) -> None:
    with pytest.raises(Invalid, match="address_refused"):
        fetching.get(server + path, max_bytes=100)


@pytest.mark.parametrize("path", ["/none", "/for-ever"])
def test_what_answers_no_good_is_not_found(server: str, path: str) -> None:
    with pytest.raises(NotFound, match="address_unreachable"):
        fetching.get(server + path, max_bytes=100)


def test_an_answer_beyond_the_limit_is_refused(server: str) -> None:
    with pytest.raises(TooLarge):
        fetching.get(f"{server}/long", max_bytes=100)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/x", "http://[::1]/x", "http://10.0.0.1/", "ftp://example.com/x", "http://user:secret@example.com/", "http://intranet/x", "nonsense"],
)
def test_addresses_inside_and_odd_ones_are_refused_without_a_look_up(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        fetching.get(url, max_bytes=100)
    assert refused.value.code == "address_refused" and "secret" not in str(refused.value.envelope()).replace(url, "")
