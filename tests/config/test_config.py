"""Recipes, settings and what is said about wrong ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from terrasieve.config import load_config, load_curator, recipe_names, to_yaml, validate
from terrasieve.curation.balanced import BalancedClusters
from terrasieve.errors import ConfigError
from terrasieve.training.schedules import off_boundary_warning
from terrasieve.training.spec import AdamW, Cosine, CurationSpec, Sgd, WarmRestarts
from terrasieve.views.recipe import BandPick

PAPER = {
    "rs-byol-1",
    "rs-byol-1-bs64",
    "rs-byol-1-150k",
    "rs-byol-1-ms-only",
    "rs-byol-3-s1s2",
    "rs-byol-3-rgb-s1s2",
}


def _error(recipe: str | Path, *settings: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, settings)
    return str(caught.value)


def _write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


# ----------------------------------------------------------------------------- recipes


OCEAN = {f"oceansar-1-{backbone}" for backbone in ("resnet50", "vits16", "vits8", "vitb8")}


def test_the_shipped_recipes_are_the_papers_and_small_ones() -> None:
    rs_byol = {f"rs-byol-{name}-small" for name in ("1", "1-ms-only", "1-mixed", "3")}
    lejepa = {"rs-lejepa-1", "rs-lejepa-3", "rs-lejepa-1-small", "lejepa-small", "lejepa-medium"}
    dino = {"dino-small", "oceansar-small", "oceansar-lejepa-small", "oceansar-2-vits16", "oceansar-2-small"}
    assert set(recipe_names()) >= PAPER | OCEAN | rs_byol | lejepa | dino


@pytest.mark.parametrize("name", recipe_names())
def test_a_resolved_recipe_reads_back_equal(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert config.name == name
    assert config.description.endswith(".")
    assert load_config(_write(tmp_path, to_yaml(config))) == config


@pytest.mark.parametrize("name", recipe_names())
def test_a_resolved_recipe_states_every_parameter(name: str) -> None:
    config = load_config(name)
    stated = yaml.safe_load(to_yaml(config))
    missing = [path for path, _ in _fields(config) if not _has(stated, path)]
    assert missing == []
    assert len(list(_fields(config))) > 60


def _fields(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, BaseModel):
        for key in type(value).model_fields:
            yield (*path, key), getattr(value, key)
            yield from _fields(getattr(value, key), (*path, key))
    elif isinstance(value, tuple):
        for position, item in enumerate(value):
            yield from _fields(item, (*path, position))


def _has(stated: Any, path: tuple[str | int, ...]) -> bool:
    for key in path:
        if isinstance(stated, dict) and key not in stated:
            return False
        stated = stated[key]
    return True


@pytest.mark.parametrize("name", sorted(PAPER))
def test_what_the_paper_states_is_in_its_recipes(name: str) -> None:
    """Jain et al. 2022, section IV: heads, teacher, optimiser, schedule, length, batch and samples."""
    config = load_config(name)
    assert config.model.name == "resnet50"
    assert (config.method.hidden, config.method.output) == (256, 256)
    assert (config.method.momentum, config.method.momentum_end) == (0.9, None)
    assert config.train.optimiser == Sgd(lr=0.2, lr_end=0.002, momentum=0.9, weight_decay=1e-5)
    assert config.train.schedule == WarmRestarts(first_epochs=10, multiplier=2)
    assert config.train.epochs == 400
    assert config.train.batch_size == (64 if name == "rs-byol-1-bs64" else 32)
    assert config.train.accumulate == 1
    assert config.samples == (150_000 if name == "rs-byol-1-150k" else 90_000)
    assert "arXiv 2205.02049" in config.source
    assert "Not published, ours" in config.source
    assert off_boundary_warning(config.train.epochs, 10, 2) is not None


@pytest.mark.parametrize("name", sorted(PAPER))
def test_crops_and_blur_of_the_papers_recipes_are_those_of_byol(name: str) -> None:
    """Grill et al. 2020, appendix B: one distribution of augmentations for each of the two views."""
    views = load_config(name).views.views
    assert [view.augmentation.blur for view in views] == [1.0, 0.1]
    assert [view.kernel for view in views] == [23, 23]
    for view in views:
        assert view.augmentation.crop_scale == (0.08, 1.0)
        assert view.augmentation.crop_ratio == (3 / 4, 4 / 3)
        assert view.augmentation.blur_sigma == (0.1, 2.0)


@pytest.mark.parametrize(
    "name", [name for name in recipe_names() if name.startswith("rs-") and name.endswith("-small")]
)
def test_small_recipes_take_the_whole_archive(name: str) -> None:
    assert load_config(name).samples is None


OPTICAL = BandPick(sensor="optical", bands="rs-byol", count=1)
RADAR = BandPick(sensor="radar", bands="all", count=1)
PICKS = {
    "rs-byol-1": [(OPTICAL,), (RADAR,)],
    "rs-byol-1-bs64": [(OPTICAL,), (RADAR,)],
    "rs-byol-1-150k": [(OPTICAL,), (RADAR,)],
    "rs-byol-1-ms-only": [(OPTICAL,), (OPTICAL,)],
    "rs-byol-3-s1s2": [
        (BandPick(sensor="optical", bands="rs-byol", count=3),),
        (BandPick(sensor="radar", bands="all", count=3, fill=True),),
    ],
    "rs-byol-3-rgb-s1s2": [
        (BandPick(sensor="optical", bands="rgb", count=3),),
        (RADAR, BandPick(sensor="optical", bands="rs-byol-non-rgb", count=2)),
    ],
}


@pytest.mark.parametrize("name", sorted(PAPER))
def test_each_variant_shows_its_bands(name: str) -> None:
    config = load_config(name)
    assert [view.picks for view in config.views.views] == PICKS[name]
    assert config.views.distinct_bands is (name == "rs-byol-1-ms-only")
    assert config.model.channels == (3 if "-3-" in name else 1)
    for view in config.views.views:
        augmentation = view.augmentation
        assert (augmentation.grey > 0) is (view.channels == 3), "greyscale is for views of three bands only"
        turned = augmentation.quarter_turn + augmentation.rotation
        assert min(augmentation.horizontal_flip, augmentation.blur, augmentation.erase, turned) > 0


@pytest.mark.parametrize("name", sorted(OCEAN))
def test_what_oceansar_states_is_in_its_recipes(name: str) -> None:
    """Kerdreux et al. 2025: DINO, one channel of 256 pixels, and a pool that is drawn anew after a warm-up."""
    config = load_config(name)
    backbones = {"resnet50": "resnet50", "vits16": "vit_small_patch16_224"}
    backbones |= {"vits8": "vit_small_patch8_224", "vitb8": "vit_base_patch8_224"}
    assert config.model.name == backbones[name.removeprefix("oceansar-1-")]
    assert (config.model.channels, config.views.branches[0].size) == (1, 256)
    assert config.method.name == "dino"
    assert config.curation is not None
    assert config.curation.curator.name == "balanced"
    assert config.curation.every is not None
    assert "arXiv 2504.06962" in config.source
    assert "Not published, our" in config.source


@pytest.mark.parametrize("name", [name for name in recipe_names() if not name.startswith("rs-lejepa")])
def test_recipes_of_published_trainings_state_where_they_differ(name: str) -> None:
    """Those of LeJEPA on radar and optical views follow no publication in more than the method."""
    differs = load_config(name).differs
    if "lejepa" not in name:
        assert differs
    assert all(sentence.strip().endswith(".") and "here" in sentence for sentence in differs)


def test_the_list_of_differences_may_change_on_resume_and_is_shown() -> None:
    config = load_config("dino-small", ["differs=[Nothing is published.]"])
    assert config.differs == ("Nothing is published.",)
    assert "differs:" in to_yaml(config)


# ---------------------------------------------------------------------------- curation


@pytest.mark.parametrize(
    ("recipe", "kind", "every"),
    [
        ("rs-byol-1-small", "dynamic", 6.0),
        ("rs-byol-1-small", "static", None),
        ("oceansar-1-vits16", "static", None),
        ("oceansar-1-vits16", "dynamic", load_config("oceansar-1-vits16").curation.every),
    ],
)
def test_a_kind_of_curation_changes_the_rhythm_only(recipe: str, kind: Any, every: float | None) -> None:
    shipped, config = load_config(recipe).curation or CurationSpec(), load_config(recipe, curate=kind).curation
    assert config is not None
    assert config.every == every
    assert config.model_copy(update={"every": shipped.every}) == shipped


def test_curation_can_be_switched_off_and_on_by_settings() -> None:
    assert load_config("oceansar-1-vits16", curate="none").curation is None
    assert load_config("rs-byol-1-small").curation is None
    config = load_config(
        "rs-byol-1-small", ["curation.keep=0.2", "curation.curator=k-center", "curation.features=bank"]
    )
    assert config.curation is not None
    assert (config.curation.keep, config.curation.curator.name) == (0.2, "k-center")
    assert config.curation.features.name == "bank"


def test_settings_go_on_top_of_the_kind_of_curation() -> None:
    config = load_config("rs-byol-1-small", ["curation.keep=0.2"], curate="static")
    assert config.curation is not None
    assert (config.curation.keep, config.curation.every) == (0.2, None)


def test_a_curator_is_made_by_name_and_settings() -> None:
    curator = load_curator("balanced", ["diversity=0.5", "levels=[40,8]"])
    assert curator == BalancedClusters(diversity=0.5, levels=(40, 8))
    with pytest.raises(ConfigError, match=r"unknown key 'curator.diversty'. Did you mean 'diversity'"):
        load_curator("balanced", ["diversty=0.5"])
    with pytest.raises(ConfigError, match="balanced"):
        load_curator("balance")


# ---------------------------------------------------------------------------- settings


def test_settings_reach_scalars_items_and_all_items() -> None:
    config = load_config(
        "rs-byol-1-small",
        [
            "train.epochs=2.5",
            "views.branches.0.size=16",
            "views.branches.radar.size=24",
            "views.branches.*.augmentation.blur=0.75",
            "views.branches.*.augmentation.crop_scale=[0.5, 1]",
        ],
    )
    assert config.train.epochs == 2.5
    assert [view.size for view in config.views.branches] == [16, 24]
    assert [view.augmentation.blur for view in config.views.branches] == [0.75, 0.75]
    assert config.views.branches[1].augmentation.crop_scale == (0.5, 1.0)


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("train.optimiser.lr=1e-4", "train.optimiser.lr", 1e-4),
        ("train.optimiser.lr=.5E-3", "train.optimiser.lr", 5e-4),
        ("samples=2e3", "samples", 2000),
        ("samples=null", "samples", None),
        ("train.clip_norm=3", "train.clip_norm", 3.0),
        ("train.precision=32", "train.precision", "32"),
        ("train.precision=bf16", "train.precision", "bf16"),
        ("train.loggers=[tensorboard]", "train.loggers", ("tensorboard",)),
        ("name=infinity", "name", "infinity"),
        ("description=a = b", "description", "a = b"),
    ],
)
def test_values_are_read_as_they_are_meant(setting: str, path: str, value: Any) -> None:
    found: Any = load_config("rs-byol-1-150k", [setting])
    for key in path.split("."):
        found = getattr(found, key)
    assert found == value
    assert type(found) is type(value)


def test_a_variant_is_switched_by_its_name_and_then_set() -> None:
    config = load_config("rs-byol-1", ["train.optimiser=adamw", "train.schedule=cosine"])
    assert (config.train.optimiser, config.train.schedule) == (AdamW(), Cosine())
    config = load_config("rs-byol-1", ["train.optimiser=adamw", "train.optimiser.weight_decay=0.1"])
    assert config.train.optimiser == AdamW(weight_decay=0.1)


def test_later_settings_win() -> None:
    assert load_config("rs-byol-1", ["train.epochs=1", "train.epochs=2"]).train.epochs == 2


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_every_number_that_python_prints_is_read_back(value: float) -> None:
    assert load_config("rs-byol-1", [f"train.optimiser.lr={value!r}"]).train.optimiser.lr == value


# ------------------------------------------------------------------------ own recipes


def test_a_recipe_extends_another_by_name_or_beside_it(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    _write(tmp_path, "extends: rs-byol-1-small\nname: base\ntrain: {epochs: 3}\n", "base.yaml")
    _write(tmp_path, "extends: base.yaml\nname: middle\ntrain: {batch_size: 16}\n", "middle.yaml")
    config = load_config(_write(tmp_path / "deep", "extends: ../middle.yaml\nname: leaf\n"))
    assert (config.name, config.train.epochs, config.train.batch_size) == ("leaf", 3, 16)
    assert config.train.optimiser == load_config("rs-byol-1-small").train.optimiser


def test_another_variant_does_not_inherit_from_its_parents_variant(tmp_path: Path) -> None:
    config = load_config(_write(tmp_path, "extends: rs-byol-1\ntrain: {optimiser: {name: adamw, lr: 1e-3}}\n"))
    assert config.train.optimiser == AdamW(lr=1e-3)
    assert config.train.batch_size == 32


def test_another_backbone_keeps_the_number_of_bands(tmp_path: Path) -> None:
    config = load_config(_write(tmp_path, "extends: rs-byol-3-s1s2\nmodel: {name: resnet18}\n"))
    assert (config.model.name, config.model.channels) == ("resnet18", 3)
    assert load_config("rs-byol-3-s1s2", ["model.name=resnet18"]).model == config.model
    assert load_config("rs-byol-3-s1s2", ["model=resnet18"]).model == config.model


def test_cycles_are_named(tmp_path: Path) -> None:
    _write(tmp_path, f"extends: {tmp_path / 'b.yaml'}\n", "a.yaml")
    _write(tmp_path, "extends: a.yaml\n", "b.yaml")
    message = _error(tmp_path / "a.yaml")
    assert "extends itself" in message
    assert message.index("a.yaml") < message.index("b.yaml")
    assert "extends itself" in _error(_write(tmp_path, "extends: mine.yaml\n"))


# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("setting", "unknown", "meant"),
    [
        ("trian.epochs=3", "trian", "train"),
        ("train.optimser.lr=1", "train.optimser", "optimiser"),
        ("train.optimiser.momentun=0.5", "train.optimiser.momentun", "momentum"),
        ("train.schedule.first_epoch=3", "train.schedule.first_epoch", "first_epochs"),
        ("views.branches.*.augmentation.blurr=0.5", "views.branches.1.augmentation.blurr", "blur"),
        ("views.branches.optical.sise=32", "views.branches.0.sise", "size"),
        ("views.branches.*.picks.0.band=rgb", "views.branches.0.picks.0.band", "bands"),
        ("views.branches.0.picks=[{one_of: [], weigths: []}]", "views.branches.0.picks.0.weigths", "weights"),
        ("model.nmae=resnet18", "model.nmae", "name"),
        ("method.momentum_ends=1", "method.momentum_ends", "momentum_end"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(setting: str, unknown: str, meant: str) -> None:
    assert f"unknown key {unknown!r}. Did you mean {meant!r}?" in _error("rs-byol-1", setting)


def test_only_keys_of_the_chosen_variant_are_suggested() -> None:
    message = _error("rs-byol-1", "train.schedule.warmup_epoch=1")
    assert "unknown key 'train.schedule.warmup_epoch'. Known: first_epochs, multiplier, name." in message


def test_every_field_is_suggested_for_its_own_misspelling() -> None:
    config = load_config("rs-byol-1")
    for path, value in _fields(config):
        *parents, key = path
        if len(str(key)) > 3 and not isinstance(value, BaseModel | tuple):
            wrong = ".".join(map(str, [*parents, f"{key}x"]))
            assert f"unknown key {wrong!r}. Did you mean {key!r}?" in _error("rs-byol-1", f"{wrong}=1")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epochs=many", "train.epochs: Input should be a valid number.*'many'"),
        ("train.epochs=0", "train.epochs: Input should be greater than 0 .got 0."),
        ("train.optimiser.lr=-1", "train.optimiser.lr: Input should be greater than 0 .got -1."),
        ("train.precision=8", "train.precision: Input should be 'auto', '32', 'bf16' or '16'"),
        ("train.optimiser=adam", "train.optimiser: .*'adam'.*'sgd', 'adamw'"),
        ("train.accumulate=3", "train: batch_size 32 does not split into 3"),
        ("train.loggers=[wandbb]", "train.loggers.0: .*'tensorboard', 'wandb' or 'mlflow'.*'wandbb'"),
        ("views.branches.0.augmentation.grey=0.2", "view 'optical' .* needs three bands"),
        ("views.branches.*.name=same", "several views are called 'same'"),
        ("model.channels=3", "\n  view 'optical' shows 1 band.* model.channels is 3"),
        ("model=null", "model: Input should be a valid dictionary.*got None"),
        ("train.epochs", "--set 'train.epochs' is not of the form key=value"),
        ("=3", "is not of the form key=value"),
        ("train.epochs=[", "the value is not valid YAML"),
        ("train.epochs.more=3", "'more' is below a single value"),
        ("views.branches.radr.size=32", "no item 'radr'. Did you mean 'radar'?"),
        ("views.branches.2.size=32", "no item '2'. Known: optical, radar."),
    ],
)
def test_a_wrong_setting_is_explained(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        load_config("rs-byol-1", [setting])


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    message = _error(_write(tmp_path, "extends: rs-byol-1\nmodle: {}\ntrain: {epochs: no, seed: -1}\n"))
    assert all(part in message for part in ("mine.yaml", "'modle'", "train.epochs", "train.seed", "got -1"))


def test_a_missing_block_is_named(tmp_path: Path) -> None:
    assert "views: Field required" in _error(_write(tmp_path, "name: mine\n"))


def test_an_unknown_recipe_names_the_nearest() -> None:
    assert "'rs-byl-1'. Did you mean 'rs-byol-1'?" in _error("rs-byl-1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "holds list"),
        (b"", "holds NoneType"),
        (b"name: [", "is not valid YAML"),
        (b"\x89PNG\x00\xff\xfe", "is not valid YAML"),
        (b"extends: [rs-byol-1]\n", "name one recipe"),
        (b"extends: nowhere.yaml\n", "No recipe and no file is called 'nowhere.yaml'"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    assert message in _error(path)


def test_yaml_cannot_execute_code(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    bomb = f"!!python/object/apply:os.mkdir ['{target}']"
    assert "is not valid YAML" in _error(_write(tmp_path, f"name: {bomb}\n"))
    assert "is not valid YAML" in _error("rs-byol-1", f"name={bomb}")
    assert not target.exists()
    yaml.unsafe_load(bomb)
    assert target.exists(), "the text does execute code where that is allowed"


def test_a_configuration_cannot_be_changed_after_it_was_checked() -> None:
    config = load_config("rs-byol-1")
    for value in (config, config.train, config.views.branches[0].augmentation):
        with pytest.raises(ValueError, match="frozen"):
            value.name = "other"  # type: ignore[misc]


def test_plain_values_are_validated_like_a_recipe() -> None:
    values = load_config("rs-byol-1").model_dump(mode="json")
    assert validate(values, "here") == load_config("rs-byol-1")
    with pytest.raises(ConfigError, match=r"^here is not a valid"):
        validate({**values, "samples": 1}, "here")
