"""Run the page's server until it is interrupted."""

from __future__ import annotations

import errno
import socket
from urllib.parse import quote

import uvicorn

from groma_ros.live.server import MAX_MESSAGE, make_app
from groma_ros.live.session import LiveSession

CLOSE_SECONDS = 2
"""Time for open pages to notice the shutdown."""


class PageServer:
    """Serves the page of a session on one address."""

    def __init__(self, session: LiveSession, host: str, port: int, token: str = "") -> None:
        """port: 0 for a free one. Raises OSError with a sentence if the address cannot be used."""
        self._session = session
        self._socket = _listen(host, port)
        name = f"[{host}]" if ":" in host else host
        self.address = f"http://{name}:{self._socket.getsockname()[1]}/" + (
            f"?token={quote(token, safe='')}" if token else ""
        )
        """URL of the page, including the token."""
        config = uvicorn.Config(
            make_app(session, token),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws_max_size=MAX_MESSAGE,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until Ctrl-C or `stop`, then close the session."""
        try:
            self._session.start()
            self._server.run(sockets=[self._socket])
        finally:
            try:
                self._session.close()
            finally:
                self._socket.close()

    def stop(self) -> None:
        """Make `run` return; call it from another thread."""
        self._server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        what = (
            "is in use; name another one with --port" if error.errno == errno.EADDRINUSE else error.strerror
        )
        raise OSError(f"The page cannot listen on {host}, port {port}: {what}.") from error
    return listening
