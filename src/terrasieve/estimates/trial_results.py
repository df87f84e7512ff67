"""What was measured on one machine: how long a unit of each stage takes, how many bytes, what a network computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from terrasieve.training.memory import MemoryNeed

Clock = Literal["wall", "processor"]
"""Which seconds count: those that went by, or those that the processor worked for this process, over all threads."""


@dataclass(frozen=True)
class Pace:
    """How long a stage took.

    Attributes:
        units: How much it did: samples, steps, or multiplications of a clustering; above 0.
        seconds: The seconds that went by meanwhile.
        processor: The seconds that the processor worked for this process meanwhile, all threads together.
    """

    units: float
    seconds: float
    processor: float

    def each(self, clock: Clock) -> float:
        """Seconds a unit."""
        return (self.seconds if clock == "wall" else self.processor) / self.units

    def beyond(self, shorter: Pace) -> Pace:
        """What this took beyond a shorter run, so that what both take whatever their length is in neither.

        Args:
            shorter: The pace of that run. This pace itself is given back where it is no longer than that one, or where
                it took no longer, as noise can make it seem.
        """
        more = Pace(self.units - shorter.units, self.seconds - shorter.seconds, self.processor - shorter.processor)
        return more if min(more.units, more.seconds, more.processor) > 0 else self


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step of training, as a straight line over the samples in it.

    Attributes:
        fixed: What every step takes whatever its batch: the optimiser, the teacher; 0 or more.
        per_sample: What each sample adds.
    """

    fixed: float
    per_sample: float

    @classmethod
    def of(cls, steps: Mapping[int, Pace], clock: Clock) -> StepTime:
        """The line through the smallest and the largest batch measured; through 0 where there is one alone.

        Args:
            steps: The pace of steps by the size of their batch; at least one.
            clock: Which seconds count.
        """
        small, large = min(steps), max(steps)
        at_small, at_large = steps[small].each(clock), steps[large].each(clock)
        slope = (at_large - at_small) / (large - small) if large > small else at_large / large
        fixed = at_large - slope * large
        # Noise can tilt the line so that no samples would take less than no time, or a sample none.
        return cls(fixed, slope) if fixed > 0 and slope > 0 else cls(0.0, at_large / large)

    def step(self, samples: float) -> float:
        """Seconds of a step that shows so many samples."""
        return self.fixed + self.per_sample * samples


@dataclass(frozen=True)
class SampleBytes:
    """Bytes of a sample.

    Attributes:
        input: Of the files that it is read from; of its pixels where the archive names no files.
        packed: Of a packed store, everything in it included.
    """

    input: float
    packed: float


@dataclass(frozen=True)
class NetworkSize:
    """What a recipe's network and method compute and hold.

    Attributes:
        features: Length of the vector by which a round knows a sample, that of all inputs together.
        trained: Number of trained parameters, whose gradients machines exchange.
        state: Bytes of a checkpoint's weights and moments.
        embed_flops: Floating-point operations of embedding a sample; a multiplication and an addition count as two.
        train_flops: Those of a sample in training, forward and backward, the teacher included.
        need: Bytes that a step holds while it is computed.
    """

    features: int
    trained: int
    state: int
    embed_flops: float
    train_flops: float
    need: MemoryNeed


@dataclass(frozen=True)
class TrialResults:
    """What was measured on one machine, with one process.

    Attributes:
        machine: Processor or accelerator, threads and versions.
        archive: The archive that was measured on, as it was named.
        opening: Opening the archive, a sample; indexing begins with it.
        index: Checking samples and writing their catalogue, in one process.
        pack: Packing samples, in one process.
        embed: Embedding samples out of the packed store by the untrained encoder.
        steps: Steps of training by the size of their batch, the first ones left out.
        products: Passes of k-means; units are rows times centroids times numbers of a vector.
        bytes: Bytes of a sample.
        network: What network and method compute and hold.
        peaks: The most memory that the process held up to the end of each stage, in bytes, by the stage.
    """

    machine: str
    archive: str
    opening: Pace
    index: Pace
    pack: Pace
    embed: Pace
    steps: Mapping[int, Pace]
    products: Pace
    bytes: SampleBytes
    network: NetworkSize
    peaks: Mapping[str, int]
