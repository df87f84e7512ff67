"""Random streams: none meets another of the same owner, all are named, and what they draw never changes."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import terrasieve
from terrasieve.streams import Counted, Seeded, Stream, generator, torch_generator

SOURCE = Path(terrasieve.__file__).parent
LARGEST = 2**64 - 1
COUNTED = [stream for stream in Stream if isinstance(stream.value, Counted)]
SEEDED = [stream for stream in Stream if isinstance(stream.value, Seeded)]
# One sequence under two names; other numbers would make other pools and selections of old settings.
SHARED = {("SELECTION_KEYS", "SELECTION_DIAGNOSTICS"), ("POOL_PASS", "SAMPLES")}


def _meet(one: Counted, other: Counted) -> bool:
    """Whether two streams of equal seeds have a key and a counter in common, if each draws less than 2**128 blocks."""
    indices = [range(LARGEST + 1 if a.has_index else 1) for a in (one, other)]
    tops = [range(a.top, LARGEST if a.has_parts else a.top + 1) for a in (one, other)]
    return (
        one.owner == other.owner
        and one.block == other.block
        and all(max(a.start, b.start) < min(a.stop, b.stop) for a, b in (indices, tops))
    )


def test_no_two_counted_streams_of_one_owner_meet() -> None:
    met = {(a.name, b.name) for a, b in itertools.combinations(COUNTED, 2) if _meet(a.value, b.value)}
    assert met == SHARED


def _words(stream: Stream, index: int, part: int) -> NDArray[np.uint64]:
    return np.asarray(generator(stream, 3, index, part).bit_generator.random_raw(64))  # type: ignore[call-arg]


def _places(stream: Stream) -> list[tuple[int, int]]:
    """A few of a stream's indices and parts."""
    place = stream.value
    indices, parts = [0, 1, LARGEST] if place.has_index else [0], [0, 1, 5] if place.has_parts else [0]
    return list(itertools.product(indices, parts))


def test_what_counted_streams_draw_has_nothing_in_common() -> None:
    drawn: dict[str, list[NDArray[np.uint64]]] = {}
    for stream in COUNTED:
        if stream.name not in {second for _, second in SHARED}:
            drawn.setdefault(stream.value.owner, []).extend(_words(stream, *place) for place in _places(stream))
    for words in drawn.values():
        together = np.concatenate(words)
        assert len(np.unique(together)) == len(together)


def test_a_stream_knows_its_indices_and_parts() -> None:
    for wrong in (LARGEST + 1, -1):
        with pytest.raises(OverflowError):
            generator(Stream.POOL_PASS, 0, wrong)
    with pytest.raises(AssertionError, match="has no index"):
        generator(Stream.SAMPLES, 0, 1)
    with pytest.raises(AssertionError, match="has no parts"):
        generator(Stream.VIEW_BANDS, 0, 0, 1)
    with pytest.raises(AssertionError, match="is torch's"):
        generator(Stream.TRAINING, 0)
    for stream in (Stream.SPLIT, Stream.POOL_PASS):
        with pytest.raises(AssertionError, match="is numpy's"):
            torch_generator(stream, 0)


def test_seeded_streams_of_one_library_and_seed_are_one_sequence_but_for_heads() -> None:
    """What the module says of them: they are named, not kept apart."""
    numpys = {generator(s, 5).random() for s in SEEDED if s.value.library == "numpy"}
    torches = {torch.rand((), generator=torch_generator(s, 5)).item(): s for s in SEEDED if s.value.library == "torch"}
    assert numpys == {np.random.default_rng(5).random()}
    assert set(torches) == {
        torch.rand((), generator=torch.Generator().manual_seed(5)).item(),
        torch.rand((), generator=torch_generator(Stream.HEAD_WEIGHTS, 5)).item(),
    }
    assert len(torches) == 2


# ------------------------------------------------------------- what is drawn never changes

# The place of every stream, written down independently: key and counter of numpy's Philox for seed 3 and index 7.
PLACES = {
    "POOL_PASS": ([3, 7], [0, 0, 0, 0]),
    "SAMPLES": ([3, 0], [0, 0, 0, 0]),
    "VIEW_BANDS": ([3, 7], [0, 0, 0, 1]),
    "VIEW": ([3, 7], [0, 0, 0, 2]),
    "VIEW_TIME": ([3, 7], [0, 0, 2, 0]),
    "DIRECTIONS": ([3, 7], [0, 0, 4, 0]),
    "ROUND": ([3, 7], [0, 0, 1, 0]),
    "PATCH_MASKS": ([3, 7], [0, 0, 3, 0]),
    "LAND_SCENE": ([3, 7], [0, 0, 0, 0]),
    "LAND_OPTICAL": ([3, 7], [0, 0, 0, 1]),
    "LAND_RADAR": ([3, 7], [0, 0, 0, 2]),
    "LAND_COPY": ([3, 7], [0, 0, 0, 3]),
    "LAND_SPLIT": ([3, 7], [0, 0, 0, 4]),
    "LAND_DAY": ([3, 7], [0, 0, 0, 5]),
    "LAND_JITTER": ([3, 7], [0, 0, 0, 6]),
    "LAND_CLOUDS": ([3, 7], [0, 0, 0, 7]),
    "LAND_APPEARANCE": ([3, 7], [0, 0, 0, 8]),
    "SEA_CONDITIONS": ([3, 7], [0, 0, 0, 0]),
    "SEA_WAVES": ([3, 7], [0, 0, 0, 1]),
    "SEA_SCENERY": ([3, 7], [0, 0, 0, 2]),
    "SEA_SPECKLE": ([3, 7], [0, 0, 0, 3]),
    "SEA_SPLIT": ([3, 7], [0, 0, 0, 4]),
    "SEA_CALIBRATION": ([3, 7], [0, 0, 0, 5]),
    "SELECTION_KEYS": ([3, 0], [0, 0, 0, 0]),
    "SELECTION_DIAGNOSTICS": ([3, 0], [0, 0, 0, 0]),
}


def test_every_counted_stream_begins_where_it_always_did() -> None:
    assert set(PLACES) == {stream.name for stream in COUNTED}
    for stream in COUNTED:
        key, counter = PLACES[stream.name]
        expected = np.random.Philox(key=key, counter=counter).random_raw(8)
        found = generator(stream, 3, 7 if stream.value.has_index else 0).bit_generator.random_raw(8)  # type: ignore[call-arg]
        assert found.tolist() == expected.tolist(), stream.name
    fourth = np.random.Generator(np.random.Philox(key=[3, 7], counter=[0, 0, 0, 5])).random(3)
    assert generator(Stream.VIEW, 3, 7, 3).random(3).tolist() == fourth.tolist()


def test_no_two_seeds_share_a_stream_however_large_they_are() -> None:
    seeds = (2**63 - 1, 2**63, 2**63 + 1, LARGEST)
    assert len({generator(Stream.POOL_PASS, seed, 7).random() for seed in seeds}) == len(seeds)


def test_a_selections_seed_may_have_more_than_64_bits() -> None:
    seed = 2**64 + 5
    expected = np.random.Generator(np.random.Philox(key=seed)).random()
    assert generator(Stream.SELECTION_KEYS, seed).random() == expected != generator(Stream.SELECTION_KEYS, 5).random()


def test_the_heads_stream_is_hashed() -> None:
    seed = int(np.random.SeedSequence([3, 1]).generate_state(1)[0])
    assert torch_generator(Stream.HEAD_WEIGHTS, 3).initial_seed() == seed


# ------------------------------------------------------------- nothing is drawn beside it


@pytest.mark.parametrize("made", [r"Philox\(", r"default_rng\(", r"SeedSequence\(", r"PCG64\(", r"RandomState\("])
def test_no_other_module_makes_a_generator(made: str) -> None:
    makers = [path for path in SOURCE.rglob("*.py") if re.search(made, path.read_text(encoding="utf-8"))]
    assert [path for path in makers if path.name != "streams.py"] == []


def test_torch_is_seeded_by_named_streams_alone() -> None:
    lines = [line for path in SOURCE.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    seeding = [line.strip() for line in lines if "manual_seed(" in line]
    assert len(seeding) > 4
    assert [line for line in seeding if "torch_seed(" not in line] == []
