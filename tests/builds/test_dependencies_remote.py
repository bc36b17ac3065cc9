"""A model's header is read over HTTP ranges, so that a file of gigabytes is known after kilobytes."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import safetensors_samples as made
from django.core.management import call_command

from builds.models import KnownModel

pytestmark = pytest.mark.django_db
HEADER, ROOM = made.header(made.LORA_FLUX)
WHOLE = len(HEADER).to_bytes(8, "little") + HEADER + b"\0" * ROOM
served: list[int] = []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        if wanted is None or self.path == "/whole.safetensors":
            data, status, span = WHOLE, 200, ""
        else:
            first, last = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
            data, status, span = WHOLE[first : last + 1], 206, f"bytes {first}-{last}/{len(WHOLE)}"
        self.send_response(status)
        if span:
            self.send_header("Content-Range", span)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        served.append(len(data))
        with contextlib.suppress(OSError):  # whoever asked for eight bytes hangs up on more
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(settings: Any) -> Iterator[str]:
    settings.WEBHOOK_ALLOW_NETWORKS = ["127.0.0.1/32"]
    served.clear()
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()
    thread.join()


def test_only_the_header_is_fetched_and_its_facts_are_kept(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("inspect_model", f"{server}/ink.safetensors?x=1", "--keep", "--json")
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["kind"], said["family"], said["size_bytes"]) == ("ink.safetensors", "lora", "flux", len(WHOLE))
    assert sum(served) == 8 + len(HEADER) < len(WHOLE)
    row = KnownModel.objects.get()
    assert (row.directory, row.family, row.size_bytes, row.url) == ("loras", "flux", len(WHOLE), f"{server}/ink.safetensors?x=1")


def test_a_server_without_ranges_is_refused_before_the_weights_come(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call_command("inspect_model", f"{server}/whole.safetensors", "--json")
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "ranges_not_served"
