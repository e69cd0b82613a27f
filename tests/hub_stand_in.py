"""A stand-in of the Hugging Face Hub for tests: as much of its HTTP interface as `huggingface_hub` needs here."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_stand_in"  # it is `user` who has it


@dataclass
class Repository:
    """Its files by commit, and the commit of each branch."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        whole = self.files(branch) | files if branch in self.branches else files
        name = hashlib.sha1(repr([branch, *sorted(whole.items())]).encode()).hexdigest()
        self.commits[name], self.branches[branch] = whole, name
        return name

    def files(self, revision: str) -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


@dataclass
class Hub:
    """What the stand-in holds, and what it was asked for."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def put(self, name: str, files: dict[str, bytes], *, private: bool = False) -> Repository:
        made = self.repositories.setdefault(name, Repository(private))
        made.commit("main", files)
        return made


@contextmanager
def stand_in() -> Iterator[Hub]:
    """Serve an empty Hub on this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refused(Exception):
    def __init__(self, status: int, code: str = "") -> None:
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def answer(self) -> None:
        """Any request."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.hub.requests.append(f"{self.command} {'/'.join(parts)}")
        try:
            found = self.found(parts, body)
        except _Refused as refused:
            more = {"X-Error-Code": refused.code} if refused.code else {}
            self.reply(json.dumps({"error": f"refused with {refused.status}"}).encode(), refused.status, more)
            return
        if isinstance(found, tuple):
            self.reply(*found)
        else:
            self.reply(json.dumps(found).encode(), 200, {"Content-Type": "application/json"})

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

    def reply(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def found(self, parts: list[str], body: bytes) -> Any:
        match parts:
            case ["api", "repos", "create"]:
                return self.create(json.loads(body))
            case ["api", "validate-yaml"]:
                return {"errors": [], "warnings": []}
            case ["api", "models", user, name]:
                return self.about(f"{user}/{name}", "main")
            case ["api", "models", user, name, "revision", revision]:
                return self.about(f"{user}/{name}", revision)
            case ["api", "models", user, name, "tree", revision]:
                files = self.repository(f"{user}/{name}", revision).files(revision)
                return [entry(path, content) for path, content in files.items()]
            case ["api", "models", user, name, "branch", branch]:
                return self.branch(f"{user}/{name}", branch)
            case ["api", "models", user, name, "preupload", _]:
                self.may_write(user)
                self.repository(f"{user}/{name}")
                paths = [file["path"] for file in json.loads(body)["files"]]
                return {"files": [{"path": path, "uploadMode": mode(path), "shouldIgnore": False} for path in paths]}
            case ["api", "models", user, name, "commit", branch]:
                self.may_write(user)
                return self.commit(f"{user}/{name}", branch, [json.loads(line) for line in body.splitlines()])
            case [_, _, "info", "lfs", "objects", "batch"]:
                wanted = json.loads(body)["objects"]
                place = f"{self.hub.endpoint}/objects"
                return {
                    "transfer": "basic",
                    "objects": [each | {"actions": {"upload": {"href": f"{place}/{each['oid']}"}}} for each in wanted],
                }
            case ["objects", digest]:
                assert hashlib.sha256(body).hexdigest() == digest
                self.hub.objects[digest] = body
                return {}
            case [user, name, "resolve", revision, *path]:
                return self.content(f"{user}/{name}", revision, "/".join(path))
        raise _Refused(404)

    def may_write(self, user: str | None) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Refused(401)
        if user != "user":
            raise _Refused(403)

    def repository(self, name: str, revision: str = "main") -> Repository:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            raise _Refused(404, "RepoNotFound")
        if revision not in found.branches and revision not in found.commits:
            raise _Refused(404, "RevisionNotFound")
        return found

    def create(self, wanted: dict[str, Any]) -> Any:
        self.may_write(wanted["organization"])
        name = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name}
        if name in self.hub.repositories:
            return json.dumps(url).encode(), 409, {"Content-Type": "application/json"}
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.hub.put(name, {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, private=private)
        return url

    def about(self, name: str, revision: str) -> dict[str, Any]:
        found = self.repository(name, revision)
        siblings = [{"rfilename": path} for path in found.files(revision)]
        sha = found.branches.get(revision, revision)
        return {"_id": "1", "id": name, "modelId": name, "sha": sha, "private": found.private, "siblings": siblings}

    def branch(self, name: str, branch: str) -> Any:
        self.may_write(name.partition("/")[0])
        found = self.repository(name)
        if branch in found.branches:
            raise _Refused(409)
        found.branches[branch] = found.branches["main"]
        return {}

    def commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        files: dict[str, bytes] = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        made = self.repository(name, branch).commit(branch, files)
        return {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{made}", "commitOid": made, "success": True}

    def content(self, name: str, revision: str, path: str) -> Any:
        found = self.repository(name, revision)
        content = found.files(revision).get(path)
        if content is None:
            raise _Refused(404, "EntryNotFound")
        about = entry(path, content)
        headers = {"X-Repo-Commit": found.branches.get(revision, revision), "ETag": f'"{about["oid"]}"'}
        if "lfs" in about:
            headers |= {"X-Linked-Etag": f'"{about["lfs"]["oid"]}"', "X-Linked-Size": str(len(content))}
        return content, 200, headers


def mode(path: str) -> str:
    """How a file is uploaded."""
    return "lfs" if path.endswith(".safetensors") else "regular"


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A file in a listing, as git and LFS call it."""
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    found = {"type": "file", "path": path, "size": len(content), "oid": oid}
    if mode(path) == "lfs":
        found["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return found
