"""A server's own voice: signed requests and signed events, with the key file that the server itself uses."""

import hashlib
import json
import time
from pathlib import Path
from urllib.parse import quote

import aiohttp
from canonicaljson import encode_canonical_json
from signedjson.key import generate_signing_key, read_signing_keys, write_signing_keys
from signedjson.sign import sign_json
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS
from synapse.crypto.event_signing import compute_content_hash, compute_event_signature
from unpaddedbase64 import encode_base64
from yarl import URL


class Voice:
    """Whoever has the key of `name` speaks for it."""

    def __init__(self, name: str, key):
        self.name, self._key = name, key

    @classmethod
    def from_file(cls, name: str, path: Path) -> "Voice":
        with path.open() as file:
            return cls(name, read_signing_keys(file.readlines())[0])

    @classmethod
    def invented(cls, name: str) -> "Voice":
        return cls(name, generate_signing_key("invented"))

    def write_key(self, path: Path):
        with path.open("w") as file:
            write_signing_keys(file, [self._key])

    def as_server(self, name: str) -> "Voice":
        """The same key under another name."""
        return Voice(name, self._key)

    def key_document(self) -> bytes:
        """What it answers under /_matrix/key/v2/server."""
        key = {"key": encode_base64(self._key.verify_key.encode())}
        document = {
            "server_name": self.name,
            "valid_until_ts": _now() + 24 * 3600 * 1000,
            "verify_keys": {f"ed25519:{self._key.version}": key},
            "old_verify_keys": {},
        }
        return json.dumps(sign_json(document, self.name, self._key)).encode()

    def authorization(self, destination: str, method: str, path: str, content=None) -> str:
        request = {"method": method, "uri": path, "origin": self.name, "destination": destination}
        if content is not None:
            request["content"] = content
        ((key_id, signature),) = sign_json(request, self.name, self._key)["signatures"][self.name].items()
        return f'X-Matrix origin="{self.name}",destination="{destination}",key="{key_id}",sig="{signature}"'

    def transaction(self, edus, pdus=()) -> dict:
        return {"origin": self.name, "origin_server_ts": _now(), "pdus": list(pdus), "edus": list(edus)}

    async def ask(self, http: aiohttp.ClientSession, base: str, destination: str, method: str, path: str, content=None):
        """A signed request; status and JSON of the answer."""
        body = encode_canonical_json(content) if content is not None else None
        headers = {
            "Authorization": self.authorization(destination, method, path, content),
            "Content-Type": "application/json",
        }
        url = URL(base + path, encoded=True)
        async with http.request(method, url, data=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def join(self, http, base: str, destination: str, room: str, user: str):
        """Joins `user` of ours to a room that `destination` is in."""

        async def done(*request):
            status, answer = await self.ask(http, base, destination, *request)
            assert status == 200, f"{request[:2]}: {status} {answer}"
            return answer

        versions = "&".join(f"ver={version}" for version in KNOWN_ROOM_VERSIONS)
        path = f"/_matrix/federation/v1/make_join/{_quoted(room)}/{_quoted(user)}?{versions}"
        template = await done("GET", path)
        event = self.signed_event(template["event"], template["room_version"])
        await done("PUT", f"/_matrix/federation/v2/send_join/{_quoted(room)}/%24join?omit_members=true", event)

    def signed_event(self, event: dict, version: str) -> dict:
        """`event` of a room of that version, hashed and signed."""
        event = {name: value for name, value in event.items() if name not in ("event_id", "hashes", "signatures")}
        event["origin_server_ts"] = _now()
        algorithm, digest = compute_content_hash(event, hashlib.sha256)
        event["hashes"] = {algorithm: encode_base64(digest)}
        event["signatures"] = compute_event_signature(KNOWN_ROOM_VERSIONS[version], event, self.name, self._key)
        return event


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _now() -> int:
    return int(time.time() * 1000)
