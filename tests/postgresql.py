"""A PostgreSQL server for tests: in a folder of its own, on a Unix socket, gone afterwards.

`python tests/postgresql.py` installs Debian's package where there is none; `make test` begins with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEBIAN = Path("/usr/lib/postgresql")
NO_SERVER_OF_ITS_OWN = Path("/etc/postgresql-common/createcluster.d/adk-gke-sandbox.conf")


def binaries() -> Path | None:
    """Return the folder with `initdb` and `postgres`; Debian's is not on PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return max((path.parent for path in DEBIAN.glob("*/bin/initdb")), default=None)


def install() -> None:
    """Install Debian's package, without the server that it would start."""
    from infra.local.prerequisites import install_commands

    NO_SERVER_OF_ITS_OWN.parent.mkdir(parents=True, exist_ok=True)
    NO_SERVER_OF_ITS_OWN.write_text("create_main_cluster = false\n")
    for command in install_commands(["postgresql"]):
        print("$", *command, flush=True)
        subprocess.run(command, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


@contextmanager
def running() -> Iterator[str]:
    """Start a server; yield its URL for SQLAlchemy. Root cannot run one: the user of Debian's package does then."""
    tools = binaries()
    assert tools, "there is no PostgreSQL: python tests/postgresql.py installs it"
    user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="adk-postgresql-") as folder:
        if user:
            shutil.chown(folder, user["user"], user["group"])
        data = f"{folder}/data"
        options = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
        made = subprocess.run([tools / "initdb", "-D", data, *options], cwd=folder, capture_output=True, **user)
        assert made.returncode == 0, made.stderr.decode(errors="replace")
        server = subprocess.Popen(
            [tools / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-F"],
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
            **user,
        )
        try:
            assert server.stderr
            told = []
            for line in server.stderr:
                told.append(line)
                if "ready to accept connections" in line:
                    break
            else:
                raise AssertionError("".join(told))
            yield f"postgresql+asyncpg://postgres@/postgres?host={folder}"
        finally:
            # The fast way: it does not wait for clients.
            server.send_signal(signal.SIGINT)
            server.communicate()


if __name__ == "__main__":
    if binaries() is None:
        sys.path.insert(0, str(Path(__file__).parent.parent))
        install()
