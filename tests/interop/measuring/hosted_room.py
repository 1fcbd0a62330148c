"""A room that a made-up server hosts with thousands of its users: a homeserver gets to know all of them by one join."""

import json
import time

from synapse.api.room_versions import RoomVersions
from synapse.events import make_event_from_dict

from keys import Voice


class HostedRoom:
    """Anybody may join. Answers make_join and send_join."""

    def __init__(self, voice: Voice, members: list[str]):
        self.id = f"!hosted:{voice.name}"
        self._voice, self._depth, self._last = voice, 0, []
        host = members[0]
        create, create_id = self._event(host, "m.room.create", "", {"room_version": "10", "creator": host}, [])
        join, join_id = self._member(host, [create_id])
        levels, levels_id = self._event(host, "m.room.power_levels", "", {"users": {host: 100}}, [create_id, join_id])
        rules, rules_id = self._event(
            host, "m.room.join_rules", "", {"join_rule": "public"}, [create_id, join_id, levels_id]
        )
        self._needed = [create_id, levels_id, rules_id]
        self._auth_chain = [create, join, levels, rules]
        self._state = [*self._auth_chain, *(self._member(member, self._needed)[0] for member in members[1:])]

    def answer(self, path: str, body: bytes) -> bytes | None:
        """What a server is told that wants to join; nothing if it wants something else."""
        if "/v1/make_join/" in path:
            user = path.split("?")[0].rsplit("/", 1)[1].replace("%40", "@").replace("%3A", ":")
            return json.dumps({"room_version": "10", "event": self._template(user)}).encode()
        if "/v2/send_join/" in path:
            joined = {"origin": self._voice.name, "state": self._state, "auth_chain": self._auth_chain}
            return json.dumps({**joined, "members_omitted": False, "event": json.loads(body)}).encode()
        return None

    def _template(self, user: str) -> dict:
        return self._unsigned(user, "m.room.member", user, {"membership": "join"}, self._needed)

    def _member(self, user: str, auth: list[str]) -> tuple[dict, str]:
        return self._event(user, "m.room.member", user, {"membership": "join"}, auth)

    def _event(self, *parts) -> tuple[dict, str]:
        event = self._voice.signed_event(self._unsigned(*parts), "10")
        self._last = [make_event_from_dict(event, RoomVersions.V10).event_id]
        return event, self._last[0]

    def _unsigned(self, sender: str, kind: str, state_key: str, content: dict, auth: list[str]) -> dict:
        self._depth += 1
        return {
            "type": kind,
            "sender": sender,
            "state_key": state_key,
            "room_id": self.id,
            "content": content,
            "auth_events": auth,
            "prev_events": self._last,
            "depth": self._depth,
            "origin_server_ts": int(time.time() * 1000),
        }
