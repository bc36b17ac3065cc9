from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from controlplane.kernel import errors, outbound

FINE = [
    "https://hooks.example.com/x?y=1",
    "http://example.com:8080/",
    "https://93.184.216.34/",
    "https://[2606:2800:220:1:248:1893:25c8:1946]:8443/a",
    "https://bücher.example/",
    "HTTPS://EXAMPLE.COM",
]
REFUSED = [
    "",
    "example.com/hook",
    "//example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "javascript:alert(1)",
    "http://",
    "http:///path",
    "https://user:password@example.com/",
    "https://user@example.com/",
    "https://@example.com/",
    "https://example.com\\@evil.com/",
    "https://example.com/a b",
    "https://example.com/\r\nHost: x",
    "https://example.com:0/",
    "https://example.com:65536/",
    "https://example.com:x/",
    "https://example.com/" + "a" * 500,
    "http://[::1",
    "http://1.2.3.4.5/",
    # every spelling of loopback
    "http://localhost/",
    "http://LOCALHOST./",
    "http://app.localhost/",
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.0.0.1./",
    "http://0/",
    "http://0.0.0.0/",
    "http://[::]/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[2002:7f00:1::]/",
    # private, link-local, shared, reserved, multicast
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://3232235777/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://168.63.129.16/",
    "http://100.100.100.200/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    # names inside a network
    "http://redis:6379/",
    "http://metadata.google.internal/",
    "http://printer.local/",
]


@pytest.mark.parametrize("url", FINE)
def test_public_urls_pass(url: str) -> None:
    outbound.check_url(url)


@pytest.mark.parametrize("url", REFUSED)
def test_other_urls_are_refused_with_a_reason(url: str) -> None:
    with pytest.raises(errors.Invalid) as caught:
        outbound.check_url(url)
    assert caught.value.code == "webhook_url_refused" and caught.value.suggestion and "cannot be used: " in caught.value.message


@pytest.mark.parametrize(
    ("allow", "url", "fine"),
    [
        (["127.0.0.0/8"], "http://127.0.0.1:1/", True),
        (["127.0.0.0/8"], "http://2130706433:1/", True),
        (["127.0.0.0/8"], "http://[::ffff:127.0.0.1]:1/", True),
        (["127.0.0.0/8"], "http://[::1]:1/", True),
        (["127.0.0.0/8"], "http://localhost:1/", True),
        (["127.0.0.0/8"], "http://10.0.0.1/", False),
        (["10.0.0.0/8", "fd00::/8"], "http://10.9.9.9/", True),
        (["10.0.0.0/8", "fd00::/8"], "http://[fd00::1]/", True),
        (["10.0.0.0/8", "fd00::/8"], "http://[::1]/", False),
        (["10.0.0.0/8"], "http://169.254.169.254/", False),
    ],
)
def test_settings_may_allow_a_network(settings, allow: list[str], url: str, fine: bool) -> None:
    settings.WEBHOOK_ALLOW_NETWORKS = allow
    if fine:
        outbound.check_url(url)
    else:
        with pytest.raises(errors.Invalid):
            outbound.check_url(url)


def resolver(monkeypatch, *answers: list[str]) -> list[str]:
    """Answer look-ups in turn, the last answer for ever; gives the list of names looked up."""
    asked: list[str] = []

    def answer(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    monkeypatch.setattr(outbound, "resolve", answer)
    return asked


def connections(monkeypatch) -> list[tuple[str, int]]:
    """Remember where a connection would go, and let none through."""
    tried: list[tuple[str, int]] = []

    def connect(address, *args, **kwargs):
        tried.append(address[:2])
        raise ConnectionRefusedError("no")

    monkeypatch.setattr(socket, "create_connection", connect)
    return tried


def send(url: str, timeout_s: float = 5.0, **extra) -> outbound.Answer:
    return outbound.post(url, body=b'{"a":1}', headers={"content-type": "application/json"}, timeout_s=timeout_s, **extra)


@pytest.mark.parametrize("found", [["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], ["::1"], ["::ffff:10.0.0.1"], ["fe80::1%eth0"], ["169.254.169.254"]])
def test_a_name_with_any_private_address_is_not_connected_to(monkeypatch, found: list[str]) -> None:
    resolver(monkeypatch, found)
    tried = connections(monkeypatch)
    with pytest.raises(errors.Invalid, match="webhook_url_refused"):
        send("http://innocent.example/")
    assert tried == []


def test_a_name_that_answers_differently_the_second_time_gains_nothing(monkeypatch) -> None:
    asked = resolver(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
    tried = connections(monkeypatch)
    with pytest.raises(outbound.Failed):
        send("http://rebinding.example:81/")
    assert asked == ["rebinding.example"] and tried == [("93.184.216.34", 81)]


def test_the_next_address_is_tried_when_one_does_not_answer(monkeypatch) -> None:
    resolver(monkeypatch, ["2606:2800:220:1:248:1893:25c8:1946", "93.184.216.34"])
    tried = connections(monkeypatch)
    with pytest.raises(outbound.Failed):
        send("https://two.example/")
    assert tried == [("2606:2800:220:1:248:1893:25c8:1946", 443), ("93.184.216.34", 443)]


def test_a_name_that_does_not_resolve_is_a_failure_not_a_refusal(monkeypatch) -> None:
    def nothing(host: str, port: int) -> list[str]:
        raise socket.gaierror("unknown")

    monkeypatch.setattr(outbound, "resolve", nothing)
    with pytest.raises(outbound.Failed, match="does not resolve"):
        send("https://gone.example/")


@pytest.fixture
def receiver(settings) -> Iterator[Callable[..., str]]:
    """Start a real receiver on loopback that answers by the given function; gives its address."""
    settings.WEBHOOK_ALLOW_NETWORKS = ["127.0.0.0/8"]
    servers = []

    def start(answer: Callable[[BaseHTTPRequestHandler], None], wrap=None) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    answer(self)
                except OSError:
                    self.close_connection = True

            def log_message(self, *args) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda *args: None
        if wrap:
            server.socket = wrap(server.socket)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def plainly(status: int, body: bytes = b"", **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_the_receiver_gets_the_exact_bytes_and_its_own_name_as_host(receiver, monkeypatch) -> None:
    got = []

    def answer(handler) -> None:
        got.append((handler.path, handler.headers["Host"], handler.headers["Content-Type"], handler.body))
        plainly(202, b"thanks", Retry_After="7")(handler)

    port = receiver(answer).rpartition(":")[2]
    resolver(monkeypatch, ["127.0.0.1"])
    found = send(f"http://hooks.example:{port}/a%2Fb?x=1&y=%20#ignored")
    assert got == [("/a%2Fb?x=1&y=%20", f"hooks.example:{port}", "application/json", b'{"a":1}')]
    assert (found.status, found.body, found.address, found.headers["retry-after"]) == (202, b"thanks", "127.0.0.1", "7")


def test_redirects_are_answers_not_orders(receiver) -> None:
    hits = []
    inner = receiver(lambda handler: hits.append(1))
    outer = receiver(plainly(307, Location=f"http://{inner}/"))
    assert send(f"http://{outer}/").status == 307 and hits == []


def test_a_long_answer_is_cut(receiver) -> None:
    assert send(f"http://{receiver(plainly(200, b'x' * 500_000))}/", max_answer_bytes=1000).body == b"x" * 1000


def test_a_receiver_that_never_answers_is_given_up_on(receiver) -> None:
    with pytest.raises(outbound.Failed, match=r"no answer within 0.2 s"):
        send(f"http://{receiver(lambda handler: time.sleep(0.6))}/", timeout_s=0.2)


def test_a_receiver_that_answers_byte_by_byte_is_held_to_the_same_deadline(receiver) -> None:
    def drip(handler) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 50:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.05)

    started = time.monotonic()
    with pytest.raises(outbound.Failed, match="no answer within"):
        send(f"http://{receiver(drip)}/", timeout_s=0.4)
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize("nonsense", [b"", b"hello\r\n\r\n", b"HTTP/1.1 two hundred\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"])
def test_nonsense_for_an_answer_is_a_failure(receiver, nonsense: bytes) -> None:
    def answer(handler) -> None:
        handler.wfile.write(nonsense)
        handler.close_connection = True

    with pytest.raises(outbound.Failed):
        send(f"http://{receiver(answer)}/")


def test_a_port_nobody_listens_on_is_a_failure(settings) -> None:
    settings.WEBHOOK_ALLOW_NETWORKS = ["127.0.0.0/8"]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(outbound.Failed):
            send(f"http://127.0.0.1:{unused.getsockname()[1]}/")


def test_a_certificate_for_the_name_is_required_although_we_connect_to_the_address(receiver, monkeypatch, tmp_path: Path) -> None:
    import ssl
    import subprocess

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=hooks.example", "-addext", "subjectAltName=DNS:hooks.example"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    try:
        subprocess.run([*made, "-keyout", str(key), "-out", str(cert), *subject], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the openssl command to make a certificate")
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(cert, key)
    port = receiver(plainly(200), wrap=lambda s: served.wrap_socket(s, server_side=True)).rpartition(":")[2]
    resolver(monkeypatch, ["127.0.0.1"])
    with pytest.raises(outbound.Failed, match=r"CERTIFICATE_VERIFY_FAILED|certificate"):
        send(f"https://hooks.example:{port}/")
    trusting = ssl.create_default_context(cafile=str(cert))
    monkeypatch.setattr(outbound, "_tls", lambda: trusting)
    assert send(f"https://hooks.example:{port}/").status == 200
    with pytest.raises(outbound.Failed, match=r"[Mm]ismatch|match"):
        send(f"https://other.example:{port}/")
