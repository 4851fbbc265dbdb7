"""`python -m fireside.server.db.open_apart`: `Database.open` of the URL on the standard input, in a process of its own.

Alembic and what it brings would stay in a server's memory for good, for the second in which a first start needs them.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

REFUSED = 3  # exit status; why is on the standard output


def run(url: str) -> str | None:
    """None once the tables are this version's; else why they are not.

    url: with its password, which no list of processes may show.
    """
    # Our own import path, wherever it comes from; a folder that we happen to be in is no part of it.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    child = subprocess.run(
        [sys.executable, "-P", "-m", "fireside.server.db.open_apart"],
        input=url,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
    )
    if child.returncode == 0:
        return None
    return child.stdout if child.returncode == REFUSED else f"making its tables ended with status {child.returncode}"


async def _open(url: str) -> str | None:
    from fireside.server.db.database import Database, DatabaseError

    database = Database(url)
    try:
        await database.open()
    except DatabaseError as error:
        return str(error)
    finally:
        await database.close()
    return None


if __name__ == "__main__":
    if (reason := asyncio.run(_open(sys.stdin.read()))) is not None:
        sys.stdout.write(reason)
        sys.exit(REFUSED)
