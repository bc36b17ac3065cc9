"""The proxy passes everything on as it came, and says so when nobody stands behind it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from controlplane.stream import arriving
from controlplane.stream.proxy import Proxy
from tests.controlplane.stream_server import Echo, free_port, serving, web


def front(upstream: str) -> Starlette:
    proxy = Proxy(upstream)
    return Starlette(routes=[Route("/{path:path}", proxy.forward, methods=list(Proxy.METHODS))])


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[str, type[Echo]]]:
    with web() as (upstream, handler), serving(front(upstream), lifespan="off") as base:
        yield base, handler


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_method_path_query_headers_and_body_arrive_as_sent(behind: tuple[str, type[Echo]], method: str) -> None:
    base, _ = behind
    response = httpx.request(
        method, f"{base}/a%2Fb/%C3%A9?x=1&y=a%20b", content=b"\x00body\xff", headers={"X-Custom": "kept", "Cookie": "s=1", "Host": "shop.example"}
    )
    got = response.json()
    headers = dict(got["headers"])
    assert (got["method"], got["path"], got["body"]) == (method, "/a%2Fb/%C3%A9?x=1&y=a%20b", "\x00body\xff")
    assert (headers["x-custom"], headers["cookie"], headers["host"], headers["content-length"]) == ("kept", "s=1", "shop.example", "6")
    assert headers["x-forwarded-for"] == "127.0.0.1" and headers["x-forwarded-proto"] == "http"
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]


def test_nothing_is_added_that_the_caller_did_not_say(behind: tuple[str, type[Echo]]) -> None:
    """A caller that cannot read gzip must not be sent any because the proxy could."""
    base, _ = behind
    with httpx.Client() as client:
        request = httpx.Request("GET", f"{base}/plain", headers={"Host": "here"})
        names = {name for name, _ in client.send(request).json()["headers"]}
    assert names.isdisjoint({"accept", "accept-encoding", "user-agent"}), names


def test_who_asks_from_where_cannot_be_forged(behind: tuple[str, type[Echo]]) -> None:
    base, _ = behind
    forged = {"X-Forwarded-For": "10.1.1.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    got = httpx.get(f"{base}/", headers=forged).json()["headers"]
    assert [v for k, v in got if k == "x-forwarded-for"] == ["127.0.0.1"]
    assert [v for k, v in got if k == "x-forwarded-proto"] == ["http"]
    assert not [v for k, v in got if k == "x-forwarded-host"]


def test_a_body_of_unknown_length_passes(behind: tuple[str, type[Echo]]) -> None:
    base, _ = behind
    got = httpx.post(f"{base}/up", content=iter([b"one", b"two" * 50_000])).json()
    assert got["body"] == "one" + "two" * 50_000
    assert dict(got["headers"])["transfer-encoding"] == "chunked"


def test_an_answer_is_passed_on_while_it_is_made(behind: tuple[str, type[Echo]]) -> None:
    base, handler = behind
    with httpx.stream("GET", f"{base}/slow", timeout=10) as response:
        chunks = response.iter_raw()
        assert next(chunks) == b"first", "held back until the end"
        handler.gate.set()
        assert b"".join(chunks) == b"last"


@pytest.mark.parametrize("status", [204, 304, 404, 418, 500])
def test_every_status_is_passed_on(behind: tuple[str, type[Echo]], status: int) -> None:
    base, _ = behind
    assert httpx.get(f"{base}/", headers={"X-Answer": str(status)}).status_code == status


def test_head_keeps_the_length_and_has_no_body(behind: tuple[str, type[Echo]]) -> None:
    base, _ = behind
    response = httpx.head(f"{base}/x")
    assert int(response.headers["content-length"]) > 0 and response.content == b""


def test_a_web_process_that_is_not_there_yet_is_a_503_with_the_envelope() -> None:
    with serving(front(f"http://127.0.0.1:{free_port()}"), lifespan="off") as base:
        response = httpx.post(f"{base}/v1/workflows/paint/jobs", json={})
    said = response.json()["error"]
    assert (response.status_code, said["code"], response.headers["retry-after"]) == (503, "web_not_ready", "1")
    assert said["message"] and said["suggestion"]


def test_a_web_process_that_dies_mid_request_is_a_503_too(behind: tuple[str, type[Echo]]) -> None:
    base, _ = behind
    response = httpx.get(f"{base}/die")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "web_went_away")
    assert httpx.get(f"{base}/after").status_code == 200


def test_without_an_upstream_there_is_no_proxy() -> None:
    assert not Proxy("").enabled
    assert Proxy("unix:/run/web.sock").enabled


def test_a_body_that_dribbles_takes_no_thread_of_the_web_process(behind: tuple[str, type[Echo]], monkeypatch: pytest.MonkeyPatch) -> None:
    base, handler = behind
    began = []
    monkeypatch.setattr(handler, "do_POST", lambda self: began.append(self.path))
    monkeypatch.setattr(arriving, "GRACE_S", 0.3)
    host, port = base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as caller:
        caller.sendall(b"POST /ops/login/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\na")
        answer = caller.makefile("rb").read()  # to the end: it closes
    assert answer.startswith(b"HTTP/1.1 408") and b"body_too_slow" in answer
    assert not began


def test_a_caller_who_leaves_is_no_error() -> None:
    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/up", "query_string": b"", "scheme": "http", "headers": [(b"content-length", b"1000")]}
    answer = asyncio.run(Proxy("http://127.0.0.1:9").forward(Request({**scope, "server": ("127.0.0.1", 80)}, gone)))
    assert answer.status_code == 499


def test_date_and_server_are_said_once(behind: tuple[str, type[Echo]]) -> None:
    base, _ = behind
    headers = httpx.get(f"{base}/").headers
    assert [len(headers.get_list(name)) for name in ("date", "server")] == [1, 1]
