"""HTTP/1.1 byte by byte: listeners that come and go, and a tap that passes on and writes down."""

import asyncio
import gzip
import json
import re
import ssl
from dataclasses import dataclass

SEND = "/_matrix/federation/v1/send/"
_LIMIT = 1 << 26


@dataclass
class Seen:
    """A request and what became of it. Sizes are those of the plain text, without what TLS adds."""

    method: str
    path: str
    head_bytes: int
    body: bytes
    status: int
    answer: bytes
    is_gzip: bool = False

    @property
    def bytes(self) -> int:
        return self.head_bytes + len(self.body)

    @property
    def content(self) -> dict:
        return json.loads(gzip.decompress(self.body) if self.is_gzip else self.body)

    def presence(self) -> list[dict]:
        """The contents of its m.presence EDUs."""
        return [edu["content"] for edu in self.content.get("edus", []) if edu["edu_type"] == "m.presence"]

    def pushes(self) -> list[dict]:
        return [push for content in self.presence() for push in content.get("push", [])]


async def read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes, bytes]:
    """The head, the body's bytes as they travelled, and the body itself."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if length:
        body = await reader.readexactly(int(length.group(1)))
        return head, body, body
    if re.search(rb"\r\ntransfer-encoding: *chunked", head, re.IGNORECASE):
        return head, *await _read_chunks(reader)
    return head, b"", b""


async def _read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    raw = body = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        chunk = await reader.readexactly(size + 2)
        raw, body = raw + line + chunk, body + chunk[:-2]
        if size == 0:
            return raw, body


def request_line(head: bytes) -> tuple[str, str]:
    method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
    return method, path


def server_tls(certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


class Listener:
    """A server at one address that can go away and come back."""

    def __init__(self, address: tuple[str, int], certificate=None):
        self.address = address
        self._tls = server_tls(certificate) if certificate else None
        self._server = None
        self._connections: set[asyncio.Task] = set()

    async def open(self):
        self._server = await asyncio.start_server(self._accept, *self.address, ssl=self._tls, limit=_LIMIT, backlog=512)

    async def close(self):
        """Nobody is there any more: connections end, new ones are refused."""
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            await self.serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def serve(self, reader, writer):
        """One connection, to its end."""
        raise NotImplementedError


class Tap(Listener):
    """Stands in front of one server, and remembers the transactions that it answered."""

    def __init__(self, address, target: tuple[str, int], certificate=None):
        super().__init__(address, certificate)
        self.transactions: list[Seen] = []
        self._target = target

    async def serve(self, reader, writer):
        behind, onward = await asyncio.open_connection(*self._target, limit=_LIMIT)
        try:
            while True:
                head, raw, body = await read_message(reader)
                onward.write(head + raw)
                answer_head, answer_raw, answer = await read_message(behind)
                self._record(head, body, answer_head, answer)
                writer.write(answer_head + answer_raw)
                await writer.drain()
        finally:
            onward.close()

    def _record(self, head, body, answer_head, answer):
        method, path = request_line(head)
        if path.startswith(SEND):
            status = int(answer_head.split(b" ", 2)[1])
            self.transactions.append(Seen(method, path, len(head), body, status, answer))

    def forget(self):
        self.transactions.clear()
