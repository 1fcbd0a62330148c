"""Two Synapse homeservers and rollcall on loopback, each under a name of its own, who federate as they would anywhere.

    Synapse a, 127.0.0.1:…  ──TLS──▶  rollcall, 127.0.0.3:…
    Synapse b, 127.0.0.2:…  ──TLS──▶
    rollcall  ──▶  tap  ──▶  Synapse a, Synapse b

Taps write down what passes. What rollcall says leaves it in plain text: `federation.resolve` lets an operator decide.
"""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

from broker import Broker
from children import free_port, make_certificate, url
from homeserver import Homeserver
from owner import Owner
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


class Bed(Owner):
    """`async with`: everything is up inside, and nothing is left afterwards."""

    def __init__(self, binary: Path):
        self._binary = binary

    async def set_up(self):
        self.certificate = make_certificate(self.folder, [f"127.0.0.{n}" for n in (1, 2, 3)])
        self.a = Homeserver(self.folder / "a", "127.0.0.1", self.certificate)
        self.b = Homeserver(self.folder / "b", "127.0.0.2", self.certificate)
        broker, *_ = await asyncio.gather(Broker.start(), self.start(self.a), self.start(self.b))
        self.own(broker.stop)
        where = self.folder / "rollcall"
        self.rollcall = Rollcall(self._binary, where, "127.0.0.3", broker.url, self.http, self.certificate)
        self.to_a, self.to_b = await self._tap(self.a), await self._tap(self.b)
        self._through_taps()
        await self.start(self.rollcall)

    def _through_taps(self):
        self.rollcall.configure({self.a.name: url(self.to_a.address), self.b.name: url(self.to_b.address)}, _QUICK)

    @asynccontextmanager
    async def no_taps(self):
        """Meanwhile rollcall finds homeservers as it would anywhere: by name, TLS and certificate."""
        await self.rollcall.stop()
        chain, _ = self.certificate
        own = f'federation.allow_private = ["127.0.0.0/8"]\nfederation.extra_roots = ["{chain}"]\n'
        self.rollcall.configure({}, _QUICK + own)
        await self.rollcall.start()
        yield
        await self.rollcall.stop()
        self._through_taps()
        await self.rollcall.start()

    async def _tap(self, server: Homeserver) -> Tap:
        address, _ = server.plain
        return await self.listen(Tap((address, free_port(address)), server.plain))

    async def acquainted(self, server: Homeserver, reader: str, person: str) -> tuple[Reader, Person]:
        """Somebody at `server`, and somebody at rollcall who lists the former and has a session: they see each other.

        They share a room. rollcall knows no rooms, but Synapse tells servers of its users, and its users of others, by
        rooms alone. So this one is joined with rollcall's key, behind its back.
        """
        bob, alice = await Reader.register(server, reader), self.rollcall.person(person)
        self.own(bob.close)
        await bob.make_room()
        await self.rollcall.voice().join(self.http, server.url, server.name, bob.room, alice.id)
        await alice.list(bob.id)
        await alice.poll()
        await self._have_met(bob, alice)
        return bob, alice

    async def neighbour(self, bob: Reader, name: str) -> Reader:
        """Somebody else at the server of `bob` and in his room."""
        carol = await Reader.register(bob.homeserver, name)
        self.own(carol.close)
        await carol.join(bob.room)
        return carol

    async def _have_met(self, bob: Reader, alice: Person):
        await asyncio.gather(bob.set("online", "hello"), alice.set("online", "hello"))
        await asyncio.gather(alice.lists(bob.id, "online", "hello"), bob.sees(alice.id, "online", "hello"))
