"""What a peer's updates cost on the way in: verified, stored, and seen by a local session that watches every user."""

import argparse
import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

from canonicaljson import encode_canonical_json
from yarl import URL

from children import free_port, until
from hosted_room import HostedRoom
from keys import Voice
from measuring_bed import MeasuringBed
from meter import Meter, idle
from peers import Peer
from wire import SEND

_PRESENCE_ONLY = {
    "room": {"rooms": []},
    "account_data": {"types": []},
    "presence": {"types": ["m.presence"], "limit": 10_000},
}
# EDUs × pushes of a transaction, and how many transactions.
_SHAPES = [(1, 1, 1500), (1, 50, 1000), (100, 50, 20)]


@dataclass
class Request:
    """A signed transaction, ready to leave."""

    path: str
    body: bytes
    authorization: str


def options(parser: argparse.ArgumentParser):
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the usual number of transactions")


async def run(binary: Path, given):
    async with MeasuringBed(binary) as bed:
        voice = Voice.invented(f"127.0.1.1:{free_port('127.0.1.1')}")
        users = [f"@user{n}:{voice.name}" for n in range(given.users)]
        peer = await bed.listen(Host(voice, bed.certificate, HostedRoom(voice, users)))
        await bed.start_rollcall_among_peers('log.filter = "warn"')
        await bed.start_synapse()
        async with AtSynapse(bed, peer, users) as theirs, AtRollcall(bed, peer, users) as ours:
            for edus, pushes, count in _SHAPES:
                await _compare(bed, voice, users, theirs, ours, (edus, pushes, max(1, round(count * given.scale))))


async def _compare(bed, voice, users, theirs, ours, shape):
    edus, pushes, count = shape
    print(f"\n{count} transactions of {edus} EDU(s) x {pushes} push(es), {len(users)} users, one session", flush=True)
    slow, fast = [await _rate(bed, voice, users, watcher, shape) for watcher in (theirs, ours)]
    print(f"more                   {fast / slow:.1f} x updates per CPU second", flush=True)


async def _rate(bed, voice, users, watcher, shape) -> float:
    """Updates per CPU second, counted until the session has seen the end state."""
    edus, pushes, count = shape
    requests, newest = _requests(voice, watcher.server, users, shape)
    await idle(watcher.meter)
    meter, begun = watcher.meter(), time.monotonic()
    await _send(bed, watcher.server, requests)
    sent = time.monotonic() - begun
    await until(lambda: watcher.saw(newest), f"the end state at {watcher.name}", 300, every=0.1)
    seen, seconds = time.monotonic() - begun, meter.seconds()
    await watcher.check(newest)
    return _report(watcher.name, edus * pushes * count, sent, seen, seconds)


def _report(name: str, updates: int, sent: float, all_told: float, seconds: dict) -> float:
    cpu = sum(used for group, used in seconds.items() if group != "broker")
    groups = ", ".join(f"{group} {used:.2f}" for group, used in seconds.items())
    print(
        f"{name:<22} {updates} updates, sent in {sent:.1f} s, seen in {all_told:.1f} s; CPU s: {groups};"
        f" {updates / cpu:.0f} updates per CPU second",
        flush=True,
    )
    return updates / cpu


def _requests(voice: Voice, server, users: list[str], shape) -> tuple[list[Request], dict]:
    """Each transaction says something new of the next users in turn. And what is said of each last."""
    edus, pushes, count = shape
    run, newest, turn, requests = time.time_ns(), {}, 0, []
    for number in range(count):
        content = []
        for _ in range(edus):
            push = [_push(users[(turn + n) % len(users)], turn + n, run) for n in range(pushes)]
            newest.update((entry["user_id"], (entry["presence"], entry["status_msg"])) for entry in push)
            content.append({"edu_type": "m.presence", "content": {"push": push}})
            turn += pushes
        transaction = voice.transaction(content)
        path = f"{SEND}{run}-{number}"
        authorization = voice.authorization(server.name, "PUT", path, transaction)
        requests.append(Request(path, encode_canonical_json(transaction), authorization))
    return requests, newest


def _push(user: str, n: int, run: int) -> dict:
    return {
        "user_id": user,
        "presence": ("online", "unavailable")[n % 2],
        "status_msg": f"{run % 100_000} {n}",
        "last_active_ago": 5,
        "currently_active": n % 2 == 0,
    }


async def _send(bed: MeasuringBed, server, requests: list[Request]):
    """One at a time, as Synapse wants it."""
    for request in requests:
        headers = {"Authorization": request.authorization, "Content-Type": "application/json"}
        url = URL(server.url + request.path, encoded=True)
        async with bed.http.put(url, data=request.body, headers=headers) as answer:
            assert answer.status == 200, (answer.status, await answer.text())


class Host(Peer):
    """A peer with a room."""

    def __init__(self, voice: Voice, certificate, room: HostedRoom):
        super().__init__(voice, certificate)
        self.room = room

    def other(self, method, path, body):
        answer = self.room.answer(path, body)
        return ("200 OK", answer) if answer else super().other(method, path, body)


class AtSynapse:
    """Somebody who shares a room with all users, and syncs."""

    name = "Synapse"

    def __init__(self, bed: MeasuringBed, peer: Host, users: list[str]):
        self._bed, self._peer, self.server = bed, peer, bed.synapse
        self.seen: dict[str, tuple] = {}

    def meter(self) -> Meter:
        return Meter(synapse=[self._bed.synapse.pid], postgres=[self._bed.postgres.pid])

    async def __aenter__(self):
        (self._putter,) = await self._bed.register(1)
        await self._putter.ask(
            "POST", f"/_matrix/client/v3/join/{self._peer.room.id}?server_name={self._peer.name}", {}
        )
        self._begun = asyncio.Event()
        self._syncing = asyncio.create_task(self._sync())
        await self._begun.wait()
        return self

    async def __aexit__(self, *_):
        self._syncing.cancel()
        await asyncio.gather(self._syncing, return_exceptions=True)

    def saw(self, newest: dict) -> bool:
        assert not self._syncing.done(), self._syncing.exception()
        return all(self.seen.get(user) == status for user, status in newest.items())

    async def check(self, newest: dict):
        """The database says the same."""
        await until(
            lambda: _agree(dict(self._bed.stored()), newest), "Synapse has stored what was said last", 60, every=1
        )

    async def _sync(self):
        since = ""
        while True:
            query = f"timeout=10000&set_presence=offline&filter={json.dumps(_PRESENCE_ONLY)}{since}"
            answer = await self._putter.ask("GET", f"/_matrix/client/v3/sync?{query}")
            since = f"&since={answer['next_batch']}"
            self._begun.set()
            for event in answer.get("presence", {}).get("events", []):
                self.seen[event["sender"]] = (event["content"]["presence"], event["content"].get("status_msg"))


class AtRollcall:
    """Somebody who lists all users, and has a stream open."""

    name = "rollcall"

    def __init__(self, bed: MeasuringBed, peer: Host, users: list[str]):
        self._bed, self._peer, self._users, self.server = bed, peer, users, bed.rollcall
        self._person = bed.rollcall.person("watcher")

    def meter(self) -> Meter:
        return Meter(rollcall=[self._bed.rollcall.pid], broker=[self._bed.broker.pid])

    async def __aenter__(self):
        for at in range(0, len(self._users), 1000):
            await self._person.list(*self._users[at : at + 1000])
        for at in range(0, len(self._users), 100):
            accepts = [
                {"edu_type": "m.presence_accept", "content": {"observed_user": user, "observer_user": self._person.id}}
                for user in self._users[at : at + 100]
            ]
            await self._bed.send(self.server, self._peer.voice, f"accept{at}", accepts)
        await until(self._all_accepted, "all have accepted", 120, every=1)
        self._stream = await self._person.stream().__aenter__()
        return self

    async def __aexit__(self, *_):
        await self._stream.__aexit__()

    def saw(self, newest: dict) -> bool:
        return _agree(_statuses(self._stream.heard), newest)

    async def check(self, newest: dict):
        """What is committed says the same."""
        assert _agree(_statuses(await self._person.listed()), newest)

    async def _all_accepted(self) -> bool:
        listed = await self._person.listed()
        return len(listed) == len(self._users) and all(entry["accepted"] for entry in listed.values())


def _statuses(shown: dict) -> dict:
    return {user: (content["presence"], content.get("status_msg")) for user, content in shown.items()}


def _agree(shown: dict, newest: dict) -> bool:
    return all(shown.get(user) == status for user, status in newest.items())
