"""Peers that answer 200 and count: the cheapest there can be, the same for both senders."""

import json
import re
import time

from keys import Voice
from wire import SEND, Listener, Seen, read_message, request_line

_TAKEN = b'{"pdus":{}}'
_IN_GZIP = re.compile(rb"\r\ncontent-encoding: *gzip\r\n", re.IGNORECASE)


class Peer(Listener):
    """One server, found by its name and over TLS by both."""

    def __init__(self, voice: Voice, certificate):
        address, port = voice.name.split(":")
        super().__init__((address, int(port)), certificate)
        self.voice = voice
        # What it was told last of each user.
        self.shown: dict[str, tuple] = {}
        # Whether it says that it takes gzip, as rollcall does.
        self.takes_gzip = False
        self.forget()

    @property
    def name(self) -> str:
        return self.voice.name

    def forget(self):
        """Counts from here. What it knows of users stays."""
        self.transactions = self.bytes = self.pushes = 0
        # Which message of which user it was told, and when.
        self.told: list[tuple[float, str, str | None]] = []

    async def serve(self, reader, writer):
        while True:
            head, _, body = await read_message(reader)
            method, path = request_line(head)
            status, answer = self._answer(head, method, path, body)
            accepts = "accept-encoding: gzip\r\n" if self.takes_gzip else ""
            kind = "content-type: application/json\r\n"
            writer.write(f"HTTP/1.1 {status}\r\n{kind}{accepts}content-length: {len(answer)}\r\n\r\n".encode() + answer)
            await writer.drain()

    def _answer(self, head: bytes, method: str, path: str, body: bytes) -> tuple[str, bytes]:
        if path.startswith(SEND):
            self._count(Seen(method, path, len(head), body, 200, _TAKEN, bool(_IN_GZIP.search(head))))
            return "200 OK", _TAKEN
        if path.startswith("/_matrix/key/v2/server"):
            return "200 OK", self.voice.key_document()
        if "/user/devices/" in path:
            user = path.rsplit("/", 1)[1].replace("%40", "@").replace("%3A", ":")
            return "200 OK", json.dumps({"user_id": user, "stream_id": 1, "devices": []}).encode()
        return self.other(method, path, body)

    def other(self, method: str, path: str, body: bytes) -> tuple[str, bytes]:
        """What else a server is asked."""
        return "404 Not Found", b'{"errcode":"M_UNRECOGNIZED","error":"no"}'

    def _count(self, seen: Seen):
        self.transactions += 1
        self.bytes += seen.bytes
        now = time.monotonic()
        for push in seen.pushes():
            self.pushes += 1
            self.shown[push["user_id"]] = (push["presence"], push.get("status_msg"))
            self.told.append((now, push["user_id"], push.get("status_msg")))
