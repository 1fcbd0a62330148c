"""What 300 users' changes cost on the way out: transactions, bytes and CPU seconds, to one peer and to twenty; rollcall's to peers that
take gzip, as itself does, and to peers that do not."""

import argparse
import asyncio
import itertools
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from children import free_port, until
from keys import Voice
from measuring_bed import PEERS, MeasuringBed, Putter
from meter import Meter
from peers import Peer

_SEED = 1
# What each change sets, with a number that no other has: the run's, then the change's.
_MESSAGE = "message "
_A_RUN = 100_000
_runs = itertools.count(1)
# Seconds between two words of a peer's.
_TALK_EVERY = 20.0


@dataclass
class Cost:
    """What one run cost the sender."""

    changes: int
    transactions: int
    bytes: int
    seconds: dict[str, float]
    # How long each change took until all peers were told of it, or of a newer one of the same user; in order.
    waits: list[float]

    @property
    def cpu(self) -> float:
        """Of the sender and its store; the broker is noted apart."""
        return sum(seconds for name, seconds in self.seconds.items() if name != "broker")

    def line(self, what: str) -> str:
        per = self.changes
        cpu = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.seconds.items())
        return (
            f"{what:<22} {self.transactions:>7} transactions {self.bytes:>10} bytes"
            f" {self.transactions / per:>8.4f} and {self.bytes / per:>7.1f} a change; CPU s: {cpu};"
            f" half of the changes known after {self._wait(0.5):.1f} s, nine tenths after {self._wait(0.9):.1f}, all after"
            f" {self.waits[-1]:.1f}"
        )

    def _wait(self, part: float) -> float:
        return self.waits[int(len(self.waits) * part)]


def options(parser: argparse.ArgumentParser):
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--rate", type=float, default=50.0, help="changes a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--peers", type=int, nargs="+", default=[1, 20])


async def run(binary: Path, given):
    async with MeasuringBed(binary) as bed:
        addresses = [f"{PEERS}{n}" for n in range(1, max(given.peers) + 1)]
        first, *more = [f"{address}:{free_port(address)}" for address in addresses]
        voice = Voice.invented(first)
        voices = [voice, *(voice.as_server(name) for name in more)]
        peers = [await bed.listen(Peer(voice, bed.certificate)) for voice in voices]
        await bed.start_rollcall_among_peers('list.accept = "everyone"')
        await bed.start_synapse()
        ours = [Putter.at_rollcall(bed, f"user{n}") for n in range(given.users)]
        theirs = await bed.register(given.users)
        room = await bed.make_room(theirs)
        for count in given.peers:
            await _compare(bed, given, peers[:count], ours, theirs, room)


async def _compare(bed, given, peers, ours, theirs, room):
    print(
        f"\n{given.users} users, {given.rate:.0f} changes/s for {given.seconds:.0f} s, {len(peers)} peer(s)", flush=True
    )
    await _joined(bed, peers, room)
    meter = Meter(synapse=[bed.synapse.pid], postgres=[bed.postgres.pid])
    synapse = await _cost(bed, bed.synapse, given, peers, theirs, meter)
    print(synapse.line("Synapse"), flush=True)
    for takes_gzip in (True, False):
        for peer in peers:
            peer.takes_gzip = takes_gzip
        await _compare_rollcall(bed, given, peers, ours, synapse)


async def _compare_rollcall(bed, given, peers, ours, synapse: Cost):
    await _polled(bed, peers, ours)
    meter = Meter(rollcall=[bed.rollcall.pid], broker=[bed.broker.pid])
    rollcall = await _cost(bed, bed.rollcall, given, peers, ours, meter)
    print(rollcall.line(f"rollcall, {'gzip' if peers[0].takes_gzip else 'as it is'}"))
    print(
        f"fewer                  {synapse.transactions / rollcall.transactions:.1f} x transactions,"
        f" {synapse.bytes / rollcall.bytes:.1f} x bytes, {synapse.cpu / rollcall.cpu:.1f} x CPU seconds",
        flush=True,
    )


async def _joined(bed, peers, room):
    """One user of each peer is in the room: so Synapse tells that peer of all users there."""
    for peer in peers:
        if not getattr(peer, "joined", False):
            await peer.voice.join(bed.http, bed.synapse.url, bed.synapse.name, room, f"@watcher:{peer.name}")
            peer.joined = True
    await _quiet(peers)


async def _polled(bed, peers, ours):
    """Each peer has asked for all users."""
    poll = {"edu_type": "m.presence", "content": {"push": [], "poll": [putter.id for putter in ours]}}
    for peer in peers:
        await bed.send(bed.rollcall, peer.voice, f"poll{time.time_ns()}", [poll])
    await until(lambda: all(putter.id in peer.shown for peer in peers for putter in ours), "all are told of all", 60)
    await _quiet(peers)


async def _quiet(peers, seconds: float = 7.0):
    """Waits until nothing has come for longer than a window."""
    last = None
    while last != (last := [peer.pushes for peer in peers]):
        await asyncio.sleep(seconds)


async def _cost(bed, server, given, peers, putters, meter: Meter) -> Cost:
    for peer in peers:
        peer.forget()
    talking = asyncio.create_task(_talk(bed, server, peers))
    newest, made = await _change(given, putters)
    await until(lambda: _all_shown(peers, newest), lambda: f"the end state: {_missing(peers, newest)}", 120, every=0.1)
    seconds = meter.seconds()
    talking.cancel()
    # Whatever ended it before raises here.
    with suppress(asyncio.CancelledError):
        await talking
    changes = round(given.rate * given.seconds)
    transactions, size = sum(peer.transactions for peer in peers), sum(peer.bytes for peer in peers)
    return Cost(changes, transactions, size, seconds, _waits(peers, made))


async def _talk(bed, server, peers):
    """Each peer says something now and then, as servers do that are there: who is never heard of is reminded of everything (W5)."""
    while True:
        words = (bed.send(server, peer.voice, f"talk{time.time_ns()}", []) for peer in peers)
        await asyncio.gather(*words)
        await asyncio.sleep(_TALK_EVERY)


async def _change(given, putters) -> tuple[dict[str, str], list[tuple[float, str, int]]]:
    """The same changes by the same clock, whoever takes them. Each user's last message; when each was made, whose it is, its number."""
    chance, first = random.Random(_SEED), next(_runs) * _A_RUN
    begun, newest, made, under_way = time.monotonic(), {}, [], []
    for n in range(round(given.rate * given.seconds)):
        putter = chance.choice(putters)
        presence, message = chance.choice(["online", "unavailable"]), f"{_MESSAGE}{first + n}"
        newest[putter.id] = message
        await asyncio.sleep(max(0.0, begun + n / given.rate - time.monotonic()))
        made.append((time.monotonic(), putter.id, first + n))
        under_way.append(asyncio.create_task(putter.set(presence, message)))
    await asyncio.gather(*under_way)
    return newest, made


def _waits(peers, made: list[tuple[float, str, int]]) -> list[float]:
    """See `Cost.waits`."""
    known = [0.0] * len(made)
    for peer in peers:
        # By user, when it was told of which change: both grow.
        told: dict[str, list[tuple[float, int]]] = {}
        for at, user, message in peer.told:
            if message and message.startswith(_MESSAGE):
                told.setdefault(user, []).append((at, int(message.removeprefix(_MESSAGE))))
        for n, (_, user, change) in enumerate(made):
            known[n] = max(known[n], next(at for at, told_of in told[user] if told_of >= change))
    return sorted(at - since for at, (since, *_) in zip(known, made, strict=True))


def _all_shown(peers, newest: dict) -> bool:
    return all(_shows(peer, user, message) for peer in peers for user, message in newest.items())


def _missing(peers, newest: dict) -> str:
    wrong = [
        (peer.name, user, peer.shown.get(user), message)
        for peer in peers
        for user, message in newest.items()
        if not _shows(peer, user, message)
    ]
    return f"{len(wrong)} wrong, such as {wrong[:3]}"


def _shows(peer: Peer, user: str, message: str) -> bool:
    """Each change has a message of its own. The presence may have timed out meanwhile: nobody syncs."""
    return user in peer.shown and peer.shown[user][1] == message
