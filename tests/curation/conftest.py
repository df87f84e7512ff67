"""What the curation tests share."""

from __future__ import annotations

from typing import Any

import pytest
import torch


@pytest.fixture(params=[False, True], ids=["float32-is-fast", "bf16-is-fast"])
def either_processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let ``precision: auto`` of k-means decide as on a processor without, and with, instructions for bfloat16."""

    def fast(device: torch.device) -> bool:
        return bool(request.param)

    monkeypatch.setattr("terrasieve.device.bf16_is_fast", fast)
