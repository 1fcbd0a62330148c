"""One Synapse on PostgreSQL and one rollcall on RabbitMQ, started one by one, with users by the hundred."""

import asyncio
import json
from pathlib import Path

import aiohttp
import psycopg2

from broker import Broker
from children import make_certificate
from homeserver import Database, Homeserver
from owner import Owner
from postgres import Postgres
from rollcall import Rollcall
from wire import SEND

_AT_ONCE = 4
# What the addresses of peers begin with.
PEERS = "127.0.1."


class MeasuringBed(Owner):
    """`async with`: nothing is left afterwards."""

    def __init__(self, binary: Path):
        self._binary = binary

    async def set_up(self):
        peers = [f"{PEERS}{n}" for n in range(1, 255)]
        self.certificate = make_certificate(self.folder, ["127.0.0.1", *peers])

    async def start_rollcall_among_peers(self, extra: str):
        """It finds peers as it would anywhere: by name, TLS and certificate. Synapse looks at no certificate."""
        chain, _ = self.certificate
        found = f'federation.allow_private = ["127.0.0.0/8"]\nfederation.extra_roots = ["{chain}"]\n'
        await self.start_rollcall({}, found + extra)

    async def start_rollcall(self, peers: dict[str, str], extra: str = "", certificate=None):
        """With the defaults, but for `extra`."""
        self.broker = await Broker.start()
        self.own(self.broker.stop)
        where = self.folder / "rollcall"
        self.rollcall = Rollcall(self._binary, where, "127.0.0.3", self.broker.url, self.http, certificate)
        self.rollcall.configure(peers, extra)
        await self.start(self.rollcall)

    async def start_synapse(self, on_postgres: bool = True):
        database = await self._database() if on_postgres else None
        self.synapse = Homeserver(self.folder / "synapse", "127.0.0.1", self.certificate, database)
        await self.start(self.synapse)

    async def _database(self) -> Database:
        self.postgres = Postgres(self.folder / "postgres")
        await self.postgres.start(self.folder / "postgres.log")
        self.own(self.postgres.stop)
        self.postgres.create("synapse")
        return Database.postgres(self.postgres.port, "synapse")

    def stored(self) -> list[tuple[str, tuple]]:
        """What Synapse's PostgreSQL holds of everybody's presence."""
        where = {"host": "127.0.0.1", "port": self.postgres.port, "user": "postgres", "dbname": "synapse"}
        with psycopg2.connect(**where) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT user_id, state, status_msg FROM presence_stream")
            return [(user, (state, message)) for user, state, message in cursor]

    async def register(self, count: int) -> list["Putter"]:
        """So many users of Synapse."""
        return await self._few_at_once(self._register(f"user{n}") for n in range(count))

    async def make_room(self, putters: list["Putter"]) -> str:
        """A public room of all of them."""
        room = (await putters[0].ask("POST", "/_matrix/client/v3/createRoom", {"preset": "public_chat"}))["room_id"]
        await self._few_at_once(putter.ask("POST", f"/_matrix/client/v3/join/{room}", {}) for putter in putters[1:])
        return room

    async def send(self, server, voice, transaction: str, edus: list, pdus: list = ()):
        """A signed transaction to `server`, which takes it."""
        content = voice.transaction(edus, pdus)
        status, answer = await voice.ask(self.http, server.url, server.name, "PUT", f"{SEND}{transaction}", content)
        assert status == 200, (status, answer)

    async def _register(self, name: str) -> "Putter":
        content = {"username": name, "password": "password", "auth": {"type": "m.login.dummy"}}
        async with self.http.post(f"{self.synapse.url}/_matrix/client/v3/register", json=content) as answer:
            assert answer.status == 200, await answer.text()
            registered = await answer.json()
        return Putter(self.http, self.synapse.url, registered["user_id"], registered["access_token"])

    @staticmethod
    async def _few_at_once(jobs) -> list:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(job):
            async with gate:
                return await job

        return await asyncio.gather(*(one(job) for job in jobs))


class Putter:
    """A user of whichever server who does little more than to say how they are."""

    def __init__(self, http: aiohttp.ClientSession, url: str, user: str, token: str):
        self.id = user
        self._http, self._url, self._headers = http, url, {"Authorization": f"Bearer {token}"}
        self._turn = asyncio.Lock()

    @classmethod
    def at_rollcall(cls, bed: MeasuringBed, name: str) -> "Putter":
        user = f"@{name}:{bed.rollcall.name}"
        return cls(bed.http, bed.rollcall.url, user, f"{user}|DEVICE")

    async def set(self, presence: str, message: str):
        """Waits for the one before, so that they take effect in order."""
        path = f"/_matrix/client/v3/presence/{self.id}/status"
        async with self._turn:
            await self.ask("PUT", path, {"presence": presence, "status_msg": message})

    async def ask(self, method: str, path: str, content=None) -> dict:
        async with self._http.request(method, self._url + path, headers=self._headers, json=content) as answer:
            text = await answer.text()
            assert answer.status == 200, f"{method} {path}: {answer.status} {text}"
            return json.loads(text)
