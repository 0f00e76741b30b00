"""A headless Chromium for the tests of pages, where there is one. It is driven by the DevTools protocol through a pipe, and needs no package.

https://chromedevtools.github.io/devtools-protocol/: JSON messages that end in a NUL; the browser reads them from descriptor 3 and answers on 4.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", "--no-first-run")
LIMIT_S = 60
PHONE = 600  # narrower windows are a phone's


class Browser:
    """One page. messages: what it has complained of; schemes: of all that it has asked for."""

    def __init__(self, to: int, back: int):
        self._to, self._back, self._pending, self._number, self._session = to, back, b"", 0, None
        self.messages: list[str] = []
        self.schemes: set[str] = set()
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + LIMIT_S
        while b"\0" not in self._pending:
            assert select.select([self._back], [], [], max(0.0, end - time.monotonic()))[0], "the browser does not answer"
            part = os.read(self._back, 1 << 20)
            assert part, "the browser has ended"
            self._pending += part
        message, self._pending = self._pending.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        what, about = event.get("method"), event.get("params", {})
        if what == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(about["exceptionDetails"]))
        elif what == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.messages.append(json.dumps(about["args"]))
        elif what == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.messages.append(about["entry"]["text"])
        elif what == "Network.requestWillBeSent":
            self.schemes.add(about["request"]["url"].split(":", 1)[0])
        elif what == "Page.loadEventFired":
            self._loaded = True

    def look(self, page: Path, width: int = 1280, height: int = 844, dark: bool = False) -> None:
        """Open a page in a window of that size and in those colours."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < PHONE)
        self._loaded = False
        self.call("Page.navigate", url=page.as_uri())
        while not self._loaded:
            self._note(self._next())

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def hover(self, selector: str, number: int) -> None:
        """Move the mouse to the middle of an element: the n-th that the selector finds."""
        element = f"document.querySelectorAll({json.dumps(selector)})[{number}]"
        self.run(f"{element}.scrollIntoView({{block: 'center'}})")
        x, y = self.run(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({element}.getBoundingClientRect())")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, pointerType="mouse")

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser whose profile is in that folder; skips where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: pages are not opened in a browser")
    (read_end, to), (back, write_end) = os.pipe(), os.pipe()
    line = f'exec "$0" "$@" 3<&{read_end} 4>&{write_end}'
    command = ["bash", "-c", line, CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"]
    process = subprocess.Popen(command, pass_fds=(read_end, write_end), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(read_end)
    os.close(write_end)
    try:
        found = Browser(to, back)
        yield found
        found.call("Browser.close")
        process.wait(LIMIT_S)
    finally:
        os.close(to)
        os.close(back)
        if process.poll() is None:
            process.kill()
            process.wait()
