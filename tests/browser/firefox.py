"""Debian's Firefox without a window, driven over WebDriver BiDi, the protocol that it speaks itself.

Playwright drives only a Firefox of its own build. The protocol: https://w3c.github.io/webdriver-bidi/
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from syncapp.dev.processes import Process
from tests.support.web_clients import wait_until

FIREFOX = shutil.which("firefox-esr")
ANSWER_WITHIN_S = 120
PREFERENCES: dict[str, str | int | bool] = {
    # Every host except this one is behind a proxy that does not exist: whatever Firefox asks for stays here.
    "network.proxy.type": 1,
    "network.proxy.socks": "127.0.0.1",
    "network.proxy.socks_port": 9,
    "network.proxy.socks_remote_dns": True,
    "network.proxy.failover_direct": False,
    # Without these it would ask for updates and lists, and report.
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "browser.startup.page": 0,  # an empty tab
}
_CALL = "async (values) => JSON.stringify(await ({})(...JSON.parse(values))) ?? 'null'"


class Tab:
    """One tab; `Firefox.person` opens them."""

    def __init__(self, firefox: Firefox, context: str) -> None:
        self._firefox, self._context = firefox, context

    def call(self, function: str, *values: Any) -> Any:
        """Call a JavaScript function with JSON values in the page; return what it returns, or what its promise gives.

        Raises `RuntimeError` if it throws.
        """
        call: dict[str, Any] = {
            "functionDeclaration": _CALL.format(function),
            "arguments": [{"type": "string", "value": json.dumps(values)}],
            "target": {"context": self._context},
        }
        answer = self._firefox.send("script.callFunction", **call, awaitPromise=True)
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    def wait_for(self, function: str, *values: Any) -> None:
        """Wait until a function returns something true."""
        wait_until(lambda: self.call(function, *values))

    def complaints(self) -> list[str]:
        """Return all errors so far: in the console, uncaught, missing files, violations of the content policy."""
        self.call("() => null")  # the events of what came before arrive before the answer
        return self._firefox.complaints[self._context]

    def close(self) -> None:
        """Close the tab, as a person does."""
        self._firefox.send("browsingContext.close", context=self._context)


class Firefox:
    """A Firefox with a profile in `directory`. A context manager ends it; whoever made the directory deletes it."""

    def __init__(self, program: str, directory: Path) -> None:
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
        (directory / "user.js").write_text("".join(lines))
        command = [program, "--headless", "--no-remote", "--profile", str(directory), "--remote-debugging-port", "0"]
        # It keeps caches in the home directory. The second variable makes `services.settings.server` count.
        env = {**os.environ, "HOME": str(directory), "MOZ_REMOTE_SETTINGS_DEVTOOLS": "1"}
        output = directory / "output.log"
        self._process = Process("Firefox", command, directory=directory, output=output, env=env)
        self.complaints: dict[str, list[str]] = defaultdict(list)
        """What went wrong in each tab, by its context's id."""
        self._last_id = 0

    def __enter__(self) -> Firefox:
        with ExitStack() as stack:
            stack.callback(self._process.stop)
            self._process.spawn()
            wait_until(lambda: self._address() or not self._process.alive, ANSWER_WITHIN_S)
            assert self._address(), self._process.output()
            self._socket = stack.enter_context(connect(f"{self._address()}/session", max_size=None, proxy=None))
            self.send("session.new", capabilities={})
            self.send("session.subscribe", events=["log.entryAdded", "network.responseCompleted", "network.fetchError"])
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    @contextmanager
    def person(self) -> Iterator[Callable[[str], Tab]]:
        """Give a function that opens a loaded tab. Its tabs share storage and locks with each other only."""
        person = self.send("browser.createUserContext")["userContext"]

        def open_tab(url: str) -> Tab:
            context = self.send("browsingContext.create", type="tab", userContext=person)["context"]
            self.send("browsingContext.navigate", context=context, url=url, wait="complete")
            return Tab(self, context)

        yield open_tab
        self.send("browser.removeUserContext", userContext=person)  # closes the tabs

    def send(self, method: str, **params: Any) -> Any:
        """Send a command and return its result. Raises `RuntimeError` with Firefox's message if it fails."""
        self._last_id += 1
        self._socket.send(json.dumps({"id": self._last_id, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=ANSWER_WITHIN_S))
            if message["type"] == "event":
                self._note(message["method"], message["params"])
            elif message["type"] == "error":
                raise RuntimeError(f"{method}: {message['error']}: {message['message']}")
            else:
                return message["result"]

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "log.entryAdded":
            if params["level"] == "error":
                self.complaints[params["source"].get("context", "")].append(params["text"])
        elif params["request"]["destination"]:  # a page, script, style or image; a script checks what it fetches
            why = params["errorText"] if event == "network.fetchError" else params["response"]["status"]
            if isinstance(why, str) or why >= 400:
                self.complaints[params["context"] or ""].append(f"{why} for {params['request']['url']}")

    def _address(self) -> str:
        found = re.search(r"WebDriver BiDi listening on (\S+)\n", self._process.output())
        return found[1] if found else ""
