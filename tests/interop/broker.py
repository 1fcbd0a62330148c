"""A private RabbitMQ node, kept by the same script as in the other tests (tests/it/support/node.sh)."""

import socket
import subprocess
import tempfile
from pathlib import Path

from children import START_PATIENCE, free_port, until

_SCRIPT = Path(__file__).resolve().parents[1] / "it/support/node.sh"
_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class Broker:
    """Ends with this value, or with the process: its keeper kills it when its standard input ends."""

    @classmethod
    async def start(cls) -> "Broker":
        assert _SERVER.exists(), f"RabbitMQ is not installed ({_SERVER}): tests/run installs it"
        broker = cls()
        broker._tell("start")
        await until(broker._speaks_amqp, "RabbitMQ speaks AMQP", START_PATIENCE, every=0.1)
        return broker

    def __init__(self):
        self._folder = Path(tempfile.mkdtemp(prefix="rollcall-broker-"))
        self._port = free_port("127.0.0.1")
        ports = [self._port, free_port("127.0.0.1"), free_port("127.0.0.1")]
        self._keeper = subprocess.Popen(
            ["bash", str(_SCRIPT), str(self._folder), *map(str, ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    @property
    def url(self) -> str:
        return f"amqp://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of the keeper, whose children the node's processes are."""
        return self._keeper.pid

    def stop(self):
        self._keeper.stdin.close()
        self._keeper.wait()

    def _tell(self, command: str):
        self._keeper.stdin.write(f"{command}\n")
        assert self._keeper.stdout.readline() == "done\n", "the broker's keeper is gone"

    def _speaks_amqp(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=2) as stream:
                stream.sendall(b"AMQP\x00\x00\x09\x01")
                return stream.recv(1) == b"\x01"
        except OSError:
            return False
