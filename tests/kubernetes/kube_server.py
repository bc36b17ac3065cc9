"""A small API server on loopback: stores objects, checks every body, gives watches, conflicts, expiry, and the faults a test asks for.

It decides nothing about pods: `kube_controllers` plays those who do. Bodies are checked by Kubernetes' published schemas, and by the
rules of the real server that clients trip over (selectors, immutability, resourceVersion, defaults).
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import kube_schemas

Json = dict[str, Any]
TOKEN, ADMIN = "token-of-the-controller", "token-of-the-administrator"

KINDS = {
    ("", "v1", "pods"): "Pod",
    ("", "v1", "secrets"): "Secret",
    ("", "v1", "nodes"): "Node",
    ("apps", "v1", "deployments"): "Deployment",
    ("policy", "v1", "poddisruptionbudgets"): "PodDisruptionBudget",
}
_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))(?:/namespaces/(?P<ns>[^/]+))?/(?P<what>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?$"
)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


class Refusal(Exception):
    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


@dataclass
class Fault:
    """An answer given instead of the real one."""

    matches: Callable[[str, str], bool]
    code: int
    times: int
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "told to fail"


@dataclass
class Address:
    """What a request is about."""

    group: str
    version: str
    namespace: str
    what: str
    name: str
    sub: str

    @property
    def resource(self) -> str:
        return self.what + (f"/{self.sub}" if self.sub else "")


class Server:
    """The objects, and an HTTP server over them. `changed` is called after each write of the controller, before it is answered."""

    def __init__(self, *, minor: int = 31) -> None:
        self.minor = minor
        self.lock = threading.RLock()
        self.told = threading.Condition(self.lock)
        self.objects: dict[tuple[str, str, str], dict[str, Json]] = {}
        self.events: list[tuple[int, str, tuple[str, str, str], Json]] = []
        self.version = 1000
        self.oldest = 0
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str, str, str]] = []
        """Every request of the controller's token: verb, group, resource, namespace."""
        self.paths: list[tuple[str, str]] = []
        self.refused: list[str] = []
        """What the schemas refused."""
        self.allowed: Callable[[str, str, str, str], bool] = lambda verb, group, resource, namespace: True
        self.changed: Callable[[], None] = lambda: None
        self.log_of: dict[str, str] = {}
        self.slow_s = 0.0
        self._http: ThreadingHTTPServer | None = None
        self.port = 0
        self.up()

    # Up and down

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        if self._http is None:
            self._http = _Http(("127.0.0.1", self.port), _handler(self))
            self.port = self._http.server_address[1]
            threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def down(self) -> None:
        if self._http is not None:
            http, self._http = self._http, None
            http.shutdown()
            http.server_close()
            http.drop()  # open watches, kept connections

    def fail(
        self, code: int, *, times: int = 1, path: str = "", method: str = "", headers: dict[str, str] | None = None, message: str = "told to fail"
    ) -> None:
        matches = lambda m, p: (not method or m == method) and path in p  # noqa: E731
        self.faults.append(Fault(matches, code, times, headers or {}, message))

    def expire(self) -> None:
        """Forget everything that a watch could go on from, and end the watches there are."""
        with self.told:
            self.version += 1
            self.oldest = self.version
            self.events.clear()
            self.told.notify_all()

    # Objects

    def bucket(self, group: str, what: str, namespace: str) -> dict[str, Json]:
        return self.objects.setdefault((group, what, "" if what == "nodes" else namespace), {})

    def put(self, group: str, what: str, namespace: str, item: Json, *, kind: str = "MODIFIED") -> Json:
        """Store as a new version."""
        with self.told:
            self.version += 1
            item["metadata"]["resourceVersion"] = str(self.version)
            self.bucket(group, what, namespace)[item["metadata"]["name"]] = item
            self.events.append((self.version, kind, (group, what, namespace), copy.deepcopy(item)))
            self.told.notify_all()
        return item

    def remove(self, group: str, what: str, namespace: str, name: str) -> Json | None:
        with self.told:
            item = self.bucket(group, what, namespace).pop(name, None)
            if item is not None:
                self.version += 1
                gone = copy.deepcopy(item)
                gone["metadata"]["resourceVersion"] = str(self.version)
                self.events.append((self.version, "DELETED", (group, what, namespace), gone))
                self.told.notify_all()
            return item

    def bookmark(self) -> None:
        with self.told:
            self.version += 1
            self.told.notify_all()

    # Requests

    def handle(self, method: str, path: str, query: dict[str, str], body: Any, content: str) -> tuple[int, Any]:
        if path == "/version":
            return 200, {"major": "1", "minor": str(self.minor), "gitVersion": f"v1.{self.minor}.0"}
        at = self.address(path)
        with self.lock:
            if method == "GET" and not at.name:
                return 200, self._list(at, query)
            if method == "GET":
                return 200, self._get(at)
            if method == "POST":
                return 201, self._create(at, body)
            if method == "PUT":
                return 200, self._replace(at, body)
            if method == "PATCH":
                return 200, self._patch(at, body, content)
            if method == "DELETE":
                return 200, self._delete(at, body or {})
        raise Refusal(405, "MethodNotAllowed", method)

    def address(self, path: str) -> Address:
        m = _PATH.match(path)
        if m is None:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        group = (m["group"] or "").partition(".k8s.io")[0]
        at = Address(group, m["core"] or m["version"], m["ns"] or "", m["what"], unquote(m["name"] or ""), m["sub"] or "")
        known = (at.group, at.version, at.what)
        if known not in KINDS or (at.group == "policy" and self.minor < 21):
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        return at

    def _list(self, at: Address, query: dict[str, str]) -> Json:
        labels = dict(part.split("=", 1) for part in query.get("labelSelector", "").split(",") if part)
        names = sorted(n for n, o in self.bucket(at.group, at.what, at.namespace).items() if fits(o, labels))
        limit, start = int(query.get("limit") or 0), 0
        version = str(self.version)
        if token := query.get("continue"):
            start, version = int(token.split(":")[0]), token.split(":")[1]
            if int(version) < self.oldest:
                raise Refusal(410, "Expired", "The provided continue parameter is too old to display a consistent list result.")
        page = names[start : start + limit] if limit else names[start:]
        meta = {"resourceVersion": version}
        if limit and start + limit < len(names):
            meta["continue"] = f"{start + limit}:{version}"
        items = [copy.deepcopy(self.bucket(at.group, at.what, at.namespace)[n]) for n in page]
        return {"kind": f"{KINDS[(at.group, at.version, at.what)]}List", "apiVersion": at.version, "metadata": meta, "items": items}

    def _get(self, at: Address) -> Any:
        if at.sub == "log":
            self._held(at)
            return self.log_of.get(at.name, "")
        return copy.deepcopy(self._held(at))

    def _held(self, at: Address) -> Json:
        item = self.bucket(at.group, at.what, at.namespace).get(at.name)
        if item is None:
            raise Refusal(404, "NotFound", f'{at.what} "{at.name}" not found')
        return item

    def _create(self, at: Address, body: Json) -> Json:
        kind = KINDS[(at.group, at.version, at.what)]
        self._check(body, kind, at)
        name = body["metadata"].get("name", "")
        if name in self.bucket(at.group, at.what, at.namespace):
            raise Refusal(409, "AlreadyExists", f'{at.what} "{name}" already exists')
        item = defaulted(copy.deepcopy(body))
        item["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": stamp(), "generation": 1}
        if at.what != "nodes":
            item["metadata"]["namespace"] = at.namespace
        return copy.deepcopy(self.put(at.group, at.what, at.namespace, item, kind="ADDED"))

    def _replace(self, at: Address, body: Json) -> Json:
        if at.sub == "scale":
            return self._scale(at, body)
        kind = KINDS[(at.group, at.version, at.what)]
        self._check(body, kind, at)
        held = self._held(at)
        given = body["metadata"].get("resourceVersion")
        if at.what == "poddisruptionbudgets" and not given:
            raise Refusal(422, "Invalid", "metadata.resourceVersion: Invalid value: must be specified for an update")
        self._fresh(held, given)
        if kind == "Deployment" and body["spec"]["selector"] != held["spec"]["selector"]:
            raise Refusal(422, "Invalid", "spec.selector: Invalid value: field is immutable")
        item = defaulted(copy.deepcopy(body))
        if at.sub == "status":
            item = copy.deepcopy(held) | {"status": body.get("status", {})}
        else:
            item["status"] = copy.deepcopy(held.get("status", {}))
            same = item.get("spec") == held.get("spec")
            item["metadata"]["generation"] = held["metadata"].get("generation", 1) + (not same)
            if (
                same
                and item["metadata"].get("labels") == held["metadata"].get("labels")
                and item["metadata"].get("annotations") == held["metadata"].get("annotations")
            ):
                return copy.deepcopy(held)  # nothing differs: no new version, as the real server has it
        for name in ("uid", "creationTimestamp", "namespace"):
            if name in held["metadata"]:
                item["metadata"][name] = held["metadata"][name]
        return copy.deepcopy(self.put(at.group, at.what, at.namespace, item))

    def _scale(self, at: Address, body: Json) -> Json:
        self._valid(body, "Scale")
        held = self._held(at)
        self._fresh(held, body["metadata"].get("resourceVersion"))
        item = copy.deepcopy(held)
        item["spec"]["replicas"] = body["spec"].get("replicas", 0)
        item["metadata"]["generation"] += 1
        self.put(at.group, at.what, at.namespace, item)
        return {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": at.name, "namespace": at.namespace},
            "spec": {"replicas": item["spec"]["replicas"]},
        }

    def _patch(self, at: Address, body: Json, content: str) -> Json:
        if content != "application/merge-patch+json":
            raise Refusal(415, "UnsupportedMediaType", f"this server takes merge patches, not {content}")
        held = self._held(at)
        item = merged(copy.deepcopy(held), body)
        self._valid(item, KINDS[(at.group, at.version, at.what)])
        if item["metadata"]["name"] != at.name:
            raise Refusal(422, "Invalid", "metadata.name: field is immutable")
        if at.what == "pods" and not at.sub and item["spec"] != held["spec"]:
            raise Refusal(422, "Invalid", "spec: Forbidden: pod updates may not change fields")
        return copy.deepcopy(self.put(at.group, at.what, at.namespace, item))

    def _delete(self, at: Address, body: Json) -> Json:
        if body:
            self._valid(body, "DeleteOptions")
        held = self._held(at)
        expected = (body.get("preconditions") or {}).get("uid")
        if expected and expected != held["metadata"]["uid"]:
            raise Refusal(409, "Conflict", f"the UID in the precondition ({expected}) does not match the UID in record")
        if at.what == "pods":
            self.end_pod(at.namespace, at.name, body.get("gracePeriodSeconds"))
        else:
            self.remove(at.group, at.what, at.namespace, at.name)
        return {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def end_pod(self, namespace: str, name: str, grace_s: int | None = None) -> None:
        """Delete a pod as the real server does: at once when it is nowhere, else it is told and its kubelet ends it."""
        pod = self.bucket("", "pods", namespace).get(name)
        if pod is None:
            return
        grace = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace_s is None else grace_s
        if grace == 0 or not pod["spec"].get("nodeName"):
            self.remove("", "pods", namespace, name)
        elif "deletionTimestamp" not in pod["metadata"]:
            told = copy.deepcopy(pod)
            told["metadata"] |= {"deletionTimestamp": stamp(in_s=grace), "deletionGracePeriodSeconds": grace}
            self.put("", "pods", namespace, told)

    def _fresh(self, held: Json, given: str | None) -> None:
        if given and given != held["metadata"]["resourceVersion"]:
            raise Refusal(409, "Conflict", "the object has been modified; please apply your changes to the latest version and try again")

    def _valid(self, body: Any, kind: str) -> None:
        wrong = kube_schemas.refusals(body) if isinstance(body, dict) else ["not an object"]
        if isinstance(body, dict) and body.get("kind") != kind:
            wrong.append(f"kind {body.get('kind')} where {kind} belongs")
        if wrong:
            self.refused += wrong
            raise Refusal(422, "Invalid", "; ".join(wrong))

    def _check(self, body: Any, kind: str, at: Address) -> None:
        self._valid(body, kind)
        name = body["metadata"].get("name") or ""
        wrong: list[str] = []
        if not _NAME.fullmatch(name) or len(name) > 253:
            wrong.append(f"metadata.name: Invalid value: {name!r}")
        if at.name and at.name != name:
            wrong.append(f"the name of the object ({name}) does not match the name on the URL ({at.name})")
        if kind == "Deployment":
            wrong += _deployment_wrongs(body)
        if wrong:
            self.refused += wrong
            raise Refusal(422, "Invalid", "; ".join(wrong))

    # Watches

    def follow(self, at: Address, query: dict[str, str], send: Callable[[Json], None], gone: Callable[[], bool]) -> None:
        labels = dict(part.split("=", 1) for part in query.get("labelSelector", "").split(",") if part)
        since = int(query.get("resourceVersion") or self.version)
        until = time.monotonic() + float(query.get("timeoutSeconds") or 60)
        key = (at.group, at.what, at.namespace)
        bookmarks = query.get("allowWatchBookmarks") == "true"
        while not gone() and time.monotonic() < until:
            with self.told:
                if since < self.oldest:
                    break
                batch = [(v, kind, item) for v, kind, k, item in self.events if v > since and k == key]
                latest = self.version
                if not batch and latest <= since:
                    self.told.wait(0.2)
                    continue
            for _, kind, item in batch:
                if fits(item, labels):
                    send({"type": kind, "object": item})
            if bookmarks and latest > since:
                send({"type": "BOOKMARK", "object": {"kind": KINDS[(at.group, at.version, at.what)], "metadata": {"resourceVersion": str(latest)}}})
            since = latest
        if since < self.oldest:
            send(
                {
                    "type": "ERROR",
                    "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": f"too old resource version: {since} ({self.oldest})"},
                }
            )


def fits(item: Json, labels: dict[str, str]) -> bool:
    have = item["metadata"].get("labels") or {}
    return all(have.get(k) == v for k, v in labels.items())


def stamp(*, in_s: float = 0.0) -> str:
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() + in_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def defaulted(item: Json) -> Json:
    """What the real server fills in, as far as clients compare it."""
    if item["kind"] == "Secret":
        import base64

        for name, value in (item.pop("stringData", None) or {}).items():
            item.setdefault("data", {})[name] = base64.b64encode(value.encode()).decode()
    if item["kind"] == "Deployment":
        spec = item["spec"]
        spec.setdefault("replicas", 1)
        pod = spec["template"]["spec"]
        spec["template"]["metadata"].setdefault("creationTimestamp", None)
        for name, value in (("dnsPolicy", "ClusterFirst"), ("schedulerName", "default-scheduler"), ("terminationGracePeriodSeconds", 30)):
            pod.setdefault(name, value)
        for container in pod["containers"]:
            container.setdefault("terminationMessagePath", "/dev/termination-log")
            container.setdefault("resources", {})
            for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
                if probe in container:
                    container[probe].setdefault("successThreshold", 1)
                    container[probe].setdefault("timeoutSeconds", 1)
            for section in container["resources"].values():
                for key, amount in section.items():
                    section[key] = canonical(amount)
        for volume in pod.get("volumes") or ():
            if "sizeLimit" in volume.get("emptyDir", {}):
                volume["emptyDir"]["sizeLimit"] = canonical(volume["emptyDir"]["sizeLimit"])
    return item


def canonical(amount: str) -> str:
    """Quantities are given back in their shortest form: 1024Mi is 1Gi."""
    m = re.fullmatch(r"(\d+)(Ki|Mi|Gi)", str(amount))
    if m is None:
        return str(amount)
    number, unit = int(m[1]), m[2]
    for bigger in {"Ki": ("Mi", "Gi", "Ti"), "Mi": ("Gi", "Ti"), "Gi": ("Ti",)}[unit]:
        if number % 1024 or not number:
            break
        number, unit = number // 1024, bigger
    return f"{number}{unit}"


def _deployment_wrongs(body: Json) -> list[str]:
    spec, wrong = body["spec"], []
    labels = spec["template"]["metadata"].get("labels") or {}
    selector = (spec.get("selector") or {}).get("matchLabels") or {}
    if not selector or any(labels.get(k) != v for k, v in selector.items()):
        wrong.append("spec.template.metadata.labels: Invalid value: `selector` does not match template `labels`")
    for key, value in labels.items():
        if len(value) > 63 or not re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", value):
            wrong.append(f"labels.{key}: Invalid value: {value!r}")
    volumes = {v["name"] for v in spec["template"]["spec"].get("volumes") or ()}
    for container in spec["template"]["spec"]["containers"]:
        if not container.get("image"):
            wrong.append("containers.image: Required value")
        for mount in container.get("volumeMounts") or ():
            if mount["name"] not in volumes:
                wrong.append(f"volumeMounts.name: Not found: {mount['name']!r}")
        resources = container.get("resources") or {}
        for key, amount in (resources.get("limits") or {}).items():
            if "/" in key and (resources.get("requests") or {}).get(key, amount) != amount:
                wrong.append(f"requests.{key}: must be equal to its limit")
    if not any(v for v in (spec.get("strategy") or {}).get("rollingUpdate", {"x": 1}).values()):
        wrong.append("spec.strategy.rollingUpdate: may not be 0 when `maxSurge` is 0")
    return wrong


def template_hash(template: Json) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *args: Any) -> None:
        self.open: set[Any] = set()
        super().__init__(*args)

    def get_request(self) -> Any:
        pair = super().get_request()
        self.open.add(pair[0])
        return pair

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is what some tests are about."""

    def drop(self) -> None:
        import contextlib
        import socket

        for one in list(self.open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: Any) -> None:
            pass

        def _any(self) -> None:
            split = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(split.query).items()}
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if server.slow_s:
                time.sleep(server.slow_s)
            try:
                self._guard(split.path, query)
                body = json.loads(raw) if raw else None
                if query.get("watch"):
                    self._watch(server.address(split.path), query)
                    return
                code, answer = server.handle(self.command, split.path, query, body, self.headers.get("Content-Type", ""))
                if self.command != "GET" and self.headers.get("Authorization") == f"Bearer {TOKEN}":
                    server.changed()
                self._answer(code, answer)
            except Refusal as error:
                self._answer(
                    error.code,
                    {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": error.code, "reason": error.reason, "message": error.message},
                )

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any

        def _guard(self, path: str, query: dict[str, str]) -> None:
            who = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if who == ADMIN:
                return
            if who != TOKEN:
                raise Refusal(401, "Unauthorized", "Unauthorized")
            server.paths.append((self.command, self.path))
            for fault in server.faults:
                if fault.times and fault.matches(self.command, self.path):
                    fault.times -= 1
                    self._answer_headers = fault.headers
                    raise Refusal(fault.code, "Told", fault.message)
            if path == "/version":
                return
            at = server.address(path)
            verb = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(self.command) or (
                "watch" if query.get("watch") else "get" if at.name else "list"
            )
            server.seen.append((verb, at.group, at.resource, at.namespace))
            if not server.allowed(verb, at.group, at.resource, at.namespace):
                raise Refusal(
                    403, "Forbidden", f'{at.resource} is forbidden: User "controller" cannot {verb} resource "{at.resource}" in API group "{at.group}"'
                )

        def _answer(self, code: int, answer: Any) -> None:
            data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(code)
            for name, value in getattr(self, "_answer_headers", {}).items():
                self.send_header(name, value)
            self._answer_headers: dict[str, str] = {}
            self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _watch(self, at: Address, query: dict[str, str]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.flush()

            def send(event: Json) -> None:
                data = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()

            server.follow(at, query, send, lambda: server._http is None)
            self.wfile.write(b"0\r\n\r\n")

    return Handler


def role_rules(rules: Iterable[Json]) -> set[tuple[str, str, str]]:
    """(verb, group, resource) of a Role."""
    return {(v, g, r) for rule in rules for v in rule["verbs"] for g in rule["apiGroups"] for r in rule["resources"]}
