"""A compiled run has one graph, compiled once, and the results of one that is not compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx

from terrasieve.archive.protocol import Archive
from terrasieve.config import load_config
from terrasieve.errors import ConfigError
from terrasieve.models.backbone import build_encoder
from terrasieve.pretraining import make_job
from terrasieve.training import loop
from terrasieve.training.compiling import compile_forward
from terrasieve.training.loop import make_fabric, train

SHORT = (
    "model.name=test_resnet",
    "train.batch_size=8",
    "train.epochs=2",
    "train.precision=32",
    "train.collapse_std=0",
    "train.collapse_rank=0",
    "method.teacher_memory=null",
)


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("rs-byol-1-small", ("train.accumulate=2",)),
        # A round before the fourth step, which embeds the archive by the encoder that is trained.
        (
            "dino-small",
            ("curation.warmup=1", "curation.keep=0.9", "method.prototypes=64", "method.freeze_last_layer=0"),
        ),
    ],
)
def test_a_run_is_one_graph_compiled_once(
    recipe: str, settings: tuple[str, ...], archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[fx.GraphModule] = []

    def counting(graph: fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(loop, "compile_forward", partial(compile_forward, backend=counting))
    losses = []
    for compiled in (False, True):
        config = load_config(recipe, [*SHORT, *settings, f"train.compile={str(compiled).lower()}"])
        result = train(make_job(config, archive, tmp_path / str(compiled)), make_fabric(config.train, "cpu"))
        losses.append(result.metrics["loss"])
    assert len(graphs) == 1
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("recipe", ["rs-lejepa-1-small", "oceansar-2-small"])
def test_a_method_that_draws_in_its_forward_pass_is_refused(recipe: str) -> None:
    config = load_config(recipe)
    encoder = build_encoder(config.model.backbone, 0)
    method = config.method.build(encoder, [branch.count for branch in config.views.branches], 0)
    with pytest.raises(ConfigError, match=r"draws .* Set train\.compile=false"):
        compile_forward(method)
