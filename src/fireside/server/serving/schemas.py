"""What the routes of the served models take and give."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from fireside.server.api.schemas.common import Request
from fireside.server.chat.schemas import Parameters


class Unload(Request):
    when: Literal["finished", "now"] | None = Field(
        default=None,
        description="After the answers that are being written, or at once: those are then interrupted. Null: only if "
        "there are none.",
    )


class Restart(Request):
    when: Literal["now"] | None = Field(
        default=None,
        description="At once: answers being written are interrupted. Null: only if there are none.",
    )


class ModelChange(Request):
    is_default: Literal[True] | None = None
    parameters: Parameters | None = Field(default=None, description="In place of all that were set before.")


class ServedModelView(BaseModel):
    """A model that is on this machine, or is served."""

    name: str
    state: Literal["available", "damaged", "starting", "ready", "restarting", "failed", "closed", "unloading"]
    reason: str = Field(default="", description="Why it cannot answer.")
    is_served: bool = Field(default=False, description="Whether it has an engine, which may have failed.")
    is_default: bool = False
    answering: int = Field(default=0, description="Answers that are being written with it.")
    parameters: Parameters = Field(description="Of the app's answers, where neither person nor conversation says.")
    format: str | None = None
    architecture: str | None = None
    weight_type: str | None = None
    base: str | None = Field(default=None, description="Of an adapter.")
    license: str | None = None
    size_bytes: int | None = None
    context_length: int | None = Field(default=None, description="Tokens of prompt and answer together.")
    needs_bytes: int | None = Field(default=None, description="Of memory, at least, to be loaded. An estimate.")
    device: str | None = None
    dtype: str | None = None
    cache_tokens: int | None = Field(default=None, description="That its cache holds.")


class ServedModelsView(BaseModel):
    items: list[ServedModelView]
    free_bytes: int = Field(description="Of memory, that no loaded model will come to need.")
