"""A small Hugging Face Hub on loopback that answers as the real one does, and with some faults.

Three origins: the Hub (``127.0.0.1``), a CDN with signed addresses that refuses a token
(``localhost``), and the store of Xet, which cuts files into chunks. Repositories that were renamed
and small files are redirected relatively, JSON is compressed, and long trees come in pages.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

LARGE = (".safetensors", ".bin", ".onnx")
BOT = "SFconvertbot"
_PIECE = 2**20
_CHUNK = 2**16  # of Xet
_PAGE = 20  # entries of a tree at once
_HASHED = 2**23  # larger files are told apart by name, size and time
_LIMIT = {"RateLimit": '"api";r=499;t=300', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    authorization: str | None
    body: bytes = b""
    sent: int = 0
    file: str | None = None  # whose content was sent
    at: float = field(default_factory=time.monotonic)


@dataclass
class HubServer:
    """What is served, what goes wrong, and what was asked."""

    repositories: dict[str, Path]
    branches: dict[str, dict[str, Path]] = field(default_factory=dict)  # beside main, by model
    renamed: dict[str, str] = field(default_factory=dict)  # an earlier id → today's
    gated: set[str] = field(default_factory=set)
    admitted: bool = False  # whether the token's owner may read them
    discussions: bool = True  # a mirror may have none
    public: bool = False
    large_uploads: bool = True
    large: tuple[str, ...] = ()  # further names that are stored as LARGE ones
    token: str | None = None  # the only one that is accepted
    expired: str | None = None  # once was one
    status: int | None = None  # answer with it …
    failing: str = "/"  # … what starts so …
    failures: int | None = None  # … this many times
    headers: Mapping[str, str] = field(default_factory=dict)  # … with these
    single_use: bool = False  # an address of the CDN is good for one request
    fault: str | None = None
    commit: str | None = None  # what every listing says it is
    listed: Mapping[str, int] = field(default_factory=dict)  # further names in every listing
    mirror_of: str | None = None  # files are asked for there, by 308
    card_errors: tuple[str, ...] = ()  # of any card
    delay: float = 0.0
    slow: float = 0.0  # before each piece of a file
    requests: list[Request] = field(default_factory=list)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, tuple[str, Path]] = field(default_factory=dict)  # Xet hash → name and file
    in_flight: int = 0
    most_in_flight: int = 0
    port: int = 0
    cdn_port: int = 0
    xet_port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def cdn(self) -> str:
        return f"http://localhost:{self.cdn_port}"

    @property
    def xet(self) -> str:
        return f"http://127.0.0.1:{self.xet_port}"

    @property
    def sent(self) -> int:
        return sum(request.sent for request in self.requests)

    @property
    def sent_of_files(self) -> int:
        return sum(request.sent for request in self.requests if request.file)

    def fetched(self) -> set[str]:
        """The files of which bytes were sent."""
        return {r.file for r in self.requests if r.file and r.sent}

    def revisions(self, model: str) -> dict[str, Path]:
        return {"main": self.repositories[model], **self.branches.get(model, {})}

    def find(self, model: str, revision: str) -> tuple[str, Path] | None:
        """A branch by its name or commit, or the tag v1, which is where main is."""
        for name, root in self.revisions(model).items():
            if revision in (name, commit_of(model, name)) or (revision, name) == ("v1", "main"):
                return name, root
        return None

    def files(self, root: Path) -> dict[str, int]:
        found = sorted(path for path in root.rglob("*") if path.is_file())
        sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in found}
        return {**sizes, **self.listed}

    def is_large(self, name: str) -> bool:
        return name.endswith((*LARGE, *self.large))


def commit_of(model: str, branch: str = "main") -> str:
    name = model if branch == "main" else f"{model}@{branch}"
    return hashlib.sha1(name.encode()).hexdigest()


@contextlib.contextmanager
def serve(repositories: Mapping[str, Path]) -> Iterator[HubServer]:
    hub = HubServer(dict(repositories))
    handlers = (_Hub, _Cdn, _Xet)
    servers = [
        _Server(("127.0.0.1", 0), type(handler.__name__, (handler,), {"hub": hub}))
        for handler in handlers
    ]
    hub.port, hub.cdn_port, hub.xet_port = (server.server_port for server in servers)
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


def connect(monkeypatch, hub_url: str, cache: Path, *, xet: bool = True) -> None:
    """Point this process, and those it starts, at a Hub and an empty cache."""
    from huggingface_hub import close_session, constants
    from huggingface_hub.utils._xet import abort_xet_session

    for name, value in {
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(cache),
        "HF_ASSETS_CACHE": str(cache.with_name("assets")),
        "HF_TOKEN_PATH": str(cache / "no-token"),
        "HF_HUB_DISABLE_TELEMETRY": True,  # it asks the real Hub
        "HF_HUB_DISABLE_XET": not xet,
    }.items():
        monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv(name, value if isinstance(value, str) else str(int(value)))
    monkeypatch.setenv("HF_XET_CACHE", str(cache.with_name("xet")))
    monkeypatch.setenv("HF_ENDPOINT", hub_url)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    close_session()
    abort_xet_session()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # many workers connect at once; one that is turned away waits seconds
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body would wait for the client's receipt of its headers
    hub: HubServer

    def log_message(self, *args):
        pass

    def handle_one_request(self):
        with contextlib.suppress(ConnectionError):  # a client that has enough hangs up
            super().handle_one_request()

    def _handle(self):
        hub = self.hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = self._read_chunked()
        self.route = unquote(urlsplit(self.path).path)
        self.query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        self.authorization = self.headers.get("Authorization")
        self.asked = Request(
            self.command, self.path, self.headers.get("Range"), self.authorization, self.body
        )
        with hub.lock:
            hub.requests.append(self.asked)
            hub.in_flight += 1
            hub.most_in_flight = max(hub.most_in_flight, hub.in_flight)
        try:
            time.sleep(hub.delay)
            if hub.status is not None and self._is(hub.failing) and hub.failures != 0:
                if hub.failures is not None:
                    hub.failures -= 1
                return self._json({"error": "out of order"}, hub.status, hub.headers)
            self._answer()
        finally:
            with hub.lock:
                hub.in_flight -= 1

    do_HEAD = do_GET = do_POST = do_PUT = _handle  # noqa: N815

    def _read_chunked(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _is(self, prefix):
        return self.route.startswith(prefix)

    def _redirect(self, status, location, headers=()):
        self._send(b"Redirecting", {**dict(headers), "Location": location}, status)

    def _refuse(self, status, code=None, message=""):
        headers = {"X-Error-Message": message, **_LIMIT}
        if code:
            headers["X-Error-Code"] = code
        self._send(json.dumps({"error": message}).encode(), headers, status)

    def _json(self, document, status=200, headers=()):
        headers = {"Content-Type": "application/json; charset=utf-8", **_LIMIT, **dict(headers)}
        self._send_compressed(json.dumps(document).encode(), headers, status)

    def _send_compressed(self, body, headers, status=200):
        if "gzip" in self.headers.get("Accept-Encoding", "") and len(body) > 200:
            body = gzip.compress(body, 1)
            headers = {**headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        self._send(body, headers, status)

    def _send(self, body, headers, status):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.asked.sent += len(body)


class _Hub(_Handler):
    def _answer(self):
        hub = self.hub
        if self.authorization not in (None, f"Bearer {hub.token}"):
            if hub.expired and self.authorization == f"Bearer {hub.expired}":
                return self._refuse(401, message='User Access Token "laptop" is expired')
            return self._refuse(401, message="Invalid credentials in Authorization header")
        if self._is("/api/resolve-cache/models/"):
            return self._send_cached()
        if self._is("/api/models/"):
            return self._model_api(self.route.removeprefix("/api/models/"))
        if "/resolve/" in self.route:
            return self._resolve()
        if self._is("/api/repos/create"):
            return self._create()
        if self._is("/api/validate-yaml"):
            errors = [{"message": text} for text in hub.card_errors]
            errors += _errors_of_card(json.loads(self.body)["content"])
            status = 400 if errors else 200
            return self._json({"errors": errors, "warnings": []}, status)
        if self.route.endswith(".git/info/lfs/objects/batch"):
            return self._lfs_batch()
        if self._is("/lfs/"):
            hub.objects[self.route.removeprefix("/lfs/")] = self.body  # by its SHA-256
            return self._json({})
        return self._json({"error": "no such route"}, 404)

    def _moved(self, rest, prefix=""):
        """Answer for an id from before a renaming: with an address on this host."""
        for old, new in self.hub.renamed.items():
            if f"{rest}/".startswith(f"{old}/"):
                query = urlsplit(self.path).query
                target = f"{prefix}/{new}{quote(rest.removeprefix(old))}"
                self._redirect(307, target + (f"?{query}" if query else ""), _LIMIT)
                return True
        return False

    def _model_api(self, rest):
        hub = self.hub
        if self._moved(rest, "/api/models"):
            return None
        model = next((m for m in hub.repositories if f"{rest}/".startswith(f"{m}/")), None)
        if model is None:
            return self._refuse_unknown()
        action, _, argument = rest.removeprefix(model).strip("/").partition("/")
        if action == "refs":
            return self._refs(model)
        if action == "discussions" and hub.discussions:
            return self._discussions(model)
        if action == "preupload":
            wanted = json.loads(self.body)["files"]
            modes = [_upload_mode(file["path"], hub.large_uploads) for file in wanted]
            return self._json({"files": modes})
        if action == "commit":
            return self._commit(model)
        if action == "xet-read-token":
            return self._xet_token(model)
        revision = argument if action in ("revision", "tree") else "main"
        if (found := hub.find(model, revision)) is None:
            if action == "tree" and hub.find(model, revision.rpartition("/")[0]):
                return self._refuse(404, "EntryNotFound", "no such folder")
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        name, root = found
        if action == "tree":
            return self._tree(root)
        if hub.fault == "no hub":
            return self._json(["what?"])
        siblings = [{"rfilename": file, **self._entry(root, file)} for file in hub.files(root)]
        if "blobs" not in self.query:
            siblings = [{"rfilename": sibling["rfilename"]} for sibling in siblings]
        return self._json(
            {
                "id": model,
                "sha": hub.commit or commit_of(model, name),
                "private": not hub.public,
                "siblings": siblings,
            }
        )

    def _entry(self, root, name):
        """A file as a listing has it: Git's hash, or the content's for what is stored apart."""
        path = root / name
        if name in self.hub.listed:
            return {"size": self.hub.listed[name]}
        size = path.stat().st_size
        if not self.hub.is_large(name):
            return {"size": size, "blobId": _oid(path)}
        lfs = {"sha256": _sha256(path), "size": size, "pointerSize": 134}
        return {"size": size, "blobId": _oid(path), "lfs": lfs}

    def _tree(self, root):
        entries = []
        for name in self.hub.files(root):
            entry = self._entry(root, name)
            line = {"type": "file", "path": name, "size": entry["size"]}
            line["oid"] = entry.get("blobId", "0" * 40)
            if lfs := entry.get("lfs"):
                line["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": 134}
                line["xetHash"] = self._store(name, root / name)
            entries.append(line)
        start = int(self.query.get("cursor", 0))
        headers = {}
        if (end := start + _PAGE) < len(entries):
            further = f"recursive=true&cursor={end}"
            headers["Link"] = f'<{self.hub.url}{urlsplit(self.path).path}?{further}>; rel="next"'
        self._json(entries[start:end], headers=headers)

    def _store(self, name, path):
        key = hashlib.sha256(b"xet" + _sha256(path).encode()).hexdigest()
        self.hub.stored[key] = (name, path)
        return key

    def _refs(self, model):
        def ref(kind, name):
            full = name if name.startswith("refs/") else f"refs/{kind}/{name}"
            return {"name": name, "ref": full, "targetCommit": commit_of(model, name)}

        names = list(self.hub.revisions(model))
        requests = [name for name in names if name.startswith("refs/pr/")]
        document = {
            "branches": [ref("heads", name) for name in names if name not in requests],
            "converts": [],
            "tags": [{**ref("tags", "v1"), "targetCommit": commit_of(model)}],
        }
        if "include_prs" in self.query:
            document["pullRequests"] = [ref("pr", name) for name in requests]
        return self._json(document)

    def _discussions(self, model):
        """Every pull request is the converting bot's, but for those from number 100."""
        numbers = [
            int(name.rpartition("/")[2])
            for name in self.hub.revisions(model)
            if name.startswith("refs/pr/")
        ]
        found = [
            {
                "title": "Adding `safetensors` variant of this model",
                "num": number,
                "author": {"name": BOT if number < 100 else "somebody"},
                "createdAt": "2023-03-01T10:00:00.000Z",
                "status": "open",
                "repo": {"name": model, "type": "model"},
                "isPullRequest": True,
            }
            for number in sorted(numbers, reverse=True)
        ]
        by = [one for one in found if self.query.get("author") in (None, one["author"]["name"])]
        return self._json({"discussions": by, "count": len(by), "start": 0})

    def _xet_token(self, model):
        if not self._admits(model):
            return None
        until = int(time.time()) + 3600
        headers = {
            "X-Xet-Cas-Url": self.hub.xet,
            "X-Xet-Access-Token": "xet_read",
            "X-Xet-Token-Expiration": str(until),
        }
        document = {"accessToken": "xet_read", "exp": until, "casUrl": self.hub.xet}
        return self._json(document, headers=headers)

    def _admits(self, model):
        if model not in self.hub.gated or (self.hub.admitted and self.authorization):
            return True
        status = 403 if self.authorization else 401
        self._refuse(status, "GatedRepo", f"Access to model {model} is restricted")
        return False

    def _resolve(self):
        hub = self.hub
        if hub.mirror_of:
            return self._redirect(308, f"{hub.mirror_of}{self.path}")
        model, _, rest = self.route.strip("/").partition("/resolve/")
        if self._moved(f"{model}/resolve/{rest}"):
            return None
        if model not in hub.repositories:
            return self._refuse_unknown()
        if not self._admits(model):
            return None
        names = list(hub.revisions(model))
        revisions = [*names, "v1", *(commit_of(model, name) for name in names)]
        revision = next((r for r in revisions if rest.startswith(f"{r}/")), rest.split("/")[0])
        if (found := hub.find(model, revision)) is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        branch, root = found
        name = rest.removeprefix(f"{revision}/")
        commit = commit_of(model, branch)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", **_LIMIT}
        if not (root / name).is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found")
        size = str((root / name).stat().st_size)
        if not hub.is_large(name):
            etag = f'"{_oid(root / name)}"'
            headers |= {"X-Linked-Size": size, "X-Linked-ETag": etag, "ETag": etag}
            target = f"/api/resolve-cache/models/{model}/{commit}/{quote(name)}?etag={quote(etag)}"
            return self._redirect(307, target, headers)
        key = self._store(name, root / name)
        token = f"{hub.url}/api/models/{model}/xet-read-token/{commit}"
        headers |= {
            "X-Linked-Size": size,
            "X-Linked-ETag": f'"{_sha256(root / name)}"',
            "X-Xet-Hash": key,
            "Link": f'<{token}>; rel="xet-auth", '
            f'<{hub.xet}/v2/reconstructions/{key}>; rel="xet-reconstruction-info"',
        }
        signature = f"{len(hub.requests)}" if hub.single_use else "1"
        place = f"{hub.cdn}/cdn/{model}/{quote(name)}?key={key}&X-Amz-Signature={signature}"
        return self._redirect(302, place, headers)

    def _send_cached(self):
        """Send a small file, which the Hub has in a cache of its own by its commit."""
        rest = self.route.removeprefix("/api/resolve-cache/models/")
        model = next(m for m in self.hub.repositories if rest.startswith(f"{m}/"))
        if not self._admits(model):
            return None
        commit, _, name = rest.removeprefix(f"{model}/").partition("/")
        branch, root = self.hub.find(model, commit)
        headers = {"X-Repo-Commit": commit_of(model, branch), "ETag": f'"{_oid(root / name)}"'}
        self.asked.file = name
        return self._send_compressed((root / name).read_bytes(), headers)

    def _create(self):
        asked = json.loads(self.body)
        model = f"{asked.get('organization') or 'somebody'}/{asked['name']}"
        if self.authorization is None:
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
            elif operation["key"] == "deletedFile":
                self.hub.deleted.add(value["path"])
        commit = "c" * 40
        url = f"{self.hub.url}/{model}/commit/{commit}"
        return self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _refuse_unknown(self):
        # To a stranger, the Hub does not say whether a private model exists.
        if self.authorization is None:
            return self._refuse(401, message="Invalid username or password.")
        return self._refuse(404, "RepoNotFound", "Repository not found")


class _Cdn(_Handler):
    """Sends ranges of large files, to whoever has a signed address and shows no token."""

    def _answer(self):
        if self.authorization is not None:
            return self._send(b"<Error>Only one auth mechanism allowed</Error>", {}, 400)
        hub = self.hub
        if hub.single_use and any(r.path == self.path for r in hub.requests[:-1]):
            return self._send(b"<Error>Request has expired</Error>", {}, 403)
        name, path = hub.stored[self.query["key"]]
        self.asked.file = name
        return self._send_file(path)

    def _send_file(self, path):
        size, fault = path.stat().st_size, self.hub.fault
        start, end, status = 0, size, 200
        headers = {"Accept-Ranges": "bytes"}
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
                end = min(end + 10 * _PIECE, size)
        self.send_response(status)
        announced = end - start + (100 if fault == "broken body" and asked else 0)
        for key, value in {**headers, "Content-Length": str(announced)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return None
        with path.open("rb") as file:
            file.seek(start)
            while start < end and (piece := file.read(min(_PIECE, end - start))):
                time.sleep(self.hub.slow)
                self.wfile.write(piece)
                start += len(piece)
                self.asked.sent += len(piece)
        self.close_connection = announced != end
        return None


class _Xet(_Handler):
    """Says of which chunks a file is made, and sends them: each file's own, one after the other."""

    def _answer(self):
        kind, _, key = self.route.strip("/").rpartition("/")
        if key not in self.hub.stored:
            return self._json({}, 200 if kind != "v2/reconstructions" else 404)
        name, path = self.hub.stored[key]
        if kind == "xorb":
            return self._send_chunks(name, _packed(path))
        if self.authorization != "Bearer xet_read":
            return self._json({"error": "no token"}, 401)
        size = path.stat().st_size
        first, last = self._range(size)
        chunks = range(first // _CHUNK, last // _CHUNK + 1)
        whole = min(chunks.stop * _CHUNK, size) - chunks.start * _CHUNK
        bounds = {"start": chunks.start, "end": chunks.stop}
        everything = {
            "chunks": {"start": 0, "end": -(-size // _CHUNK)},
            "bytes": {"start": 0, "end": len(_packed(path)) - 1},
        }
        document = {
            "offset_into_first_range": first - chunks.start * _CHUNK,
            "terms": [{"hash": key, "range": bounds, "unpacked_length": whole}],
            "xorbs": {key: [{"url": f"{self.hub.xet}/xorb/{key}", "ranges": [everything]}]},
        }
        return self._json(document)

    def _range(self, size):
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            return 0, size - 1
        return int(asked[1]), min(int(asked[2]) if asked[2] else size - 1, size - 1)

    def _send_chunks(self, name, packed):
        first, last = self._range(len(packed))
        time.sleep(self.hub.slow)
        self.asked.file = name
        headers = {"Content-Range": f"bytes {first}-{last}/{len(packed)}"}
        self._send(packed[first : last + 1], headers, 206 if self.headers.get("Range") else 200)


def _packed(path: Path) -> bytes:
    """A file as a xorb: each chunk behind its version, both its lengths, and how it is packed."""
    content = path.read_bytes()
    packed = bytearray()
    for start in range(0, len(content), _CHUNK):
        chunk = content[start : start + _CHUNK]
        length = len(chunk).to_bytes(3, "little")
        packed += b"\0" + length + b"\0" + length + chunk
    return bytes(packed)


def _oid(path: Path) -> str:
    return _hashed(path, "sha1", path.stat().st_size, path.stat().st_mtime_ns)


def _sha256(path: Path) -> str:
    return _hashed(path, "sha256", path.stat().st_size, path.stat().st_mtime_ns)


@functools.cache
def _hashed(path: Path, kind: str, size: int, time_ns: int) -> str:
    content = path.read_bytes() if size < _HASHED else f"{path} {size} {time_ns}".encode()
    return hashlib.new(kind, content).hexdigest()


def _errors_of_card(content: str) -> list[dict[str, str]]:
    header = re.match(r"---\n(.*?)\n---", content, re.DOTALL)
    base = (yaml.safe_load(header[1]) or {}).get("base_model") if header else None
    named = base if isinstance(base, list) else [base]
    return [
        {"message": f'"base_model" with value "{name}" is not valid. Use a model id.'}
        for name in named
        if name is not None and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(name))
    ]


def _upload_mode(path, large):
    mode = "lfs" if large and path.endswith(LARGE) else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}
