"""What a signal asks for is not lost, whenever it comes."""

from __future__ import annotations

import os
import signal

import pytest
from lightning_fabric import Fabric

from terrasieve.errors import RequeueError
from terrasieve.training import loop
from terrasieve.training.loop import StopRequest


def test_a_signal_that_comes_while_processes_ask_each_other_stops_them_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Fabric, "world_size", property(lambda fabric: 2))
    asked: list[int] = []

    def ask(own: int) -> int:
        asked.append(own)
        if len(asked) == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return own

    monkeypatch.setattr(loop, "largest_number", ask)
    with StopRequest(Fabric(accelerator="cpu", devices=1), every=2) as stop:
        assert not stop.agreed(2), "what the others were not told cannot be agreed"
        assert not stop.agreed(3), "nobody asks between the moments at which all do"
        assert stop.agreed(4)
        assert isinstance(stop.error(4, 9), RequeueError)
    assert len(asked) == 2
