"""A process that parts from the others has no thread left that listens to them."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import distributed

from apart import run_ranks
from terrasieve.processes.ranks import leave


def _leave_with_the_group_in_a_cycle() -> None:
    gc.disable()
    distributed.init_process_group("gloo")
    held = SimpleNamespace(group=distributed.group.WORLD)
    held.itself = held
    del held
    # A thread gives itself its name, some time after it was started.
    until = time.monotonic() + 60
    while "pt_gloo_runloop" not in _threads():
        assert time.monotonic() < until, "the group has no thread of its own that could outlive it"
        time.sleep(0.01)
    leave()
    assert "pt_gloo_runloop" not in _threads()


def _threads() -> list[str]:
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the names of a process's threads are read where Linux has them")
def test_no_thread_outlives_the_group_though_a_failed_run_left_it_in_a_cycle() -> None:
    run_ranks(_leave_with_the_group_in_a_cycle, size=1)
