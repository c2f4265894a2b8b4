"""A headless Chromium, driven by its DevTools protocol over a pipe: nothing but the standard library is needed.

https://chromedevtools.github.io/devtools-protocol: with ``--remote-debugging-pipe`` the browser reads commands on file
descriptor 3 and answers on 4, as JSON messages that end with a NUL.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)

LAUNCH = """
import fcntl, os, sys
reading, writing = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3])
os.dup2(reading, 3)
os.dup2(writing, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Puts the pipe where the browser looks for it; a shell cannot, where descriptors have two digits."""


def find_browser() -> str | None:
    """The path of an installed Chromium or Chrome."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab. Everything the page logs, throws or requests is kept in ``problems`` and ``requests``."""

    def __init__(self, program: str, seconds: float = 60) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_child, self._out = os.pipe()
        self._in, from_child = os.pipe()
        command = [program, *FLAGS, f"--user-data-dir={self._profile.name}", "--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(to_child), str(from_child), *command],
            pass_fds=(to_child, from_child),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self._seconds, self._buffer, self._number, self._session = seconds, b"", 0, None
        self.problems: list[str] = []
        self.requests: list[str] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events on the way are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self._seconds
        while True:
            answer = self._receive(end)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def open(self, path: Path, width: int = 1300, height: int = 900, scheme: str = "light") -> float:
        """Open a file in a window of that size; the seconds until its script is done and it has been laid out."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.problems.clear()
        self.requests.clear()
        started = time.monotonic()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self.run("document.documentElement?.dataset.ready") != "yes":
            if time.monotonic() - started > self._seconds:
                raise TimeoutError(f"{path} is not ready; {self.problems}")
            time.sleep(0.02)
        self.run("document.body.getBoundingClientRect().height")
        return time.monotonic() - started

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def set(self, identifier: str, value: str, event: str) -> None:
        """Give a control a value as a user would, and wait for the next drawn frame."""
        self.run(
            f"new Promise(done => {{ const e = document.getElementById({identifier!r}); e.value = {value!r};"
            f" e.dispatchEvent(new Event({event!r}, {{bubbles: true}}));"
            " requestAnimationFrame(() => requestAnimationFrame(done)); })"
        )

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """The window, or the whole page, as PNG."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        """End the browser and forget its profile."""
        try:
            session, self._session = self._session, None
            self.call("Browser.close")
            del session
        except (RuntimeError, OSError, TimeoutError, EOFError):
            self._process.kill()
        self._process.wait(timeout=20)
        os.close(self._out)
        os.close(self._in)
        self._profile.cleanup()

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError("the browser does not answer")
            piece = os.read(self._in, 1 << 20)
            if not piece:
                raise EOFError("the browser has ended")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        kind, about = event.get("method", ""), event.get("params", {})
        if kind in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled") or kind == "Log.entryAdded":
            self.problems.append(json.dumps(about)[:500])
        elif kind == "Network.requestWillBeSent" and not about["request"]["url"].startswith("data:"):
            self.requests.append(about["request"]["url"])
        elif kind == "Page.javascriptDialogOpening":
            self.problems.append(f"dialog: {about.get('message')}")
