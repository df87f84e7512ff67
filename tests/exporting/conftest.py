"""Run folders with a small exported encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from small_encoders import VIT, card_of, trained
from terrasieve.models.backbone import BackboneSpec
from terrasieve.models.export import save_encoder


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[[BackboneSpec], Path]:
    """Write a run folder with an exported encoder."""

    def make(spec: BackboneSpec = VIT) -> Path:
        save_encoder(tmp_path / "run" / "encoder", trained(spec), card_of(spec))
        return tmp_path / "run"

    return make
