"""A page in headless Chromium, by the DevTools protocol over a pipe: what it asks for, says and looks like."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 60.0  # seconds for an answer
PHONE, DESK = 390, 1280  # pixels wide
FACTS = """(() => {
  const wide = [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll table') && !e.matches('.skip'))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.tagName + ' ' + e.textContent.slice(0, 40));
  const images = [...document.images];
  return {
    width: document.documentElement.scrollWidth, window: innerWidth, wide,
    images: images.length, broken: images.filter(i => !i.complete || !i.naturalWidth).length,
    nameless: images.filter(i => !i.alt.trim()).length,
    scripts: document.scripts.length, headings: [...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1]),
    ground: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    unreachable: [...document.querySelectorAll('.scroll')].filter(e => e.tabIndex !== 0).length,
    text: document.body.innerText, title: document.title,
  };
})()"""


class Browser:
    """One page; its messages are JSON between NULs on file descriptors 3 (to it) and 4 (from it)."""

    def __init__(self, folder):
        to, self.write = os.pipe()
        self.read, back = os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --remote-debugging-pipe"
        command = f'exec "{CHROMIUM}" {flags} --user-data-dir="{folder}/profile" 3<&{to} 4>&{back}'
        self.process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(to, back), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to)
        os.close(back)
        self.left, self.number, self.session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """The answer to a command; what happens meanwhile goes to `events`."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        os.write(self.write, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while (told := self.next()).get("id") != self.number:
            self.events.append(told)
        assert "error" not in told, (method, told)
        return told["result"]

    def next(self):
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.left:
            ready, _, _ = select.select([self.read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            some = os.read(self.read, 1 << 20)
            assert some, "Chromium has ended"
            self.left += some
        message, _, self.left = self.left.partition(b"\0")
        return json.loads(message)

    def open(self, path, *, width, dark=False):
        """The page's FACTS, with what it asked for and complained of, in a window of this width."""
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="screen", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.next())
        facts = self.call("Runtime.evaluate", expression=FACTS, returnByValue=True)["result"]["value"]
        told = {method: [event["params"] for event in self.events if event.get("method") == method] for method in COMPLAINTS}
        asked = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return facts | {"complaints": [some for some in told.values() if some], "asked": asked}

    def picture(self, *, whole=True):
        """The page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])


COMPLAINTS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")


@contextmanager
def browser(folder):
    """Chromium, which ends with the block. folder: for its profile."""
    page = Browser(folder)
    try:
        yield page
    finally:
        page.process.kill()
        page.process.wait()
        os.close(page.read)
        os.close(page.write)
