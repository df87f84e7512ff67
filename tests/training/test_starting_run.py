"""Runs that start from pretrained weights: what is computed, stated, compared and gone on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive
from terrasieve.config import RunConfig, load_config
from terrasieve.errors import CheckpointError, TrainingError
from terrasieve.models.backbone import Encoder, build_encoder
from terrasieve.models.export import load_encoder
from terrasieve.pretraining import make_job, pretrain
from terrasieve.reporting.card import write_card
from terrasieve.reporting.page import write_report
from terrasieve.training.checkpoints import checkpoints
from terrasieve.training.loop import make_fabric

pytestmark = pytest.mark.slow

MakeConfig = Callable[..., RunConfig]
DECAY = "train.optimiser.layer_decay=0.6"


def run(config: RunConfig, archive: Archive, folder: Path, resume: bool = False) -> Path:
    pretrain(config, archive, folder, make_fabric(config.train, "cpu"), resume=resume)
    return folder


@pytest.fixture(scope="module")
def first(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ours that others go on from."""
    settings = ["model.name=test_resnet", "views.branches.*.size=32", "train.batch_size=8", "train.epochs=1"]
    config = load_config("rs-byol-1", [*settings, "train.schedule=cosine", "train.collapse_std=0"])
    return run(config, archive, tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of the same network for three channels of nobody knows what."""
    spec = load_config("rs-byol-1", ["model.name=test_resnet"]).model.backbone.model_copy(update={"channels": 3})
    path = tmp_path_factory.mktemp("weights") / "photographs.safetensors"
    save_file(build_encoder(spec, seed=9).model.state_dict(), path)
    return path


def test_a_run_of_ours_goes_on_with_a_new_archive(first: Path, plain_config: MakeConfig, tmp_path: Path) -> None:
    source, _ = load_encoder(first)
    job = make_job(plain_config(f"model.init={first}", "train.seed=5"), open_archive("simulated:7:16"), tmp_path)
    pixels = torch.randn(3, 1, 32, 32)
    for encoder in (job.method.encoder, job.method.target_encoder):
        with torch.no_grad():
            torch.testing.assert_close(encoder.eval()(pixels), source(pixels), rtol=0, atol=0)


def test_the_same_run_twice_is_the_same_to_the_bit(
    first: Path, archive: Archive, plain_config: MakeConfig, tmp_path: Path
) -> None:
    config = plain_config(f"model.init={first}", DECAY)
    one, two = (run(config, archive, tmp_path / name) / "encoder" / "encoder.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    other = run(plain_config(DECAY), archive, tmp_path / "random") / "encoder" / "encoder.safetensors"
    assert one.read_bytes() != other.read_bytes()


def test_a_stopped_run_goes_on_to_the_same_bits(
    photographs: Path, archive: Archive, small_config: MakeConfig, tmp_path: Path
) -> None:
    config = small_config(f"model.init={photographs}", DECAY, "train.evaluate_steps=1", "train.keep_checkpoints=9")
    whole = run(config, archive, tmp_path / "whole")
    seen = 0

    def stop(encoder: Encoder) -> Mapping[str, float]:
        nonlocal seen
        seen += 1
        if seen == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with pytest.raises(TrainingError, match="Go on with --resume"):
        pretrain(config, archive, tmp_path / "stopped", make_fabric(config.train, "cpu"), evaluate=stop)
    stopped = run(config, archive, tmp_path / "stopped", resume=True)
    ours, theirs = (checkpoints(folder / "checkpoints")[-1] for folder in (stopped, whole))
    assert ours.name == theirs.name
    for name in ("method.safetensors", "optimiser.safetensors"):
        found, wanted = load_file(ours / name), load_file(theirs / name)
        assert found.keys() == wanted.keys()
        assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []
    rates = [group["lr"] for group in json.loads((ours / "state.json").read_text())["optimiser"]["groups"]]
    assert len(set(rates)) == 5  # a stem and four stages, the last with the heads


def test_a_run_of_before_there_were_starting_weights_goes_on(
    archive: Archive, small_config: MakeConfig, tmp_path: Path
) -> None:
    config = small_config("train.keep_checkpoints=99", "train.checkpoint_minutes=1e-9")
    folder = run(config, archive, tmp_path / "run")
    *_, middle, last = checkpoints(folder / "checkpoints")
    wanted = load_file(last / "method.safetensors")
    shutil.rmtree(last)
    state = json.loads((middle / "state.json").read_text())
    del state["config"]["model"]["init"], state["config"]["data"]["start"]
    del state["config"]["train"]["optimiser"]["layer_decay"]
    for group in state["optimiser"]["groups"]:
        del group["lr_scale"]
    (middle / "state.json").write_text(json.dumps(state))
    run(config, archive, folder, resume=True)
    found = load_file(last / "method.safetensors")
    assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []


def test_other_weights_are_not_gone_on_with(
    photographs: Path, archive: Archive, plain_config: MakeConfig, tmp_path: Path
) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(photographs.read_bytes())
    config = plain_config(f"model.init={weights}", "train.steps=2")
    run(config, archive, tmp_path / "run")
    save_file({key: tensor + 1 for key, tensor in load_file(photographs).items()}, weights)
    with pytest.raises(CheckpointError, match=r"data\.start was '\w+', now '\w+'"):
        run(config, archive, tmp_path / "run", resume=True)
    with pytest.raises(CheckpointError, match=r"model\.init was '.*', now None"):
        run(plain_config("train.steps=2"), archive, tmp_path / "run", resume=True)


def test_it_is_stated_wherever_one_may_look(
    photographs: Path, archive: Archive, plain_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(plain_config(f"model.init={photographs}", "train.steps=2"), archive, tmp_path / "run")
    said = "averaged over 3 bands"
    assert f"First layer: {said}." in capsys.readouterr().err
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["init"] == str(photographs)
    _, card = load_encoder(folder)
    assert card.provenance.start is not None
    assert card.provenance.start.first_layer == said
    # What the card says of the network builds it anywhere, without the weights that it started from.
    assert "init" not in json.loads((folder / "encoder" / "encoder.json").read_text())["backbone"]
    readme = write_card(folder).read_text()
    assert f"- First layer: {said}" in readme
    assert "starting from the weights of timm test" in readme
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert said in page


def test_a_run_from_random_weights_says_nothing_of_others(
    archive: Archive, plain_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(plain_config("train.steps=2"), archive, tmp_path / "run")
    assert "First layer" not in capsys.readouterr().err
    assert "start" not in json.loads((folder / "encoder" / "encoder.json").read_text())["provenance"]
    assert "First layer" not in write_card(folder).read_text()
