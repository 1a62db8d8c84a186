"""A real PostgreSQL server on a unix socket in a directory of its own."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg


def programs() -> Path | None:
    """The directory of initdb and postgres, or None where there is no PostgreSQL."""
    found = shutil.which("postgres")
    installed = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    complete = [place for place in installed if (place / "initdb").exists() and (place / "postgres").exists()]
    return complete[-1] if complete else None


class PostgresqlServer:
    """A server that can be killed and started again.

    Args:
        place: The directory of its programs.
        durable: Whether it flushes the disk; tests do without.
    """

    def __init__(self, place: Path, *, durable: bool = False) -> None:
        self._place = place
        self._durable = durable
        self.password = secrets.token_hex(8)
        self.directory = Path(tempfile.mkdtemp(prefix="pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root.
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            account = next(
                found for name in ("postgres", "nobody") for found in pwd.getpwall() if found.pw_name == name
            )
            self._as = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(self.directory, account.pw_uid, account.pw_gid)
        self._run("initdb", "-D", str(self.directory / "data"), "-U", "viseme", "--auth=trust", "-E", "UTF8")

    @property
    def url(self) -> str:
        """Of its database."""
        return f"postgresql://viseme:{self.password}@/postgres?host={self.directory}"

    def empty(self) -> str:
        """Removes everything from its database; returns its URL."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        return self.url

    def start(self) -> None:
        command = [str(self._place / "postgres"), "-D", str(self.directory / "data"), "-h", ""]
        command += ["-k", str(self.directory), *([] if self._durable else ["-F"])]
        log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log, **self._as)
        log.close()
        end = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise
                time.sleep(0.05)  # it tells nobody that it is ready

    def stop(self) -> None:
        """Ends it at once; connections break."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._place / program), *arguments]
        subprocess.run(command, cwd=self.directory, check=True, capture_output=True, **self._as)
