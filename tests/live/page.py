"""The page without a browser: the messages that its script sends and gets, and a server to send them to."""

from __future__ import annotations

import itertools
import json
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from websockets.sync.client import connect

from groma_ros.live.engine import Engine
from groma_ros.live.serve import PageServer
from groma_ros.live.session import LiveSession

PATIENCE = 60.0
"""Seconds to wait for anything on a busy machine."""


class Serving:
    """A session behind its server, in a thread of this process; a context manager."""

    def __init__(self, engine: Engine, folder: Any, token: str = "") -> None:
        self.session = LiveSession(engine, folder)
        self._server = PageServer(self.session, "127.0.0.1", 0, token)
        self.address = self._server.address
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.address.split(":")[2].split("/")[0])

    def page(self, **options: Any) -> Page:
        """A page on it. options: of `websockets`."""
        return Page(f"ws://127.0.0.1:{self.port}/live", **options)

    def close(self) -> None:
        self._server.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def __enter__(self) -> Serving:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Page:
    """One open page; a context manager."""

    def __init__(self, address: str, **options: Any) -> None:
        self._stack = ExitStack()
        self._socket = self._stack.enter_context(connect(address, max_size=None, compression=None, **options))
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._waiting = False
        self.state: dict[str, Any] = {}
        self.picture: NDArray[Any] | None = None
        """The newest picture, uint8 HxWx3 RGB."""
        self.space: tuple[dict[str, Any], bytes] | None = None

    def next(self, space: bool = False, anew: bool = False) -> dict[str, Any]:
        """Ask for the next frame and wait for it; the state."""
        self.send({"do": "next", "space": space, "anew": anew})
        self._waiting = True
        while self._waiting:
            self._take()
        return self.state

    def until(
        self, done: Callable[[dict[str, Any]], Any], what: str = "", space: bool = False
    ) -> dict[str, Any]:
        """Ask for frames until the state is as wanted; the state."""
        end = time.monotonic() + PATIENCE
        while not done(self.next(space)):
            assert time.monotonic() < end, f"{what or 'it'} did not happen; the page has {self.state}"
        return self.state

    def do(self, action: str, **values: Any) -> dict[str, Any]:
        """The answer to an action."""
        number = next(self._numbers)
        self.send({"do": action, "id": number, **values})
        while number not in self._answers:
            self._take()
        return self._answers.pop(number)

    def goals(self, *texts: str) -> dict[str, Any]:
        """Replace the goals."""
        return self.do("goals", goals=[{"text": text} for text in texts])

    def send(self, message: Any) -> None:
        self._socket.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

    def close(self) -> None:
        self._stack.close()

    def _take(self) -> None:
        data = self._socket.recv(PATIENCE)
        assert isinstance(data, bytes)
        (size,) = struct.unpack_from(">I", data)
        document, place = json.loads(data[4 : 4 + size]), 4 + size
        parts = []
        for length in document["parts"]:
            parts.append(data[place : place + length])
            place += length
        assert place == len(data)
        if "answer" in document:
            self._answers[document["to"]] = document["answer"]
            return
        self._waiting, self.state = False, document["state"]
        if parts:
            bgr = cv2.imdecode(np.frombuffer(parts[0], np.uint8), cv2.IMREAD_COLOR)
            assert bgr is not None
            self.picture = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            self.space = (document["space"], parts[1]) if len(parts) > 1 else None

    def __enter__(self) -> Page:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
