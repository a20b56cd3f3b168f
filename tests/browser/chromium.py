"""Drives Debian's chromium by its DevTools protocol: opens a file, evaluates, takes pictures."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

OPTIONS = (  # noqa: SIM905  (a line of options reads better)
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-port=0"
).split()


def find() -> str | None:
    return shutil.which("chromium")


class Page:
    def __init__(self, socket) -> None:
        self.socket = socket
        self.number = 0
        self.events: list[dict] = []

    def call(self, method: str, **params: object) -> dict:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def evaluate(self, expression: str) -> object:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path: Path) -> float:
        """Seconds until the page says it is ready."""
        self.call("Page.navigate", url="about:blank")
        begun = time.perf_counter()
        self.call("Page.navigate", url=path.as_uri())
        while (
            self.evaluate(
                f"location.href === {json.dumps(path.as_uri())} && document.documentElement?.dataset.ready"
            )
            != "yes"
        ):
            assert time.perf_counter() - begun < 60, self.troubles()
            time.sleep(0.01)
        self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return time.perf_counter() - begun

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.evaluate("new Promise((done) => setTimeout(done, 200))")

    def picture(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def mouse(self, kind: str, x: float, y: float) -> None:
        buttons = {"mousePressed": ("left", 1), "mouseReleased": ("left", 0)}.get(kind, ("none", 0))
        self.call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button=buttons[0],
            buttons=buttons[1],
            clickCount=int(kind != "mouseMoved"),
        )

    def troubles(self) -> list[str]:
        """Errors of scripts, refusals of the content policy, and every request that is no file of ours."""
        found = [
            json.dumps(e["params"])
            for e in self.events
            if e.get("method") in {"Runtime.exceptionThrown", "Log.entryAdded"}
        ]
        urls = [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]
        return found + [url for url in urls if not url.startswith("file://")]


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    from websockets.sync.client import connect

    program = find()
    assert program
    process = subprocess.Popen(
        [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = _port(profile / "DevToolsActivePort")
        with urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            (target, *_) = [one for one in json.load(answer) if one["type"] == "page"]
        with connect(target["webSocketDebuggerUrl"], max_size=1 << 28, proxy=None) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            yield page
    finally:
        process.terminate()
        process.wait(20)


def _port(file: Path) -> int:
    for _ in range(600):
        if file.exists() and "\n" in file.read_text():
            return int(file.read_text().split()[0])
        time.sleep(0.05)
    raise AssertionError("chromium does not start")
