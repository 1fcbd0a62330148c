"""Processes that end with this one, however it ends, and what they need: addresses, certificates, patience."""

import asyncio
import ctypes
import datetime
import ipaddress
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

# Far beyond what anything here takes; what reaches it has failed.
PATIENCE = 30.0
# A first start makes a database, and the machine may be busy.
START_PATIENCE = 120.0

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def end_well():
    """A SIGTERM ends this process as Ctrl-C does: what it owns is cleared away."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class Child:
    """A process whose output goes to a file. Killed with its handle, and with this process."""

    def __init__(self, command, log: Path, **options):
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=_die_with_parent,
                **options,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self):
        """No drain, no goodbye."""
        self._process.kill()
        self._process.wait()

    async def terminate(self):
        """Asks it to end, and waits until it has."""
        self._process.terminate()
        await until(lambda: not self.running, lambda: f"it ends:\n{self.last_words()}")

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])


def _die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def url(address: tuple[str, int]) -> str:
    """In plain text."""
    return f"http://{address[0]}:{address[1]}"


def free_port(address: str) -> int:
    """Below the range of outgoing connections: nobody takes it while whoever listens on it is down."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port


async def until(check, what, patience: float = PATIENCE, every: float = 0.02):
    """Asks `check` (plain or async) again and again; returns the first answer that is true.

    `what` is waited for: a text, or what makes one when it is time to complain.
    """
    deadline = time.monotonic() + patience
    while True:
        answer = check()
        if asyncio.iscoroutine(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience:.0f} s: {what() if callable(what) else what}")
        await asyncio.sleep(every)


def make_certificate(folder: Path, addresses: list[str]) -> tuple[Path, Path]:
    """A self-signed certificate for IP addresses, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "interop")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address)) for address in addresses])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, pem_key = folder / "tls.crt", folder / "tls.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, pem_key
