"""What can be known to be wrong with a recipe before a run of it is begun."""

from __future__ import annotations

from fireside.data.hub import is_on_hub, resolved
from fireside.data.sources import source_files
from fireside.errors import RecipeError
from fireside.models.local import resolve_model
from fireside.settings import Settings
from fireside.training.export import check_name
from fireside.training.hardware import device_of
from fireside.training.memory import check_memory, estimate_of
from fireside.training.recipe import Recipe, StageConfig
from fireside.training.scaling import model_config, plan_of
from fireside.training.trackers import check_tracking

_MUCH = 1 << 40


def check_recipe(recipe: Recipe, settings: Settings) -> None:
    """Raises `FiresideError`: a name that is taken, data, base or tracker that is not there, too little memory, or text
    that one stage holds out and another trains on."""
    check_name(recipe.name, settings, base=recipe.base)
    check_tracking(recipe.tracking)
    for stage in recipe.stages.values():
        for source in stage.data.sources:
            if not is_on_hub(source):
                source_files(source)
    _check_splits(recipe)
    base = None if recipe.base is None else resolve_model(recipe.base, settings)
    if base is not None:
        config = base.config
        if base.base is not None and recipe.lora is not None and not recipe.lora.merge:
            raise RecipeError(
                f"{base.name} is an adapter of {base.base.name}, and lora.merge = false would make an adapter of an "
                f"adapter: leave it true, or begin with {base.base.name}"
            )
    else:
        assert recipe.tokenizer is not None and recipe.model is not None  # the recipe has seen to it
        longest = max(stage.packing.sequence_length for stage in recipe.stages.values())
        config = model_config(recipe.model, vocab_size=recipe.tokenizer.vocab_size, longest_row=longest)
    device = device_of(recipe.hardware)
    for name in recipe.stages:
        # The size of the data is not known yet: of little, passes may be smaller.
        plan = plan_of(recipe, name, config, tokens_per_epoch=_MUCH)
        estimate = estimate_of(recipe, name, config, plan, base, device)
        check_memory(name, estimate, device, processes=recipe.hardware.devices)


def pin_datasets(recipe: Recipe) -> Recipe:
    """The recipe with every dataset of the hub as the commit that it is now, for all of the run. Raises `DataError`."""
    stages: dict[str, StageConfig] = {}
    for name, stage in recipe.stages.items():
        sources = tuple(resolved(source) for source in stage.data.sources)
        stages[name] = stage.model_copy(update={"data": stage.data.model_copy(update={"sources": sources})})
    return recipe.model_copy(update=stages)


def _check_splits(recipe: Recipe) -> None:
    split: dict[str, tuple[str, object]] = {}
    for name, stage in recipe.stages.items():
        for source in stage.data.sources:
            by_hash = (stage.data.validation_fraction, stage.data.validation_name)
            how = by_hash if source.use == "split" else source.use
            first, other = split.setdefault(source.path, (name, how))
            if other != how:
                raise RecipeError(
                    f"{source.path} is split otherwise in {name} than in {first}, so that what one holds out the other "
                    "would train on: give both the same validation_fraction, validation_name and use"
                )
