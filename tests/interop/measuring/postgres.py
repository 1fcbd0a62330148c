"""A private PostgreSQL, as durable as it comes."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from children import Child, free_port, until


class Postgres:
    """Ends with this process. PostgreSQL refuses to run as root: then its own user runs it."""

    def __init__(self, folder: Path):
        folder.mkdir(mode=0o700)
        self.port = free_port("127.0.0.1")
        self._folder = folder
        self._options = _unprivileged(folder)
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        assert programs, "PostgreSQL is not installed: apt-get install postgresql"
        self._programs = programs[-1]
        self._child = None

    @property
    def pid(self) -> int:
        return self._child.pid

    async def start(self, log: Path):
        data = self._folder / "data"
        self._run("initdb", "-D", data, "-E", "UTF8", "--locale=C", "-A", "trust", "-U", "postgres")
        address = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-k", self._folder]
        memory = ["-c", "shared_buffers=256MB"]
        self._child = Child([self._programs / "postgres", "-D", data, *address, *memory], log, **self._options)
        await until(self._accepts, lambda: f"PostgreSQL accepts:\n{self._child.last_words()}", every=0.1)

    def create(self, database: str):
        self._run("createdb", *self._where(), "-T", "template0", "-E", "UTF8", "--locale=C", database)

    async def stop(self):
        await self._child.terminate()

    def _accepts(self) -> bool:
        return subprocess.run([self._programs / "pg_isready", "-q", *self._where()[:4]]).returncode == 0

    def _where(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]

    def _run(self, program: str, *arguments):
        command = [self._programs / program, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self._folder, **self._options)


def _unprivileged(folder: Path) -> dict:
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    shutil.chown(folder, user.pw_uid, user.pw_gid)
    # It has to get as far as its own folder.
    folder.parent.chmod(0o711)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
