"""`GET /v1/models` and `GET /v1/models/{id}`."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from fireside.assistant.text_model import TextModel
from fireside.server.body import BoundedRoute
from fireside.server.deps import CurrentContext

router = APIRouter(route_class=BoundedRoute, tags=["models"])


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When this server began to serve it, in seconds since 1970.")
    owned_by: Literal["fireside"] = "fireside"
    max_model_len: int = Field(description="Tokens of prompt and answer together. vLLM's field.")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/v1/models")
async def list_models(context: CurrentContext) -> ModelList:
    return ModelList(data=[_describe(model, context.models.created) for model in context.models])


@router.get("/v1/models/{model:path}")  # a path, since names may have slashes in them
async def retrieve_model(model: str, context: CurrentContext) -> Model:
    """`default` is the default model, under its own name."""
    return _describe(context.models.get(model), context.models.created)


def _describe(model: TextModel, created: int) -> Model:
    return Model(id=model.name, created=created, max_model_len=model.context_length)
