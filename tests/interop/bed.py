"""Two Synapse homeservers and rollcall on loopback, each under a name of its own, who federate as they would anywhere.

    Synapse a, 127.0.0.1:…  ──TLS──▶  tap, 127.0.0.3:… ──▶ rollcall
    Synapse b, 127.0.0.2:…  ──TLS──▶
    rollcall  ──▶  tap  ──▶  Synapse a, Synapse b

Taps write down what passes. What rollcall says leaves it in plain text: `federation.resolve` lets an operator decide.
"""

import asyncio
import tempfile
from pathlib import Path

import aiohttp

from broker import Broker
from children import free_port, make_certificate, url
from homeserver import Homeserver
from reader import Reader
from rollcall import Person, Rollcall
from wire import Tap

# Windows and pauses are short, so that tests are.
_QUICK = """
batch.window = "500ms"
clients.window = "100ms"
clients.linger = "500ms"
federation.backoff_min = "100ms"
federation.backoff_max = "1s"
log.filter = "warn"
"""


class Bed:
    """`async with`: everything is up inside, and nothing is left afterwards."""

    def __init__(self, binary: Path):
        self._binary = binary

    async def __aenter__(self) -> "Bed":
        self._folder = tempfile.TemporaryDirectory(prefix="rollcall-interop-")
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        self._open: list = []
        try:
            await self._set_up(Path(self._folder.name))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_):
        for undo in reversed(self._open):
            done = undo()
            if asyncio.iscoroutine(done):
                await done
        await self.http.close()
        self._folder.cleanup()

    async def _set_up(self, folder: Path):
        self.certificate = certificate = make_certificate(folder, [f"127.0.0.{n}" for n in (1, 2, 3)])
        self.a = Homeserver(folder / "a", "127.0.0.1", certificate)
        self.b = Homeserver(folder / "b", "127.0.0.2", certificate)
        broker, *_ = await asyncio.gather(Broker.start(), self._start(self.a), self._start(self.b))
        self._open.append(broker.stop)
        self.rollcall = Rollcall(self._binary, folder / "rollcall", "127.0.0.3", broker.url, self.http)
        self.to_a, self.to_b = await self._tap(self.a), await self._tap(self.b)
        self.rollcall.configure({self.a.name: url(self.to_a.address), self.b.name: url(self.to_b.address)}, _QUICK)
        await self._start(self.rollcall)
        address, port = self.rollcall.name.split(":")
        self.to_rollcall = await self._listen(Tap((address, int(port)), self.rollcall.edge, certificate))

    async def _start(self, server):
        await server.start()
        self._open.append(server.kill)

    async def _tap(self, server: Homeserver) -> Tap:
        return await self._listen(Tap((server.plain[0], free_port(server.plain[0])), server.plain))

    async def _listen(self, tap: Tap) -> Tap:
        await tap.open()
        self._open.append(tap.close)
        return tap

    async def acquainted(self, server: Homeserver, reader: str, person: str) -> tuple[Reader, Person]:
        """Somebody at `server`, and somebody at rollcall who lists the former and has a session: they see each other.

        They share a room. rollcall knows no rooms, but Synapse tells servers of its users, and its users of others, by
        rooms alone. So this one is joined with rollcall's key, behind its back.
        """
        bob, alice = await Reader.register(server, reader), self.rollcall.person(person)
        self._open.append(bob.close)
        await bob.make_room()
        await self.rollcall.voice().join(self.http, server.url, server.name, bob.room, alice.id)
        await alice.list(bob.id)
        await alice.poll()
        await self._have_met(bob, alice)
        return bob, alice

    async def neighbour(self, bob: Reader, name: str) -> Reader:
        """Somebody else at the server of `bob` and in his room."""
        carol = await Reader.register(bob.homeserver, name)
        self._open.append(carol.close)
        await carol.join(bob.room)
        return carol

    async def _have_met(self, bob: Reader, alice: Person):
        await asyncio.gather(bob.set("online", "hello"), alice.set("online", "hello"))
        await asyncio.gather(alice.lists(bob.id, "online", "hello"), bob.sees(alice.id, "online", "hello"))
