"""A person at Synapse: matrix-nio, a client that others wrote, syncing all the time."""

import asyncio
import logging

from nio import (
    AsyncClient,
    AsyncClientConfig,
    JoinResponse,
    PresenceSetError,
    RegisterResponse,
    RoomCreateError,
    SyncResponse,
)
from nio.api import RoomPreset

from children import until
from homeserver import Homeserver

logging.getLogger("nio").setLevel(logging.CRITICAL)


class Reader:
    """Remembers what /sync said of everybody's presence, newest last."""

    @classmethod
    async def register(cls, homeserver: Homeserver, name: str) -> "Reader":
        # Long waits between tries would be ours, not the servers'.
        config = AsyncClientConfig(max_timeout_retry_wait_time=1)
        client = AsyncClient(homeserver.url, homeserver.user(name), config=config)
        answer = await client.register(name, "password")
        assert isinstance(answer, RegisterResponse), answer
        return cls(homeserver, client)

    def __init__(self, homeserver: Homeserver, client: AsyncClient):
        self.homeserver = homeserver
        self.id = client.user_id
        self.room: str | None = None
        self._client = client
        self._heard: dict[str, list] = {}
        self._syncing = asyncio.create_task(self._sync())

    async def close(self):
        self._syncing.cancel()
        await asyncio.gather(self._syncing, return_exceptions=True)
        await self._client.close()

    async def set(self, presence: str, message: str):
        answer = await self._client.set_presence(presence, message)
        assert not isinstance(answer, PresenceSetError), answer

    async def make_room(self):
        """One that anybody may join; it is `room` from now on."""
        answer = await self._client.room_create(preset=RoomPreset.public_chat)
        assert not isinstance(answer, RoomCreateError), answer
        self.room = answer.room_id

    async def join(self, room: str):
        answer = await self._client.join(room)
        assert isinstance(answer, JoinResponse), answer
        self.room = room

    async def say(self, text: str):
        """A message in the room."""
        await self._client.room_send(self.room, "m.room.message", {"msgtype": "m.text", "body": text})

    async def sees(self, user: str, presence: str, message: str):
        """Waits until /sync has said this of `user` last; the event."""

        def check():
            last = self._last(user)
            return last and (last.presence, last.status_msg) == (presence, message) and last

        return await until(check, lambda: f"{self.id} sees {user} {presence} {message!r}, not {self._last(user)}")

    async def asks(self, user: str):
        """What the server answers about the presence of `user`."""
        return await self._client.get_presence(user)

    def _last(self, user: str):
        heard = self._heard.get(user)
        return heard[-1] if heard else None

    async def _sync(self):
        while True:
            answer = await self._client.sync(timeout=10_000, set_presence="offline")
            if not isinstance(answer, SyncResponse):
                # The server is away.
                await asyncio.sleep(0.1)
                continue
            for event in answer.presence_events:
                self._heard.setdefault(event.user_id, []).append(event)
