"""The configuration of a run: recipes in YAML, ``--set a.b=c`` on top, one frozen value out."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, model_validator

from terrasieve.curation.curator import CURATORS, Curator, CuratorSpec
from terrasieve.errors import ConfigError, nearest
from terrasieve.methods.base import METHODS, MethodSpec
from terrasieve.models.backbone import BackboneSpec
from terrasieve.registry import Registry, plugin_folders, variant_of
from terrasieve.schema import Spec, parse_yaml
from terrasieve.training.spec import CurationSpec, TrainSpec
from terrasieve.views.recipe import ViewRecipe

_SCIENTIFIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")

CurationKind = Literal["dynamic", "static", "none"]

_VARIANTS = {"method", "optimiser", "schedule", "curator", "features"}
"""Blocks whose ``name`` decides which settings they have."""

_REGISTRIES: Mapping[type[BaseModel], Registry[Any]] = {MethodSpec: METHODS, Curator: CURATORS}
"""Of a field of such a type, where its variants are registered."""


class ModelSpec(BackboneSpec):
    """Which network is trained, and the weights that it starts from.

    Attributes:
        init: Pretrained weights that the network starts from: a run folder or encoder folder, a file with a state dict
            of ``name``, a folder of Hugging Face's, or a text form of a baseline such as ``imagenet:resnet18``; null
            starts from random ones. See :func:`terrasieve.baselines.starting.start_from`.
        checkpoint: Whether the backward pass computes the network's blocks a second time instead of keeping what they
            made in memory: a third more time, for a small part of the memory; the gradients are the same. Refused for
            networks with batch normalisation.
    """

    init: str | None = Field(default=None, min_length=1)
    checkpoint: bool = False

    @property
    def backbone(self) -> BackboneSpec:
        """The network alone."""
        return BackboneSpec.model_validate(self.model_dump(exclude={"init", "checkpoint"}))


class RunConfig(Spec):
    """Everything that decides what a pre-training run computes, apart from the archive's pixels.

    Attributes:
        name: What the recipe is called, in lists and on the model's card.
        description: One sentence for the list of recipes.
        source: The publication, and which values are ours rather than published.
        differs: What the publication, or the code that belongs to it, does in another way than this recipe, a sentence
            each; none where there is no publication to follow.
        samples: Train on at most this many samples of the archive, drawn with the run's seed; null takes all.
        views: What the method sees of a sample.
        model: Which network is trained, for how many bands, and from which weights.
        method: Which self-supervised method trains it, with the method's own settings.
        train: How long it is trained, by which optimiser, in which precision, and what is done once in a while.
        curation: How the pool is drawn anew while the model trains; null trains on all samples throughout.
    """

    name: str
    description: str
    source: str
    differs: tuple[str, ...] = ()
    samples: int | None = Field(default=None, ge=2)
    views: ViewRecipe
    model: ModelSpec
    method: Annotated[SerializeAsAny[MethodSpec], variant_of(METHODS)]
    train: TrainSpec
    curation: CurationSpec | None = None

    @model_validator(mode="after")
    def _views_fit_the_model(self) -> Self:
        for branch in self.views.branches:
            if branch.channels != self.model.channels:
                raise ValueError(
                    f"view {branch.name!r} shows {branch.channels} band(s), but model.channels is "
                    f"{self.model.channels}; set model.channels to what the views show"
                )
        return self


class _Choice(Spec):
    curator: CuratorSpec


def recipe_names() -> list[str]:
    """Names of the recipes that are shipped with terrasieve and with plug-ins, sorted."""
    return sorted(_recipes())


def load_config(recipe: str | Path, overrides: Sequence[str] = (), curate: CurationKind | None = None) -> RunConfig:
    """Read a recipe and apply ``key=value`` settings.

    Args:
        recipe: Name of a recipe that is listed by :func:`recipe_names`, or path of a YAML file.
        overrides: Settings such as ``train.epochs=20``. A list is entered by position, by the ``name`` of
            an item, or by ``*`` for all items: ``views.branches.*.size=32``.
        curate: Change how the recipe curates, before the settings: ``dynamic`` in rounds, ``static`` once after the
            warm-up, ``none`` never.

    Raises:
        ConfigError: Unknown recipe, key or value; the message names the nearest one.
    """
    values = _read_recipe(recipe)
    if curate is not None:
        values["curation"] = _curated(values.get("curation"), curate)
    for override in overrides:
        _apply(values, override)
    return validate(values, origin=str(recipe))


def load_curator(name: str, settings: Sequence[str] = ()) -> Curator:
    """A curator by name, with settings of its own.

    Args:
        name: One of the names in :data:`terrasieve.curation.curator.CURATORS`.
        settings: Settings in the form ``key=value``, such as ``diversity=0.5``.

    Raises:
        ConfigError: Unknown name, key or value; the message names the nearest one.
    """
    values: dict[str, Any] = {"curator": {"name": name}}
    for setting in settings:
        _apply(values, f"curator.{setting}")
    try:
        return _Choice.model_validate(values).curator
    except ValidationError as error:
        lines = [_explain(problem, _Choice) for problem in error.errors(include_url=False)]
        raise ConfigError("The curator is not valid:\n  " + "\n  ".join(lines)) from error


def validate(values: Mapping[str, Any], origin: str) -> RunConfig:
    """Check plain values against the schema.

    Args:
        values: The settings as YAML gives them.
        origin: Where they stand, such as the name of a recipe; errors begin with it.

    Raises:
        ConfigError: A key is unknown or a value does not fit; every problem is named.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        lines = [_explain(problem, RunConfig) for problem in error.errors(include_url=False)]
        raise ConfigError(f"{origin} is not a valid configuration:\n  " + "\n  ".join(lines)) from error


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration, every parameter included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


# ------------------------------------------------------------------------ reading


def _curated(block: Mapping[str, Any] | None, kind: CurationKind) -> dict[str, Any] | None:
    if kind == "none":
        return None
    rest = {key: value for key, value in (block or {}).items() if key != "every" or value is not None}
    return {**rest, "every": None} if kind == "static" else rest


def _read_recipe(recipe: str | Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    if str(recipe) in seen:
        raise ConfigError(f"Recipe {recipe} extends itself: {' -> '.join([*seen, str(recipe)])}.")
    values = _parse(recipe)
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str):
        raise ConfigError(f"{recipe} extends {parent!r}; name one recipe or one YAML file.")
    beside = Path(recipe).parent / parent
    return _merge(_read_recipe(beside if beside.is_file() else parent, (*seen, str(recipe))), values)


def _parse(recipe: str | Path) -> dict[str, Any]:
    try:
        values = parse_yaml(_recipe_text(recipe))
    except yaml.YAMLError as error:
        raise ConfigError(f"{recipe} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{recipe} holds {type(values).__name__}, not a mapping of settings such as `name: mine`.")
    return values


def _recipes() -> dict[str, Traversable]:
    """The file of each recipe; of two with one name, ours."""
    folders = [*reversed(plugin_folders("recipes", "terrasieve.recipes")), resources.files("terrasieve.recipes")]
    files = [file for folder in folders for file in folder.iterdir() if file.name.endswith(".yaml")]
    return {file.name.removesuffix(".yaml"): file for file in files}


def _recipe_text(recipe: str | Path) -> bytes:
    known = _recipes()
    if str(recipe) in known:
        return known[str(recipe)].read_bytes()
    path = Path(recipe)
    if path.is_file():
        return path.read_bytes()
    raise ConfigError(f"No recipe and no file is called {str(recipe)!r}.{nearest(str(recipe), known)}")


def _merge(base: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both and not _other_variant(key, merged[key], value) else value
    return merged


def _other_variant(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a block becomes another variant, to which the settings of the old one do not belong."""
    return key in _VARIANTS and "name" in new and new["name"] != old.get("name")


# ---------------------------------------------------------------------- overrides


def _apply(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise ConfigError(f"--set {override!r} is not of the form key=value, for example train.epochs=20.")
    try:
        value = parse_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML: {error}") from error
    # YAML 1.1 reads 1e-4 as text; everybody means the number.
    _set(values, path.split("."), float(text) if _SCIENTIFIC.fullmatch(text) else value, override)


def _set(node: Any, path: Sequence[str], value: Any, override: str) -> None:
    head, *rest = path
    if isinstance(node, list):
        for position in _positions(node, head, override):
            if rest:
                _set(node[position], rest, value, override)
            else:
                node[position] = value
    elif isinstance(node, dict):
        if rest:
            below = node.get(head)
            node[head] = {} if below is None else below
            _set(node[head], rest, value, override)
        else:
            node[head] = _replaced(head, node.get(head), value)
    else:
        raise ConfigError(f"--set {override!r}: {head!r} is below a single value, which has no settings of its own.")


def _replaced(key: str, old: Any, new: Any) -> Any:
    """The new value; a bare name stands for the block of that name."""
    if not isinstance(new, str) or not (key in _VARIANTS or (isinstance(old, dict) and "name" in old)):
        return new
    if not isinstance(old, dict):
        return {"name": new}
    return {"name": new} if _other_variant(key, old, {"name": new}) else {**old, "name": new}


def _positions(items: list[Any], key: str, override: str) -> Iterator[int]:
    names = [str(item.get("name", i)) if isinstance(item, dict) else str(i) for i, item in enumerate(items)]
    if key == "*":
        yield from range(len(items))
    elif key in names:
        yield names.index(key)
    elif key.isdigit() and int(key) < len(items):
        yield int(key)
    else:
        raise ConfigError(f"--set {override!r}: no item {key!r}.{nearest(key, names)}")


# ------------------------------------------------------------------------- errors


def _explain(problem: Any, root: type[BaseModel]) -> str:
    keys, models = _follow(problem["loc"], root)
    where = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {where!r}.{nearest(keys[-1], {key for model in models for key in model.model_fields})}"
    value = f" (got {problem['input']!r})" if not isinstance(problem["input"], Mapping) else ""
    said = f"{problem['msg'].removeprefix('Value error, ')}{value}"
    return f"{where}: {said}" if where else said


def _follow(location: Sequence[int | str], root: type[BaseModel]) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys of pydantic's path as a user writes them, and the schemas in which the last of them was looked up."""
    keys: list[str] = []
    at: list[type[BaseModel]] = [root]
    below = at
    for part in location:
        if variant := [model for model in below if part in (model.__name__, _default_name(model))]:
            below = variant  # pydantic names the variant, users do not
            continue
        keys.append(str(part))
        if isinstance(part, str):
            at = below
            fields = [model.model_fields[part] for model in at if part in model.model_fields]
            below = [inner for field in fields for inner in _models_in(field.annotation)]
    return keys, at


def _default_name(model: type[BaseModel]) -> Any:
    return model.model_fields["name"].default if "name" in model.model_fields else None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _REGISTRIES[annotation].values() if annotation in _REGISTRIES else (annotation,)
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
