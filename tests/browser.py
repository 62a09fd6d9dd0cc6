"""Drives a browser without a window: Chromium by DevTools, Firefox by Marionette.

Both protocols need nothing but the standard library: Chromium takes JSON, ended by a
zero byte, at descriptor 3 and answers at 4; Firefox takes JSON behind its length.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE = 60.0

_CHROMIUM = (
    *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"),
    *("--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "about:blank"),
)


class Chromium:
    """One page of a Chromium that cannot reach any network."""

    def __init__(self, to: int, back: int) -> None:
        """Open the page."""
        self._to, self._back = to, back
        self._rest = b""
        self._last = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **words: Any) -> dict[str, Any]:
        """Call a method of the protocol; keep the events before its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": words}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while (answer := self._receive()).get("id") != self._last:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._back, 1 << 20)
            assert more, "Chromium has ended"
            self._rest += more
        first, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(first)
        return message

    def show(
        self,
        path: Path,
        *,
        width: int = 1280,
        height: int = 900,
        theme: str = "light",
        pixels: float = 1,
    ) -> None:
        """Load a file, in a window of that size, and wait until it is painted."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=pixels,
            mobile=width < 700,
        )
        scheme = {"name": "prefers-color-scheme", "value": theme}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        self.wait_for("document.documentElement?.dataset.ready")

    def wait_for(self, expression: str) -> Any:
        """Wait until an expression is true; return its value."""
        end = time.monotonic() + PATIENCE
        while not (value := self.value(expression)):
            assert time.monotonic() < end, f"never true: {expression}\n{self.errors()}"
            self.value("new Promise((done) => setTimeout(done, 20))")
        return value

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def mouse(self, kind: str, x: float, y: float, **words: Any) -> None:
        """Send an event of the mouse: mouseMoved mousePressed mouseReleased."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **words)

    def key(self, key: str, modifiers: int = 0) -> None:
        """Press a key and let it go; modifiers: 8 is Shift."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers)

    def picture(self, *, whole: bool = True) -> bytes:
        """Return a picture of the page, as PNG."""
        words: dict[str, Any] = {"captureBeyondViewport": True} if whole else {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            words["clip"] = {**size, "x": 0, "y": 0, "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", **words)
        return base64.b64decode(shot["data"])

    def errors(self) -> list[Any]:
        """Return what the page has thrown or logged as an error."""
        return [
            event["params"]
            for event in self.events
            if event.get("method") == "Runtime.exceptionThrown"
            or (
                event.get("method") == "Log.entryAdded"
                and event["params"]["entry"]["level"] == "error"
            )
        ]

    def requests(self) -> list[str]:
        """Return all addresses that the page has asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]


@contextlib.contextmanager
def chromium() -> Iterator[Chromium]:
    """Start Chromium, and end it with all its processes."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "chromium is not installed"
    (to_read, to), (back, back_write) = os.pipe(), os.pipe()
    for low in (to_read, back_write):
        os.set_inheritable(low, True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        words = [program, *_CHROMIUM[:-1], f"--user-data-dir={home}", _CHROMIUM[-1]]
        shell = f'exec 3<&{to_read} 4>&{back_write}; exec "$@"'
        process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "bash", *words],
            env={**os.environ, "HOME": home},
            pass_fds=(to_read, back_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_read)
        os.close(back_write)
        try:
            yield Chromium(to, back)
        finally:
            os.close(to)
            os.close(back)
            _end(process)


class Firefox:
    """One page of Firefox, by Marionette."""

    def __init__(self, port: int) -> None:
        """Begin a session."""
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._rest = b""
        self._last = 0
        self._receive()  # the greeting
        self.call("WebDriver:NewSession")

    def call(self, command: str, **words: Any) -> Any:
        """Call a command; return its result."""
        self._last += 1
        text = json.dumps([0, self._last, command, words])
        self._socket.sendall(f"{len(text.encode())}:{text}".encode())
        _, number, error, result = self._receive()
        assert number == self._last
        assert error is None, f"{command}: {error}"
        return result

    def _receive(self) -> Any:
        while not (head := re.match(rb"(\d+):", self._rest)) or (
            len(self._rest) < head.end() + int(head[1])
        ):
            more = self._socket.recv(1 << 20)
            assert more, "Firefox has ended"
            self._rest += more
        end = head.end() + int(head[1])
        text, self._rest = self._rest[head.end() : end], self._rest[end:]
        return json.loads(text)

    def show(self, path: Path) -> None:
        """Load a file, and wait until it is painted."""
        self.call("WebDriver:Navigate", url=path.as_uri())
        end = time.monotonic() + PATIENCE
        while not self.value("return document.documentElement.dataset.ready"):
            title = self.value("return document.getElementById('facts').textContent")
            assert time.monotonic() < end, f"it was never painted: {title}"

    def value(self, script: str) -> Any:
        """Return what a script returns."""
        return self.call("WebDriver:ExecuteScript", script=script, args=[])["value"]

    def move(self, x: float, y: float) -> None:
        """Move the mouse."""
        step = {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 0}
        mouse = {"type": "pointer", "id": "mouse", "actions": [step]}
        self.call("WebDriver:PerformActions", actions=[mouse])

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def picture(self) -> bytes:
        """Return a picture of the page, as PNG."""
        shot = self.call("WebDriver:TakeScreenshot", full=True)
        return base64.b64decode(shot["value"])


@contextlib.contextmanager
def firefox(width: int = 1280, height: int = 900) -> Iterator[Firefox]:
    """Start Firefox with an empty profile, and end it with all its processes."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    assert program, "firefox is not installed"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        Path(home, "user.js").write_text('user_pref("marionette.port", 0);\n')
        words = [program, "--headless", "--marionette", "--profile", home]
        size = [f"--width={width}", f"--height={height}", "--no-remote"]
        process = subprocess.Popen(
            [*words, *size],
            env={**os.environ, "HOME": home, "MOZ_HEADLESS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            page = Firefox(_port(Path(home, "MarionetteActivePort"), process))
            with contextlib.closing(page):
                yield page
        finally:
            _end(process)


def _port(file: Path, process: "subprocess.Popen[bytes]") -> int:
    """Wait until Firefox has written its port."""
    end = time.monotonic() + PATIENCE
    while not (file.exists() and file.read_text().strip()):
        assert process.poll() is None, "Firefox has ended"
        assert time.monotonic() < end, "Firefox has no port"
        time.sleep(0.05)
    return int(file.read_text())


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process that leads a session, with all of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
