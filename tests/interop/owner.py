"""Whoever starts many things owns them: a folder, an HTTP client, and what comes later; the last goes first."""

import inspect
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp


class Owner:
    """`async with`: nothing is left afterwards, nor if it does not come so far."""

    async def __aenter__(self):
        self._stack = AsyncExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="rollcall-interop-")))
        # Certificates here are nobody's word.
        connector = aiohttp.TCPConnector(ssl=False)
        session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=300))
        self.http = await self._stack.enter_async_context(session)
        try:
            await self.set_up()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_):
        await self._stack.aclose()

    async def set_up(self):
        """What is there from the beginning."""

    def own(self, end):
        """Calls `end`, plain or async, in the end."""
        if inspect.iscoroutinefunction(end):
            self._stack.push_async_callback(end)
        else:
            self._stack.callback(end)

    async def start(self, server):
        """A homeserver or rollcall: it is killed in the end."""
        await server.start()
        self.own(server.kill)

    async def listen(self, listener):
        await listener.open()
        self.own(listener.close)
        return listener
