"""A headless Chromium driven over its debugging pipe: no driver and no websocket needed."""

import itertools
import json
import os
import pathlib
import shutil
import subprocess
import time
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Page:
    """One page; `evaluate` runs JavaScript in it and awaits promises."""

    def __init__(self, profile: pathlib.Path):
        path = next((found for name in NAMES if (found := shutil.which(name))), None)
        if path is None:
            pytest.skip("no Chromium here: install the package `chromium` to test the page")
        into, self._write = os.pipe()
        self._read, out = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        flags = (
            "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --remote-debugging-pipe --mute-audio "
            f"--no-first-run --autoplay-policy=no-user-gesture-required --user-data-dir={profile}"
        )
        shell = f'exec "{path}" {flags} about:blank 3<&{into} 4>&{out}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell], pass_fds=(into, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(into)
        os.close(out)
        self._numbers, self._buffer, self._session = itertools.count(1), b"", None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")
        self.size(1100, 900)

    def size(self, width: int, height: int, mobile: bool = False) -> None:
        """Sets the size of the window, CSS pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._write)
        os.close(self._read)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                part = os.read(self._read, 1 << 20)
                if not part:
                    raise RuntimeError("Chromium ended")
                self._buffer += part
            line, _, self._buffer = self._buffer.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, path: pathlib.Path) -> None:
        """Opens a file from disk and waits until it is loaded."""
        self._call("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """The value of an expression; errors in the page are raised."""
        out = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in out:
            raise RuntimeError(out["exceptionDetails"].get("exception", {}).get("description", str(out)))
        return out["result"].get("value")

    def wait(self, condition: str, seconds: float = 30.0) -> None:
        """Waits until an expression is true."""
        end = time.time() + seconds
        while not self.evaluate(condition):
            if time.time() > end:
                raise TimeoutError(f"{condition} stayed false for {seconds} s")
            time.sleep(0.05)

    def click(self, x: float, y: float) -> None:
        """A click of the left button at page coordinates."""
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, key: str) -> None:
        """Presses and releases a key (`" "`, `"ArrowRight"`, `"."`)."""
        text = {"text": key} if len(key) == 1 else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, path: pathlib.Path) -> None:
        """Saves what is visible as PNG."""
        import base64

        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))
