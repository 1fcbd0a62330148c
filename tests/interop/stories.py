"""What two real Synapse homeservers and rollcall tell each other.

Every function without underscore is a story, and its name is what it shows.
"""

import asyncio
import time

from bed import Bed
from children import free_port, until
from wire import SEND, Listener, read_message


async def a_status_set_at_rollcall_is_stored_by_synapse_and_seen_by_its_clients(bed: Bed):
    for server in (bed.a, bed.b):
        bob, alice = await bed.acquainted(server, "bob1", "alice1")
        for presence, shown, message in [
            ("unavailable", "unavailable", "tea"),
            ("online", "online", "back"),
            ("busy", "online", "cupcakes"),
            ("offline", "offline", "gone"),
        ]:
            await alice.set(presence, message)
            event = await bob.sees(alice.id, shown, message)
            assert event.last_active_ago < 60_000, event
            answer = await bob.asks(alice.id)
            assert (answer.presence, answer.status_msg) == (shown, message), answer
            await server.stores(alice.id, shown, message)


async def a_status_set_at_synapse_arrives_in_the_list_and_in_the_stream_of_rollcalls_watcher(bed: Bed):
    for server in (bed.a, bed.b):
        bob, alice = await bed.acquainted(server, "bob2", "alice2")
        async with alice.stream() as stream:
            for presence, message in [("unavailable", "tea"), ("online", "cupcakes"), ("offline", "gone")]:
                await bob.set(presence, message)
                content = await stream.sees(bob.id, presence, message)
                assert content["rollcall"]["known"] and content["last_active_ago"] < 60_000, content
                entry = await alice.lists(bob.id, presence, message)
                assert entry["accepted"] is False, "Synapse answers no invitation"


async def a_push_without_last_active_ago_is_understood(bed: Bed):
    bob, alice = await bed.acquainted(bed.a, "bob4", "alice4")
    carol = await bed.neighbour(bob, "carol4")
    await alice.list(carol.id)
    await carol.set("unavailable", "never active")
    entry = await alice.lists(carol.id, "unavailable", "never active")
    assert "last_active_ago" not in entry, entry
    # It tells servers what it tells clients.
    assert (await carol.asks(carol.id)).last_active_ago is None


async def a_homeserver_that_was_killed_and_comes_back_shows_the_newest(bed: Bed):
    bob, alice = await bed.acquainted(bed.a, "bob5", "alice5")
    bed.a.kill()
    for n in range(3):
        await alice.set("online", f"unheard {n}")
    await alice.set("unavailable", "newest")
    await bed.a.start()
    await bob.sees(alice.id, "unavailable", "newest")
    # Of a user who was online when it died, Synapse takes another presence only after a while.
    await bob.set("online", "back")
    await alice.lists(bob.id, "online", "back")


async def a_homeserver_that_cannot_be_reached_holds_up_nobody_else(bed: Bed):
    bob, alice = await bed.acquainted(bed.a, "bob6", "alice6")
    dave, erin = await bed.acquainted(bed.b, "dave6", "erin6")
    await bed.to_a.close()
    await alice.set("unavailable", "in the dark")
    begun = time.monotonic()
    await erin.set("unavailable", "in time")
    await dave.sees(erin.id, "unavailable", "in time")
    assert time.monotonic() - begun < 5, "a window of half a second, and all the rest"
    await bed.to_a.open()
    await bob.sees(alice.id, "unavailable", "in the dark")


async def what_synapse_could_not_deliver_to_rollcall_arrives_once_rollcall_speaks_again(bed: Bed):
    bob, alice = await bed.acquainted(bed.a, "bob7", "alice7")
    bed.rollcall.kill()
    deaf = _Deaf(bed.rollcall.name, bed.certificate)
    await deaf.open()
    await bob.set("unavailable", "unheard")
    await until(deaf.tried.is_set, "Synapse tries to tell")
    await deaf.close()
    await bed.rollcall.start()
    # Synapse tries ever more rarely, and at once when it hears of the server again.
    await alice.poll()
    await alice.set("online", "here again")
    await bob.sees(alice.id, "online", "here again")
    await alice.lists(bob.id, "unavailable", "unheard")


async def a_transaction_refused_because_another_is_under_way_is_sent_again(bed: Bed):
    bob, alice = await bed.acquainted(bed.a, "bob8", "alice8")
    async with _Lingering(bed, bob.room) as lingering:
        await alice.set("unavailable", "patience")
        refused = await until(lambda: _refused(bed.to_a), "rollcall is refused")
        assert b"Too many concurrent transactions" in refused[0].answer, refused[0].answer
        lingering.release()
        await bob.sees(alice.id, "unavailable", "patience")
    again = await until(lambda: _taken(bed.to_a, refused[0].path), "what was refused is taken")
    assert [seen.body for seen in again] == [refused[0].body], "once, byte for byte"


async def messages_of_a_shared_room_are_passed_over(bed: Bed):
    bob, alice = await bed.acquainted(bed.a, "bob9", "alice9")
    await asyncio.gather(bob.say("hello"), bob.set("unavailable", "writing"))
    await alice.lists(bob.id, "unavailable", "writing")
    await until(lambda: bed.a.has_delivered_all_to(bed.rollcall.name), "rollcall has taken the message, too")


async def polls_unpolls_invitations_and_the_extension_harm_nothing(bed: Bed):
    """The last one: a server that has accepted somebody is held to answering from then on, which Synapse does not."""
    before = len(bed.a.complaints())
    bob, alice = await bed.acquainted(bed.a, "bob10", "alice10")
    await _accept(bed, bob.id, alice.id)
    await until(lambda: _told(bed.to_a, "poll", bob.id), "the poll passes")
    await alice.leave()
    await until(lambda: _told(bed.to_a, "unpoll", bob.id), "the unpoll passes")
    await alice.poll()
    await alice.set("unavailable", "tea")
    await bob.sees(alice.id, "unavailable", "tea")
    await bob.set("unavailable", "too")
    await alice.lists(bob.id, "unavailable", "too")
    mine = _holding(bed.to_a, alice.id.encode())
    assert any(edu["edu_type"] == "m.presence_invite" for seen in mine for edu in seen.content["edus"])
    assert all(seen.presence()[0]["rollcall"]["v"] == 1 for seen in mine if seen.presence())
    assert {seen.status for seen in mine} == {200}
    complaints = bed.a.complaints()[before:]
    assert complaints == [], complaints


async def a_homeserver_is_found_by_its_name_and_known_by_its_certificate(bed: Bed):
    async with bed.no_taps():
        passed = len(bed.to_b.transactions)
        bob, alice = await bed.acquainted(bed.b, "bob11", "alice11")
        await alice.set("unavailable", "straight")
        await bob.sees(alice.id, "unavailable", "straight")
        await bob.set("unavailable", "too")
        await alice.lists(bob.id, "unavailable", "too")
        assert len(bed.to_b.transactions) == passed, "nothing goes by the tap"


async def _accept(bed: Bed, observed: str, observer: str):
    """Lets `observer` see `observed` in the name of Synapse, which has no word for it: only then does rollcall poll."""
    accept = {"edu_type": "m.presence_accept", "content": {"observed_user": observed, "observer_user": observer}}
    voice, rollcall = bed.a.voice(), bed.rollcall
    answer = await voice.ask(bed.http, rollcall.url, rollcall.name, "PUT", f"{SEND}accept", voice.transaction([accept]))
    assert answer == (200, {"pdus": {}}), answer


class _Lingering:
    """A transaction of rollcall's name that Synapse is busy with until it is released: it asks a third for keys."""

    def __init__(self, bed: Bed, room: str):
        self._bed, self._room = bed, room
        self._third = _Silent(("127.0.0.4", free_port("127.0.0.4")), bed.certificate)

    async def __aenter__(self):
        await self._third.open()
        address, port = self._third.address
        name = f"{address}:{port}"
        event = {
            "type": "m.room.message",
            "room_id": self._room,
            "sender": f"@nobody:{name}",
            "content": {},
            "origin_server_ts": 1,
            "depth": 1,
            "prev_events": [],
            "auth_events": [],
            "hashes": {"sha256": ""},
            "signatures": {name: {"ed25519:none": "c2lnbmF0dXJl"}},
        }
        self._sending = asyncio.create_task(self._send(event))
        await asyncio.wait_for(self._third.asked.wait(), 10)
        return self

    async def __aexit__(self, *_):
        self.release()
        await self._third.close()
        await self._sending

    def release(self):
        self._third.released.set()

    async def _send(self, event: dict):
        voice, server = self._bed.rollcall.voice(), self._bed.a
        content = voice.transaction([], [event])
        status, answer = await voice.ask(self._bed.http, server.url, server.name, "PUT", f"{SEND}lingering", content)
        assert status == 200, (status, answer)


class _Deaf(Listener):
    """Takes every connection under a server's name, and ends it."""

    def __init__(self, name: str, certificate):
        address, port = name.split(":")
        super().__init__((address, int(port)), certificate)
        self.tried = asyncio.Event()

    async def serve(self, reader, writer):
        self.tried.set()


class _Silent(Listener):
    """Answers nobody until it is released, and then that it knows nothing."""

    def __init__(self, address, certificate):
        super().__init__(address, certificate)
        self.asked, self.released = asyncio.Event(), asyncio.Event()

    async def serve(self, reader, writer):
        while True:
            await read_message(reader)
            self.asked.set()
            await self.released.wait()
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()


def _told(tap, field: str, user: str) -> bool:
    return any(user in content.get(field, []) for seen in tap.transactions for content in seen.presence())


def _holding(tap, text: bytes) -> list:
    return [seen for seen in tap.transactions if text in seen.body]


def _taken(tap, path: str) -> list:
    return [seen for seen in tap.transactions if seen.path == path and seen.status == 200]


def _refused(tap) -> list:
    return [seen for seen in tap.transactions if seen.status == 429]
