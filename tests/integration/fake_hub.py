"""A Hugging Face Hub on this machine, as far as huggingface_hub asks one.

Large files are redirected to a host of their own, as on the real one: here the other name of the
loopback address. What is asked is kept, for tests to look at.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Repo:
    """A repository: its commits, the newest last, each with its files."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a commit and give its hash."""
        text = repr(sorted(files.items())).encode()
        sha = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        self.commits[sha] = dict(files)
        return sha


@dataclass
class Asked:
    """A request: its method, host, path, the range wanted, and whether a token came with it."""

    method: str
    host: str
    path: str
    range: str | None
    token: str | None


class FakeHub:
    """The server. `drops` and `stalls` map a file's SHA-256 to the bytes after which it stops."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[Asked] = []
        self.drops: dict[str, int] = {}
        self.stalls: dict[str, int] = {}
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self.lies: dict[str, bytes] = {}
        self.tokens = {"hf_good"}
        self.status: int | None = None
        hub = self

        class Handler(_Handler):
            fake = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def repo(self, name: str, files: dict[str, bytes]) -> str:
        """A repository, or a new commit of one; gives the commit."""
        return self.repos.setdefault(name, Repo()).commit(files)

    def got(self, ending: str) -> list[Asked]:
        """The downloads whose path ends so."""
        return [a for a in self.asked if a.method == "GET" and a.path.endswith(ending)]


def sha256(content: bytes) -> str:
    """The hash by which a large file is known."""
    return hashlib.sha256(content).hexdigest()


def _git_hash(content: bytes) -> str:
    blob = b"blob %d\0" % len(content) + content
    return hashlib.sha1(blob, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        host = (self.headers["Host"] or "").split(":")[0]
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
        self.fake.asked.append(Asked(self.command, host, path, self.headers["Range"], token))
        if self.fake.status is not None:
            return self._error(self.fake.status, "", "down")
        parts = path.split("/")
        if parts[0] == "cdn":
            return self._content(parts[1])
        api = parts[:2] == ["api", "models"]
        repo_name = "/".join(parts[2:4] if api else parts[:2])
        repo = self.fake.repos.get(repo_name)
        if token is not None and token not in self.fake.tokens:
            return self._error(401, "", "Invalid credentials in Authorization header")
        if repo is None:
            return self._error(401, "RepoNotFound", "Repository not found")
        if repo.gated and not api and token is None:
            return self._error(401, "GatedRepo", f"Access to model {repo_name} is restricted")
        rest = parts[4:] if api else parts[2:]
        wanted = rest[1] if len(rest) > 1 else "main"
        commit = list(repo.commits)[-1] if wanted == "main" else wanted
        if commit not in repo.commits:
            return self._error(404, "RevisionNotFound", "Invalid rev id")
        files = repo.commits[commit]
        if api:
            return self._info(repo_name, repo, commit, files)
        return self._resolve(commit, "/".join(rest[2:]), files)

    def _info(self, name: str, repo: Repo, commit: str, files: dict[str, bytes]) -> None:
        siblings: list[dict[str, Any]] = []
        for file, content in files.items():
            entry = {"rfilename": file, "size": len(content), "blobId": _git_hash(content)}
            if file.endswith((".safetensors", ".bin")):
                lfs = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
                entry["lfs"] = lfs
            siblings.append(entry)
        gated: Any = "manual" if repo.gated else False
        data = {"id": name, "modelId": name, "sha": commit, "gated": gated, "private": False}
        self._send(200, json.dumps(data | {"siblings": siblings, "tags": []}).encode(), {})

    def _resolve(self, commit: str, name: str, files: dict[str, bytes]) -> None:
        if name not in files:
            return self._error(404, "EntryNotFound", "Entry not found")
        content = files[name]
        known = {"X-Repo-Commit": commit}
        if not name.endswith((".safetensors", ".bin")):
            etag = f'"{_git_hash(content)}"'
            return self._send(200, self.fake.lies.get(name, content), known | {"ETag": etag})
        digest = sha256(content)
        self.fake.lies.setdefault(digest, content)
        known |= {
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"http://localhost:{self.fake.port}/cdn/{digest}",
        }
        return self._send(302, b"", known)

    def _content(self, digest: str) -> None:
        content = self.fake.lies[digest]
        begin = 0
        wanted = self.headers["Range"]
        if wanted is not None:
            begin = int(wanted.removeprefix("bytes=").split("-")[0])
        body = content[begin:]
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if wanted is not None:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self.send_response(206 if wanted is not None else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if (stop := self.fake.drops.pop(digest, None)) is not None:
            self.wfile.write(body[:stop])
            self.close_connection = True
            return
        if (stop := self.fake.stalls.pop(digest, None)) is not None:
            self.wfile.write(body[:stop])
            self.wfile.flush()
            self.fake.stalled.set()
            self.fake.go_on.wait()
            self.close_connection = True
            return
        self.wfile.write(body)

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message} if code else {}
        if message:
            headers["X-Error-Message"] = message
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
