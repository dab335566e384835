"""A server of the Hugging Face Hub's form on localhost, with one repository and faults on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "a1b2c3d4e5f60718293a4b5c6d7e8f9001122334"
LARGE = 100_000
"""Bytes from which a file is in large file storage, with a sha256."""


@dataclass
class Repository:
    """What the server offers under one name."""

    name: str
    files: dict[str, bytes]
    commit: str = COMMIT
    earlier: tuple[str, ...] = ()
    """Earlier commits, newest first; they have the same files."""
    history: bool = True
    """Whether the server lists commits, as mirrors may not."""
    gone: bool = False
    """The commit was there once and is no more."""
    private: bool = False
    break_after: dict[str, list[int]] = field(default_factory=dict)
    """By file, for each coming request of its content, after how many bytes the connection breaks; then none
    does."""
    altered: set[str] = field(default_factory=set)
    """Files whose content does not fit the checksum that is listed."""
    listed_sizes: dict[str, int] = field(default_factory=dict)
    """Sizes that are listed instead of the true ones."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, file and Range header of every request for content."""

    def entry(self, file: str) -> dict[str, Any]:
        """What the Hub's list says of a file."""
        content, size = self.files[file], self.listed_sizes.get(file, len(self.files[file]))
        blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        found: dict[str, Any] = {"size": size, "oid": blob}
        if len(content) >= LARGE:
            sha256 = hashlib.sha256(content).hexdigest()
            found["lfs"] = {"oid": sha256, "sha256": sha256, "size": size, "pointerSize": 134}
        return found


@contextmanager
def serve(repository: Repository) -> Iterator[str]:
    """Run the server in a thread; its address."""
    handler = type("Bound", (_Handler,), {"repository": repository})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    repository: Repository
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        repository, path = self.repository, self.path.split("?")[0]
        api, plain = f"/api/models/{repository.name}", f"/{repository.name}/resolve/"
        if not (path == api or path.startswith((f"{api}/", plain))):
            return self._refuse(404, "RepoNotFound", "Repository not found")
        if repository.private:
            return self._refuse(401, "RepoNotFound", "Invalid username or password.")
        rest = path.removeprefix(plain) if path.startswith(plain) else path.removeprefix(api).lstrip("/")
        parts = rest.split("/")
        revision = parts[0] if path.startswith(plain) else (parts[1] if len(parts) > 1 else "main")
        known = ("main",) if repository.gone else ("main", repository.commit, *repository.earlier)
        if revision not in known:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if path.startswith(plain):
            return self._content(parts[1], body)
        if parts[0] == "tree":
            listing = [{"type": "file", "path": file, **repository.entry(file)} for file in repository.files]
            return self._json(listing)
        if parts[0] == "commits":
            return self._history()
        siblings = []
        for file in repository.files:
            entry = repository.entry(file)
            siblings.append({"rfilename": file, "blobId": entry.pop("oid"), **entry})
        sha = repository.commit if revision == "main" else revision
        return self._json({"id": repository.name, "sha": sha, "siblings": siblings, "tags": []})

    def _history(self) -> None:
        repository = self.repository
        if not repository.history:
            return self._refuse(404, "EntryNotFound", "Not found")
        about = {"authors": [], "date": "2024-05-10T12:00:00.000Z", "title": "upload", "message": ""}
        self._json([{"id": commit, **about} for commit in (repository.commit, *repository.earlier)])

    def _content(self, file: str, body: bool) -> None:
        repository = self.repository
        if file not in repository.files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        span = self.headers.get("Range", "")
        repository.requests.append((self.command, file, span))
        content = repository.files[file]
        if file in repository.altered:
            content = bytes([content[0] ^ 1]) + content[1:]
        entry = repository.entry(file)
        start = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("ETag", f'"{entry.get("lfs", {}).get("oid", entry["oid"])}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("Accept-Ranges", "bytes")
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if not body:
            return
        breaks = repository.break_after.get(file)
        if breaks:
            self.wfile.write(content[start : start + breaks.pop(0)])
            self.close_connection = True
            return
        self.wfile.write(content[start:])

    def _json(self, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()
