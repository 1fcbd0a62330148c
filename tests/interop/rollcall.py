"""rollcall as its operators run it: a configuration file, a broker, loopback; and clients of it."""

import asyncio
import json
from pathlib import Path

import aiohttp

from children import START_PATIENCE, Child, free_port, until, url
from keys import Voice


class Rollcall:
    """One process with all roles. With a certificate its edge is found under its name, else in plain text beside it."""

    def __init__(
        self, binary: Path, folder: Path, address: str, broker: str, http: aiohttp.ClientSession, certificate=None
    ):
        folder.mkdir()
        self.folder = folder
        self.name = f"{address}:{free_port(address)}"
        self._edge = self.name if certificate else f"{address}:{free_port(address)}"
        self._certificate = certificate
        self._ops = (address, free_port(address))
        self._binary, self._broker, self._http = binary, broker, http
        self._child = None

    @property
    def url(self) -> str:
        return f"{'https' if self._certificate else 'http'}://{self._edge}"

    @property
    def pid(self) -> int:
        return self._child.pid

    def voice(self) -> Voice:
        """Its own, once it has started and so has a key."""
        return Voice.from_file(self.name, self.folder / "signing.key")

    def configure(self, peers: dict[str, str], extra: str = ""):
        """`peers` are server names and base URLs."""
        tls = ""
        if self._certificate:
            chain, key = self._certificate
            tls = f'edge.tls.cert = "{chain}"\nedge.tls.key = "{key}"'
        resolve = ", ".join(f'"{name}" = "{url}"' for name, url in peers.items())
        (self.folder / "rollcall.toml").write_text(f"""
server_name = "{self.name}"
data_dir = "{self.folder}"
bus.url = "{self._broker}"
edge.listen = "{self._edge}"
{tls}
ops.listen = "{self._ops[0]}:{self._ops[1]}"
federation.resolve = {{ {resolve} }}
{extra}
""")

    async def start(self):
        command = [self._binary, "serve", "--config", self.folder / "rollcall.toml"]
        # Variables that begin with ROLLCALL_ would be taken for configuration.
        self._child = Child(command, self.folder / "log", env={})
        await until(self._is_ready, lambda: f"rollcall is ready:\n{self._child.last_words()}", START_PATIENCE)

    async def stop(self):
        await self._child.terminate()

    def kill(self):
        self._child.kill()

    def last_words(self) -> str:
        return self._child.last_words()

    def person(self, name: str) -> "Person":
        return Person(self._http, self.url, f"@{name}:{self.name}")

    async def _is_ready(self) -> bool:
        assert self._child.running, f"rollcall has ended:\n{self._child.last_words()}"
        try:
            async with self._http.get(f"{url(self._ops)}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


class Person:
    """A user with one device."""

    def __init__(self, http: aiohttp.ClientSession, base: str, user: str):
        self.id = user
        self._http, self._base = http, base
        self._headers = {"Authorization": f"Bearer {user}|DEVICE"}

    async def set(self, presence: str, message: str):
        path = f"/_matrix/client/v3/presence/{self.id}/status"
        await self._ask("PUT", path, {"presence": presence, "status_msg": message})

    async def list(self, *users: str):
        """Adds them to the presence list."""
        await self._ask("POST", f"/_matrix/client/v3/presence/list/{self.id}", {"invite": users})

    async def poll(self, lease_ms: int = 120_000):
        """Cares about the list for so long."""
        await self._ask("PUT", f"/_rollcall/v1/users/{self.id}/poll/DEVICE", {"lease_ms": lease_ms})

    async def leave(self):
        """Cares no longer."""
        await self._ask("DELETE", f"/_rollcall/v1/users/{self.id}/poll/DEVICE")

    async def listed(self) -> dict[str, dict]:
        """The list's entries by user."""
        entries = await self._ask("GET", f"/_matrix/client/v3/presence/list/{self.id}")
        return {entry["user_id"]: entry for entry in entries}

    async def lists(self, user: str, presence: str, message: str | None) -> dict:
        """Waits until the list shows this; the entry. Reads it no more often than the edge lets anybody."""
        entry = {}

        async def check():
            nonlocal entry
            entry = (await self.listed()).get(user, {})
            return _shows(entry, presence, message)

        await until(check, lambda: f"the list of {self.id} shows {user} {presence} {message!r}, not {entry}", every=0.1)
        return entry

    def stream(self) -> "Stream":
        return Stream(self._http, self._base, self.id)

    async def _ask(self, method: str, path: str, content=None):
        async with self._http.request(method, self._base + path, headers=self._headers, json=content) as answer:
            text = await answer.text()
            assert answer.status == 200, f"{method} {path}: {answer.status} {text}"
            return json.loads(text)


class Stream:
    """Server-sent events of one user, read all the time: `async with`."""

    def __init__(self, http: aiohttp.ClientSession, base: str, user: str):
        self._ask = lambda: http.get(
            f"{base}/_rollcall/v1/users/{user}/stream",
            headers={"Authorization": f"Bearer {user}|STREAM"},
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=1 << 20,
        )
        self._user = user
        self._begun = asyncio.Event()
        self.heard: dict[str, dict] = {}

    async def __aenter__(self):
        self._reading = asyncio.create_task(self._read())
        await until(self._begun.is_set, "the stream begins")
        return self

    async def __aexit__(self, *_):
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def sees(self, user: str, presence: str, message: str | None) -> dict:
        """Waits until it has said this of `user` last; the content."""

        def last():
            return self.heard.get(user, {})

        def failure():
            return f"the stream of {self._user} shows {user} {presence} {message!r}, not {last()}"

        await until(lambda: _shows(last(), presence, message), failure)
        return last()

    async def _read(self):
        async with self._ask() as answer:
            assert answer.status == 200, answer.status
            async for line in answer.content:
                if line.startswith(b"data: "):
                    self._begun.set()
                    for event in json.loads(line[6:])["events"]:
                        self.heard[event["sender"]] = event["content"]


def _shows(seen: dict, presence: str, message: str | None) -> bool:
    return (seen.get("presence"), seen.get("status_msg")) == (presence, message)
