"""From every earlier version's tables to this one's, by Alembic, one file a step in `versions/`.

A new step: write `versions/NNNN_what.py` by hand, with `revision` and `down_revision`, and set `HEAD`. A test compares
what the steps make with the tables as they are declared.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

HEAD = "0004"


def upgrade(connection: Connection) -> None:
    """To `HEAD`, within the connection's transaction."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # every first start would begin with ten lines of it
    from alembic.runtime.migration import MigrationContext

    scripts = _scripts()
    context = MigrationContext.configure(
        connection,
        opts={
            "fn": lambda revision, _: scripts._upgrade_revs(HEAD, revision),
            "script": scripts,
        },
    )
    from alembic.operations import Operations

    with Operations.context(context):
        context.run_migrations()


def known() -> frozenset[str]:
    """All revisions that this version can come from."""
    return frozenset(script.revision for script in _scripts().walk_revisions())


def _scripts() -> Any:
    from alembic.script import ScriptDirectory  # an import of 100 ms that a start on a current database does without

    return ScriptDirectory(Path(__file__).parent)
