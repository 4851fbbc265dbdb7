"""Which model answers, and how: what was asked for, else what the conversation has, else the server's own."""

from __future__ import annotations

from contextlib import ExitStack

from fireside.assistant.text_model import TextModel
from fireside.server.chat.instructions import models_own
from fireside.server.chat.runs.answering import TEMPERATURE
from fireside.server.chat.schemas import Answering, Parameters
from fireside.server.chat.tables import Conversation
from fireside.server.registry import ModelRegistry


class Choice(ExitStack):
    """Of one request, for a `with` that ends when its runs have begun: until then, what is chosen counts as answering,
    so that no model goes between being chosen and being asked."""

    def __init__(self, models: ModelRegistry) -> None:
        super().__init__()
        self._models = models
        self._held: set[TextModel] = set()

    def chosen(self, conversation: Conversation, how: Answering) -> tuple[TextModel, Parameters]:
        """Raises `ApiError` 404 for an unknown model; a conversation whose own is gone goes on with the default."""
        own, models = conversation.model, self._models
        if how.model is not None:
            model = models.get(how.model)
        else:
            model = models.get(own) if own is not None and models.knows(own) else models.default
        if model not in self._held:
            self._held.add(model)
            self.enter_context(model.beginning())
        parameters = Parameters.model_validate(conversation.parameters)
        if how.parameters is not None:
            parameters = how.parameters.over(parameters)
        return model, parameters.over(models_own(models, model.name))

    def drawing(self, conversation: Conversation, how: Answering) -> Answering:
        """So that something else is said than before: where nobody chose how and its authors want the likeliest words,
        the model draws."""
        model, wanted = self.chosen(conversation, how)
        if wanted.temperature is not None or wanted.seed is not None or model.defaults.temperature != 0:
            return how
        drawn = Parameters(temperature=TEMPERATURE)
        return Answering(model=how.model, parameters=drawn.over(how.parameters or Parameters()))
