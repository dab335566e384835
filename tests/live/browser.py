"""A headless Chromium driven over its DevTools protocol, with the websockets library alone."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import ClientConnection, connect

PATIENCE = 60.0
"""Seconds to wait for anything on a busy machine."""
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """The browser's executable; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One headless browser; a context manager."""

    def __init__(self, executable: str, folder: Path) -> None:
        """folder: for its profile."""
        self._folder = folder
        options = [
            "--headless=new",
            "--no-sandbox",  # it runs as root in containers, and opens pages of these tests alone
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-extensions",
            "--hide-scrollbars",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
        ]
        self._process = subprocess.Popen(
            [executable, *options, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._port = self._wait_for_port()

    def open(self, address: str, width: int = 1400, height: int = 900, dark: bool = False) -> Tab:
        """A new tab on an address."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            target = json.load(answer)
        tab = Tab(target["webSocketDebuggerUrl"])
        tab.resize(width, height, dark)
        tab.go(address)
        return tab

    def _wait_for_port(self) -> int:
        end = time.monotonic() + PATIENCE
        file = self._folder / "DevToolsActivePort"
        while time.monotonic() < end:
            assert self._process.poll() is None, f"the browser ended with {self._process.returncode}"
            if file.exists() and (lines := file.read_text().splitlines()):
                return int(lines[0])
            time.sleep(0.05)
        raise AssertionError("the browser did not start")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Tab:
    """One page."""

    def __init__(self, address: str) -> None:
        self._stack = ExitStack()
        self._socket: ClientConnection = self._stack.enter_context(
            connect(address, max_size=None, compression=None)
        )
        self._numbers = itertools.count(1)
        self.errors: list[str] = []
        """What the page's scripts and the content policy complained about."""
        self.call("Runtime.enable")
        self.call("Log.enable")
        self.call("Page.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(
                    str(message["params"]["exceptionDetails"].get("exception", {}).get("description"))
                )
            elif message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.errors.append(message["params"]["entry"]["text"])
            elif message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return dict(message["result"])

    def go(self, address: str) -> None:
        """Open an address."""
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && !!document.getElementById('goals')", address)

    def resize(self, width: int, height: int, dark: bool) -> None:
        """Give the page a size in pixels and a colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, (script, result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, script: str, what: str = "") -> Any:
        """The value of an expression once it is true."""
        end = time.monotonic() + PATIENCE
        while True:
            value = self.run(script)
            if value:
                return value
            assert time.monotonic() < end, f"{what or script} did not happen; the page says: {self.texts()}"
            time.sleep(0.05)

    def texts(self) -> str:
        """All words on the page."""
        return str(self.run("document.body?.innerText"))

    def text(self, selector: str) -> str:
        """The words of one element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        self.mouse([(x, y)])

    def on_picture(self, *points: tuple[float, float]) -> None:
        """Click a pixel of the picture, or drag from the first to the last of several."""
        self.run("document.getElementById('stage').scrollIntoView({block: 'center'})")
        script = (
            "(() => { const m = document.getElementById('overlay').getScreenCTM();"
            f" return {json.dumps(points)}.map(([x, y]) => {{"
            " const p = new DOMPoint(x, y).matrixTransform(m); return [p.x, p.y]; }); })()"
        )
        self.mouse(self.run(script))

    def mouse(self, points: list[Any]) -> None:
        """Press at the first point of the screen, move over the others, release at the last."""
        x, y = points[0]
        send = "Input.dispatchMouseEvent"
        self.call(send, type="mouseMoved", x=x, y=y)
        self.call(send, type="mousePressed", x=x, y=y, button="left", buttons=1, clickCount=1)
        for x, y in points[1:]:
            self.call(send, type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self.call(send, type="mouseReleased", x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def key(self, name: str, code: int = 0, text: str = "") -> None:
        """Press and release a key. name: as `KeyboardEvent.key` has it; code: of Windows; text: it writes."""
        more = {"key": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **more, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **more)

    def screenshot(self, path: Path) -> None:
        """Write what the page looks like as JPEG, with what lies below the window."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        shown = {"clip": {**size, "scale": 1}, "captureBeyondViewport": True}
        data = self.call("Page.captureScreenshot", format="jpeg", quality=85, **shown)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """Close the tab."""
        self.call("Page.close")
        self._stack.close()
