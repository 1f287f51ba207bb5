"""A small Hugging Face Hub on 127.0.0.1: the routes that huggingface_hub calls, and some faults.

Large files are redirected to another origin (``localhost``), as the real Hub sends them to a CDN.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".onnx")
_CHUNK = 2**20


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    authorization: str | None
    body: bytes = b""
    sent: int = 0
    at: float = field(default_factory=time.monotonic)


@dataclass
class HubServer:
    """What is served, what goes wrong, and what was asked."""

    repositories: dict[str, Path]
    branches: dict[str, dict[str, Path]] = field(default_factory=dict)  # beside main, by model
    gated: set[str] = field(default_factory=set)
    public: bool = False
    large_uploads: bool = True
    token: str | None = None  # the only one that is accepted
    status: int | None = None  # answer with it …
    failing: str = "/"  # … what starts so …
    failures: int | None = None  # … this many times
    headers: Mapping[str, str] = field(default_factory=dict)  # … with these
    single_use: bool = False  # an address of the CDN is good for one request
    fault: str | None = None
    commit: str | None = None  # what every listing says it is
    listed: Mapping[str, int] = field(default_factory=dict)  # further names in every listing
    delay: float = 0.0
    requests: list[Request] = field(default_factory=list)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    in_flight: int = 0
    most_in_flight: int = 0
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sent(self) -> int:
        return sum(request.sent for request in self.requests)

    def root(self, model: str, revision: str) -> Path | None:
        """The files at a branch or commit, or at the tag v1, which is where main is."""
        if revision in ("main", "v1", commit_of(model)):
            return self.repositories[model]
        branches = self.branches.get(model, {})
        commits = {commit_of(model, name): root for name, root in branches.items()}
        return {**branches, **commits}.get(revision)

    def files(self, root: Path) -> dict[str, int]:
        found = sorted(path for path in root.rglob("*") if path.is_file())
        sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in found}
        return {**sizes, **self.listed}

    def fetched(self) -> set[str]:
        """The files of which bytes were asked for."""
        paths = [
            unquote(urlsplit(r.path).path) for r in self.requests if r.method == "GET" and r.sent
        ]
        starts = [
            start
            for model in self.repositories
            for start in (f"/{model}/resolve/{commit_of(model)}/", f"/cdn/{model}/")
        ]
        return {path.removeprefix(s) for path in paths for s in starts if path.startswith(s)}


def commit_of(model: str, branch: str = "main") -> str:
    name = model if branch == "main" else f"{model}@{branch}"
    return hashlib.sha1(name.encode()).hexdigest()


@contextlib.contextmanager
def serve(repositories: Mapping[str, Path]) -> Iterator[HubServer]:
    hub = HubServer(dict(repositories))
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def connect(monkeypatch, hub_url: str, cache: Path) -> None:
    """Point this process at a Hub and an empty cache; conftest took it offline."""
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)  # it asks the real Hub
    # The protocol of content-defined chunks is not one to serve from a test.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_ENDPOINT", hub_url)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    close_session()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # many workers connect at once; one that is turned away waits seconds


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait for the client's receipt of its headers
    hub: HubServer

    def log_message(self, *args):
        pass

    def handle_one_request(self):
        with contextlib.suppress(ConnectionError):  # a client that has enough hangs up
            super().handle_one_request()

    def do_HEAD(self):
        self._handle()

    def do_GET(self):
        self._handle()

    def do_POST(self):
        self._handle()

    def do_PUT(self):
        self._handle()

    def _handle(self):
        hub = self.hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._read_chunked()
        self.route = unquote(urlsplit(self.path).path)
        self.request_record = Request(
            self.command,
            self.path,
            self.headers.get("Range"),
            self.headers.get("Authorization"),
            self.body,
        )
        with hub.lock:
            hub.requests.append(self.request_record)
            hub.in_flight += 1
            hub.most_in_flight = max(hub.most_in_flight, hub.in_flight)
        try:
            time.sleep(hub.delay)
            self._answer()
        finally:
            with hub.lock:
                hub.in_flight -= 1

    def _read_chunked(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self):
        hub = self.hub
        fails = hub.status is not None and self._is(hub.failing)
        if fails and (hub.failures is None or hub.failures > 0):
            if hub.failures is not None:
                hub.failures -= 1
            return self._json({"error": "out of order"}, hub.status, hub.headers)
        authorization = self.request_record.authorization
        if authorization not in (None, f"Bearer {hub.token}") and not self._is("/cdn/"):
            return self._refuse(401, message="Invalid credentials in Authorization header")
        if self._is("/api/models/"):
            return self._model_api(self.route.removeprefix("/api/models/"))
        if self._is("/cdn/"):
            if hub.single_use and any(r.path == self.path for r in hub.requests[:-1]):
                return self._refuse(403, message="The address has expired")
            return self._send_stored(self.route.removeprefix("/cdn/"))
        if "/resolve/" in self.route:
            return self._resolve()
        if self._is("/api/repos/create"):
            return self._create()
        if self._is("/api/validate-yaml"):
            return self._json({"errors": [], "warnings": []})
        if self.route.endswith(".git/info/lfs/objects/batch"):
            return self._lfs_batch()
        if self._is("/lfs/"):
            hub.objects[self.route.removeprefix("/lfs/")] = self.body  # by its SHA-256
            return self._json({})
        return self._json({"error": "no such route"}, 404)

    def _is(self, prefix):
        return self.route.startswith(prefix)

    def _model_api(self, rest):
        hub = self.hub
        model = next((m for m in self.hub.repositories if f"{rest}/".startswith(f"{m}/")), None)
        if model is None:
            return self._refuse_unknown()
        action, _, argument = rest.removeprefix(model).strip("/").partition("/")
        if action == "refs":
            return self._refs(model)
        revision = argument.partition("/")[0] if action in ("revision", "tree") else "main"
        root = hub.root(model, revision)
        if root is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if action == "preupload":
            wanted = json.loads(self.body)["files"]
            modes = [_upload_mode(file["path"], hub.large_uploads) for file in wanted]
            return self._json({"files": modes})
        if action == "commit":
            return self._commit(model)
        files = self.hub.files(root)
        if action == "tree":
            return self._json(
                [{"type": "file", "path": p, "size": s, "oid": "0" * 40} for p, s in files.items()]
            )
        if self.hub.fault == "no hub":
            return self._json(["what?"])
        siblings = [{"rfilename": name, "size": size} for name, size in files.items()]
        return self._json(
            {
                "id": model,
                "sha": self.hub.commit or self._commit_at(model, revision),
                "private": not self.hub.public,
                "siblings": siblings,
            }
        )

    def _refs(self, model):
        def ref(kind, name):
            commit = self._commit_at(model, name)
            return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": commit}

        branches = ["main", *self.hub.branches.get(model, {})]
        return self._json(
            {
                "branches": [ref("heads", name) for name in branches],
                "converts": [],
                "tags": [ref("tags", "v1")],
            }
        )

    def _commit_at(self, model, revision):
        branches = self.hub.branches.get(model, {})
        commits = {commit_of(model, name) for name in branches}
        if revision in commits:
            return revision
        return commit_of(model, revision if revision in branches else "main")

    def _resolve(self):
        model, _, rest = self.route.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if model not in self.hub.repositories:
            return self._refuse_unknown()
        if model in self.hub.gated:
            return self._refuse(403, "GatedRepo", f"Access to model {model} is restricted")
        root = self.hub.root(model, revision)
        if root is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        path = root / name
        if not path.is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found")
        size = path.stat().st_size
        etag = hashlib.sha1(f"{name} {size} {path.stat().st_mtime_ns}".encode()).hexdigest()
        commit = self._commit_at(model, revision)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}
        if not name.endswith(LARGE):
            return self._send_file(path, headers)
        signature = f"&signed={len(self.hub.requests)}" if self.hub.single_use else ""
        headers |= {
            "X-Linked-Size": str(size),
            "X-Linked-ETag": f'"{etag}"',
            "Location": f"http://localhost:{self.hub.port}/cdn/{model}/{name}?at={commit}{signature}",
        }
        return self._send(b"", headers, 302)

    def _send_stored(self, place):
        model = next(m for m in self.hub.repositories if place.startswith(f"{m}/"))
        commit = parse_qs(urlsplit(self.path).query)["at"][0]
        return self._send_file(self.hub.root(model, commit) / place.removeprefix(f"{model}/"))

    def _send_file(self, path, headers=()):
        size, fault = path.stat().st_size, self.hub.fault
        start, end, status = 0, size, 200
        headers = {**dict(headers), "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked and fault != "no ranges":
            start = int(asked[1])
            end = min(int(asked[2]) + 1, size) if asked[2] else size
            if start >= size:
                return self._send(b"", {"Content-Range": f"bytes */{size}"}, 416)
            status = 206
            start += 8 if fault == "late start" else 0
            end -= 100 if fault == "early end" else 0
            told = {
                "shifted range": f"bytes {start + 8}-{end + 7}/{size}",
                "lying size": f"bytes {start}-{end - 1}/{size + 2**40}",
                "no numbers": "bytes */*",
            }
            headers["Content-Range"] = told.get(fault, f"bytes {start}-{end - 1}/{size}")
            if fault == "short body":
                end -= 100
            if fault == "long body":
                end = min(end + 10 * _CHUNK, size)
        self.send_response(status)
        announced = end - start + (100 if fault == "broken body" and asked else 0)
        for key, value in {**headers, "Content-Length": str(announced)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        with path.open("rb") as file:
            file.seek(start)
            while start < end and (chunk := file.read(min(_CHUNK, end - start))):
                self.wfile.write(chunk)
                start += len(chunk)
                self.request_record.sent += len(chunk)
        self.close_connection = announced != end
        return None

    def _create(self):
        asked = json.loads(self.body)
        model = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        if self.request_record.authorization is None:
            return self._refuse(401, message="Invalid username or password.")
        made = {"url": f"{self.hub.url}/{model}", "name": model}
        if model in self.hub.repositories:
            return self._json({**made, "error": "You already created this model repo"}, 409)
        self.hub.repositories[model] = Path("/nonexistent")
        return self._json(made)

    def _lfs_batch(self):
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}}
            for wanted in json.loads(self.body)["objects"]
        ]
        return self._json({"transfer": "basic", "objects": objects})

    def _commit(self, model):
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                self.hub.uploaded[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                self.hub.uploaded[value["path"]] = self.hub.objects[value["oid"]]
        commit = "c" * 40
        url = f"{self.hub.url}/{model}/commit/{commit}"
        return self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _refuse_unknown(self):
        # To a stranger, the Hub does not say whether a private model exists.
        if self.request_record.authorization is None:
            return self._refuse(401, message="Invalid username or password.")
        return self._refuse(404, "RepoNotFound", "Repository not found")

    def _refuse(self, status, code=None, message=""):
        headers = {"X-Error-Message": message}
        if code:
            headers["X-Error-Code"] = code
        self._send(json.dumps({"error": message}).encode(), headers, status)

    def _json(self, document, status=200, headers=()):
        headers = {"Content-Type": "application/json", **dict(headers)}
        self._send(json.dumps(document).encode(), headers, status)

    def _send(self, body, headers, status):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.request_record.sent += len(body)


def _upload_mode(path, large):
    mode = "lfs" if large and path.endswith(LARGE) else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}
