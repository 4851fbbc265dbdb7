"""Which models are served, and which server did it last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "served_models",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("is_loaded", sa.Boolean(), nullable=False),
        sa.Column("chosen_over", sa.String(512)),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.UniqueConstraint("name", name="uq_served_models_name"),
    )
    op.create_table(
        "servings",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
    )
