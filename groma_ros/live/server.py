"""Web server of the page: five files, and a websocket for frames and actions.

A page requests the next frame when it has drawn the last one, so a slow page gets fewer frames and nothing
queues up. A message to the page is a length (uint32, big-endian), a JSON document of that length, and binary
parts whose lengths the document lists under `parts`: the picture, and the points of the 3D view.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import struct
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from groma_ros.errors import sentence
from groma_ros.live import LOOPBACK
from groma_ros.live.session import LiveSession

PAGE = Path(__file__).with_name("page")
FILES = {
    "/": "index.html",
    **{f"/{name}": name for name in ("live.css", "live.js", "elements.js", "space.js")},
}
COOKIE = "groma_token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
REST_SECONDS = 1.0
"""Maximum period of state updates to a page, also without new frames."""
MAX_MESSAGE = 1 << 20
"""Maximum size of a message from a page, bytes."""
MAX_ACTIONS = 8
"""Maximum number of actions in progress per page."""


def make_app(session: LiveSession, token: str = "") -> Starlette:
    """Create the web application of a session.

    token: required from every page; "" if the server is bound to this machine only, and then only requests
    that name this machine as their host are served.
    """
    routes = [Route(path, _file(name)) for path, name in FILES.items()]

    async def talk(socket: WebSocket) -> None:
        await _Page(session, socket).run()

    app = Starlette(routes=[*routes, WebSocketRoute("/live", talk)])
    app.add_middleware(_Guard, token=token)
    return app


def _file(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        headers |= {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
        return FileResponse(PAGE / name, headers=headers)

    return answer


class _Guard:
    """Refuses requests with other host names (DNS rebinding), of other sites' pages, and without the
    token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        given = _query_token(scope)
        if not refusal and scope["type"] == "http" and self._token and given:
            # Redirect, so that the token leaves the address bar.
            response: Response = RedirectResponse("/", 303)
            response.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return await response(scope, receive, send)
        if not refusal:
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close", "code": 1008, "reason": refusal[:120]})
        await PlainTextResponse(refusal + "\n", 403)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> str:
        """Return why a request is refused, or ""."""
        host = headers.get("host", "")
        if not self._token and _name_of(host) not in LOOPBACK:
            return "This page answers to 127.0.0.1 and localhost only."
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return "A page of another site may not look through this camera."
        if self._token:
            cookies = Request({**scope, "type": "http"}).cookies
            known = _query_token(scope) or cookies.get(COOKIE, "")
            if not hmac.compare_digest(known.encode(), self._token.encode()):
                return "The token is missing or wrong: open the address that groma live printed."
        return ""


def _name_of(host: str) -> str:
    """Return the name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def _query_token(scope: Scope) -> str:
    return Request({**scope, "type": "http"}).query_params.get("token", "")


async def _in_thread(call: Callable[..., dict[str, Any]], *args: object) -> dict[str, Any]:
    """Run a call in its own daemon thread and await it. It may take minutes; in the event loop's pool it
    would block other pages and the shutdown of the server."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[dict[str, Any]] = loop.create_future()

    def settle(answer: dict[str, Any] | None, error: Exception | None) -> None:
        if done.done():  # the page was closed in the meantime
            return
        if answer is not None:
            done.set_result(answer)
        elif error is not None:
            done.set_exception(error)

    def run() -> None:
        answer, failure = None, None
        try:
            answer = call(*args)
        except Exception as error:
            failure = error
        with suppress(RuntimeError):  # the server has shut down
            loop.call_soon_threadsafe(settle, answer, failure)

    threading.Thread(target=run, name="groma_live_action", daemon=True).start()
    return await done


class _Page:
    """One open page."""

    def __init__(self, session: LiveSession, socket: WebSocket) -> None:
        self._session, self._socket = session, socket
        self._name = secrets.token_hex(8)
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._space = False
        self._sent = -1
        """Number of the frame that the page has."""
        self._sending = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def _on_change(self) -> None:
        with suppress(RuntimeError):  # the server has shut down
            self._loop.call_soon_threadsafe(self._changed.set)

    async def run(self) -> None:
        """Serve the page until it is closed."""
        await self._socket.accept()
        self._session.add_page(self._on_change)
        frames = asyncio.create_task(self._send_frames())
        try:
            while True:
                text = await self._socket.receive_text()
                self._take(text)
        except (WebSocketDisconnect, RuntimeError, KeyError):
            pass  # closed, or binary, which our page never sends
        finally:
            self._session.remove_page(self._on_change)
            for task in (frames, *self._tasks):
                task.cancel()

    def _take(self, text: str) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            return
        if message.get("do") == "next":
            self._space = message.get("space") is True
            self._session.set_space_view(self._on_change, self._space)
            if message.get("anew") is True:
                self._sent = -1
            self._wanted.set()
            return
        task = asyncio.create_task(self._do(message, len(self._tasks) >= MAX_ACTIONS))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, message: dict[str, Any], busy: bool) -> None:
        try:
            if busy:
                raise ValueError("This page asked for many things that are still under way; wait for them.")
            answer = await _in_thread(self._session.do, self._name, message)
        except Exception as error:  # whatever the error, the page gets a sentence
            answer = {"error": sentence(error)}
        await self._send({"answer": answer, "to": message.get("id")})

    async def _send_frames(self) -> None:
        try:
            while True:
                await self._wanted.wait()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), REST_SECONDS)
                self._changed.clear()
                self._wanted.clear()
                document, parts = await asyncio.to_thread(self._frame)
                await self._send(document, *parts)
        except Exception as error:  # the page sees a closed connection and reconnects
            print(f"groma live: a frame could not be sent: {sentence(error)}", file=sys.stderr, flush=True)
            with suppress(WebSocketDisconnect, RuntimeError):
                await self._socket.close(1011)

    def _frame(self) -> tuple[dict[str, Any], list[bytes]]:
        """Encode the state, with the picture if the page has another one, and the points if it wants them."""
        shown = self._session.newest
        state = self._session.state(shown)
        document: dict[str, Any] = {"state": state}
        if shown is None or shown.number == self._sent:
            return document, []
        self._sent = shown.number
        parts = [self._session.picture(shown)]
        space = self._session.space(shown) if self._space else None
        if space is not None:
            document["space"] = space[0]
            parts.append(space[1])
        return document, parts

    async def _send(self, document: dict[str, Any], *parts: bytes) -> None:
        text = json.dumps({**document, "parts": [len(part) for part in parts]}).encode()
        async with self._sending:
            with suppress(WebSocketDisconnect, RuntimeError):
                await self._socket.send_bytes(b"".join([struct.pack(">I", len(text)), text, *parts]))
