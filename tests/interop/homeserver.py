"""A real Synapse with data, addresses and a key of its own, and clients of it."""

import sqlite3
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

from children import START_PATIENCE, Child, free_port, until, url
from keys import Voice

_UNLIMITED = {"per_second": 100_000, "burst_count": 100_000}


@dataclass(frozen=True)
class Database:
    """Where a homeserver keeps its data: SQLite beside its other files unless PostgreSQL is given."""

    settings: dict

    @classmethod
    def sqlite(cls, folder: Path) -> "Database":
        return cls({"name": "sqlite3", "args": {"database": str(folder / "homeserver.db")}})

    @classmethod
    def postgres(cls, port: int, name: str) -> "Database":
        arguments = {"user": "postgres", "host": "127.0.0.1", "port": port, "dbname": name, "cp_min": 5, "cp_max": 10}
        return cls({"name": "psycopg2", "args": arguments})


class Homeserver:
    """Federates over TLS under its name, `address:port`; what is closer reaches it in plain text."""

    def __init__(self, folder: Path, address: str, certificate, database: Database | None = None):
        folder.mkdir()
        self.folder = folder
        self.name = f"{address}:{free_port(address)}"
        # In plain text, for clients and for whoever stands in front of it.
        self.plain = (address, free_port(address))
        self._config = folder / "homeserver.yaml"
        Voice.invented(self.name).write_key(folder / "signing.key")
        database = database or Database.sqlite(folder)
        self._config.write_text(yaml.safe_dump(self._settings(certificate, database)))
        self._child = None

    @property
    def url(self) -> str:
        return url(self.plain)

    @property
    def pid(self) -> int:
        return self._child.pid

    def user(self, name: str) -> str:
        return f"@{name}:{self.name}"

    def voice(self) -> Voice:
        return Voice.from_file(self.name, self.folder / "signing.key")

    async def start(self):
        command = [sys.executable, "-m", "synapse.app.homeserver", "-c", self._config]
        self._child = Child(command, self.folder / "console", cwd=self.folder)
        await until(self._is_healthy, lambda: f"it is healthy:\n{self._child.last_words()}", START_PATIENCE, every=0.1)

    async def stop(self):
        await self._child.terminate()

    def kill(self):
        self._child.kill()

    async def stores(self, user: str, presence: str, message: str):
        """Waits until its (SQLite) database holds this of `user`."""

        def stored():
            return self._read("SELECT state, status_msg FROM presence_stream WHERE user_id = ?", user)

        await until(lambda: stored() == (presence, message), lambda: f"{user} {presence} {message!r}, not {stored()}")

    def has_delivered_all_to(self, server: str) -> bool:
        """Whether `server` has answered 200 to the last event of every room that it is in."""
        due = self._read("SELECT max(stream_ordering) FROM destination_rooms WHERE destination = ?", server)
        done = self._read("SELECT last_successful_stream_ordering FROM destinations WHERE destination = ?", server)
        return None not in (due, done) and None not in (*due, *done) and done >= due

    def _read(self, query: str, value: str) -> tuple | None:
        with sqlite3.connect(f"file:{self.folder / 'homeserver.db'}?mode=ro", uri=True) as database:
            return database.execute(query, (value,)).fetchone()

    def complaints(self) -> list[str]:
        """What it logged as errors: it stumbled over something."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return [line for line in lines if line.split(" ")[2:3] in (["ERROR"], ["CRITICAL"])]

    def _is_healthy(self) -> bool:
        assert self._child.running, f"Synapse has ended:\n{self._child.last_words()}"
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _settings(self, certificate, database: Database) -> dict:
        address, port = self.name.split(":")
        log = self.folder / "log.yaml"
        log.write_text(yaml.safe_dump(_logging(self.folder / "log")))
        return {
            "server_name": self.name,
            "public_baseurl": f"{self.url}/",
            "listeners": [
                _listener(self.plain, tls=False, names=["client", "federation"]),
                _listener((address, int(port)), tls=True, names=["federation"]),
            ],
            "tls_certificate_path": str(certificate[0]),
            "tls_private_key_path": str(certificate[1]),
            # Everybody here is on loopback, with a certificate that nobody vouches for.
            "federation_verify_certificates": False,
            "ip_range_blacklist": [],
            # Each server's keys are asked of the server itself.
            "trusted_key_servers": [],
            "signing_key_path": str(self.folder / "signing.key"),
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "macaroon_secret_key": "interop",
            "form_secret": "interop",
            "report_stats": False,
            "log_config": str(log),
            "media_store_path": str(self.folder / "media"),
            "pid_file": str(self.folder / "pid"),
            "bcrypt_rounds": 4,
            "database": database.settings,
            **_without_limits(),
        }


def _listener(where: tuple[str, int], tls: bool, names: list[str]) -> dict:
    resources = [{"names": names, "compress": False}]
    return {"bind_addresses": [where[0]], "port": where[1], "type": "http", "tls": tls, "resources": resources}


def _without_limits() -> dict:
    """By default a user may set their presence once in ten seconds."""
    simple = ["presence", "message", "registration", "room_creation", "joins_per_room"]
    return {
        **{f"rc_{name}": _UNLIMITED for name in simple},
        "rc_presence": {"per_user": _UNLIMITED},
        "rc_login": {name: _UNLIMITED for name in ("address", "account", "failed_attempts")},
        "rc_joins": {name: _UNLIMITED for name in ("local", "remote")},
        "rc_federation": {
            "window_size": 1000,
            "sleep_limit": 100_000,
            "sleep_delay": 1,
            "reject_limit": 100_000,
            "concurrent": 100,
        },
    }


def _logging(file: Path) -> dict:
    return {
        "version": 1,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(file), "formatter": "line"}},
        "root": {"level": "WARNING", "handlers": ["file"]},
        "disable_existing_loggers": False,
    }
