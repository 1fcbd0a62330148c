"""Whether our users stay visibly online on a Synapse, which forgets a remote user 30 minutes after the last push."""

import argparse
import asyncio
import time
from pathlib import Path

from children import free_port, until, url
from measuring_bed import MeasuringBed, Putter
from wire import Tap

# Nobody goes away or idle, so nothing but the refresh makes rollcall push.
_STEADY = """
list.accept = "everyone"
presence.idle_after = "24h"
"""


def options(parser: argparse.ArgumentParser):
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=35.0)


async def run(binary: Path, given):
    async with MeasuringBed(binary) as bed:
        await bed.start_synapse(on_postgres=False)
        tap = Tap(("127.0.0.1", free_port("127.0.0.1")), bed.synapse.plain)
        await bed.listen(tap)
        await bed.start_rollcall({bed.synapse.name: url(tap.address)}, _STEADY, bed.certificate)
        (reader,) = await bed.register(1)
        room = await bed.make_room([reader])
        people = [bed.rollcall.person(f"user{n}") for n in range(given.users)]
        for person in people:
            await bed.rollcall.voice().join(bed.http, bed.synapse.url, bed.synapse.name, room, person.id)
            await person.set("online", "here")
            await person.list(reader.id)
            await person.poll(lease_ms=3_600_000)
        ids = [person.id for person in people]
        await until(lambda: _all_online(reader, ids), "all are shown online", 60, every=1)
        await _watch(tap, reader, ids, given.minutes)


async def _watch(tap: Tap, reader: Putter, ids: list[str], minutes: float):
    """Looks every half minute. Says how many are shown online, and what was sent meanwhile."""
    begun, worst = time.monotonic(), len(ids)
    tap.forget()
    while (passed := time.monotonic() - begun) < 60 * minutes:
        online = await _online(reader, ids)
        worst = min(worst, online)
        pushes = sum(len(seen.pushes()) for seen in tap.transactions)
        print(
            f"{passed / 60:5.1f} min: {online} of {len(ids)} online; {len(tap.transactions)} transactions,"
            f" {pushes} pushes so far",
            flush=True,
        )
        await asyncio.sleep(30)
    print(f"\nrefresh: {worst} of {len(ids)} were shown online at the worst of {minutes:.0f} minutes")
    assert worst == len(ids)


async def _all_online(reader: Putter, ids: list[str]) -> bool:
    return await _online(reader, ids) == len(ids)


async def _online(reader: Putter, ids: list[str]) -> int:
    shown = [await reader.ask("GET", f"/_matrix/client/v3/presence/{user}/status") for user in ids]
    return sum(status["presence"] == "online" for status in shown)
