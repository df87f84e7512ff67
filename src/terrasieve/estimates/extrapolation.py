"""From a measured minute to the hours, bytes and memory of each job on so many machines. Arithmetic alone.

A machine is one process with one device. Jobs that go by parts take as long as the machine with the most parts.
Training holds the batch, so that each machine computes its share of it and exchanges gradients once a step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from terrasieve.estimates.trial_results import Clock, StepTime, TrialResults
from terrasieve.estimates.workload import Workload

JOBS = ("index", "pack", "embed", "rounds", "training")
"""The jobs that a plan has figures of, apart from all of them together."""

INDEX_ROW = 2970
"""Bytes that indexing holds of a sample with a file of its own: 2.9 KiB by ``benchmarks/index.py``."""
TABLE_ROW = 54
"""Bytes that an open store holds of a sample, its name among them: 0.60 GiB for twelve million by
``benchmarks/large.py``."""
POOL_ROW = 17
"""Bytes a sample of a pool while batches are drawn from it, by the same benchmark."""
ROUND_ROW = 99
"""Bytes a sample of a round that chooses, judges and records, vectors and clusters apart, by the same benchmark."""
CATALOGUE_ROW = 86
"""Bytes of a catalogue on disk a sample: 1.03 GB for twelve million, by the same benchmark."""

_FLOAT = 4
"""Bytes of a number of a vector, and of a gradient."""


class Basis(StrEnum):
    """What a figure rests on; of several, the weakest counts."""

    MEASURED = "measured"
    EXTRAPOLATED = "extrapolated"
    ASSUMED = "assumed"


@dataclass(frozen=True)
class Figure:
    """A number and what it rests on.

    Attributes:
        value: The number: seconds, bytes, or a share.
        basis: What it rests on.
    """

    value: float
    basis: Basis


@dataclass(frozen=True)
class Assumptions:
    """What nobody measured.

    Attributes:
        network_gbytes: Gigabytes (1e9) a second that each machine sends and receives at the same time, above 0.
        sustained_tflops: Floating-point operations (1e12) a second of each machine's device in embedding, clustering
            and training, above 0; None takes the time that was measured here.
        storage_gbytes: Gigabytes a second that the storage gives all machines together, reading and writing, above 0; a
            job takes as long as its bytes need there at the least. None sets no bound.
        readers: Reader processes of each machine in indexing and packing, at least 1, which share the work evenly.
        clock: Which of the measured seconds count.
    """

    network_gbytes: float
    sustained_tflops: float | None = None
    storage_gbytes: float | None = None
    readers: int = 1
    clock: Clock = "wall"


@dataclass(frozen=True)
class JobCost:
    """What a job costs.

    Attributes:
        seconds: By the number of machines.
        read: Bytes read, over all machines.
        written: Bytes written, over all machines, that stay at the end of it.
        memory: Bytes that the largest process holds, its device's memory included, by the number of machines.
    """

    seconds: Mapping[int, Figure]
    read: Figure
    written: Figure
    memory: Mapping[int, Figure]


@dataclass(frozen=True)
class StepCost:
    """A step of training on so many machines.

    Attributes:
        samples: Samples of a step on each machine.
        compute: Seconds of computing.
        exchange: Seconds of exchanging gradients, none of it hidden behind computing.
        efficiency: The time on one machine over machines times the time on so many, at most 1 mostly.
        reading: Bytes a second that all machines read together, at most: samples are taken as read whole.
        device: Bytes that the step holds while it is computed, on the accelerator where there is one.
    """

    samples: int
    compute: Figure
    exchange: Figure
    efficiency: Figure
    reading: Figure
    device: Figure


@dataclass(frozen=True)
class Estimate:
    """What a recipe costs on an archive of so many samples.

    Attributes:
        work: How much there is to do.
        assumed: What nobody measured.
        jobs: The cost of each of :data:`JOBS`, and of all ``together``.
        steps: A step of training by the number of machines.
        proportional: Whether a step's time is taken to be in proportion to its batch, of which one other size alone was
            measured.
    """

    work: Workload
    assumed: Assumptions
    jobs: Mapping[str, JobCost]
    steps: Mapping[int, StepCost]
    proportional: bool


def extrapolate(found: TrialResults, work: Workload, machines: Sequence[int], assumed: Assumptions) -> Estimate:
    """The cost of every job on each number of machines.

    Args:
        found: What was measured on one machine.
        work: How much there is to do.
        machines: Numbers of machines, each at least 1.
        assumed: What nobody measured.

    Raises:
        ConfigError: Training would not start on so many machines.
    """
    for count in machines:
        work.check_machines(count)
    sums = _Sums(found, work, assumed)
    steps = {count: sums.step(count) for count in machines}
    jobs = {
        "index": sums.index(machines),
        "pack": sums.pack(machines),
        "embed": sums.embed(machines),
        "rounds": sums.rounds(machines),
        "training": sums.training(steps),
    }
    if assumed.storage_gbytes is not None:
        jobs = {name: _through_storage(job, assumed.storage_gbytes) for name, job in jobs.items()}
    proportional = assumed.sustained_tflops is None and len(found.steps) == 1 and work.batch not in found.steps
    return Estimate(work, assumed, {**jobs, "together": _together(list(jobs.values()), machines)}, steps, proportional)


def all_reduce_seconds(parameters: int, machines: int, network_gbytes: float) -> float:
    """Seconds in which so many machines add up a float32 gradient in a ring, each as fast as its link.

    A ring sends ``2 (N - 1) / N`` times the gradient from each machine (Patarasuk and Yuan 2009, "Bandwidth optimal
    all-reduce algorithms for clusters of workstations"); what each message waits for is left out.

    Args:
        parameters: Numbers of the gradient.
        machines: N, at least 1.
        network_gbytes: Gigabytes (1e9) a second of each machine's link.
    """
    return 2 * (machines - 1) / machines * _FLOAT * parameters / (network_gbytes * 1e9)


class _Sums:
    """The sums behind a plan."""

    def __init__(self, found: TrialResults, work: Workload, assumed: Assumptions) -> None:
        self.found = found
        self.work = work
        self.assumed = assumed
        self.step_time = StepTime.of(found.steps, assumed.clock)
        self.computing = Basis.EXTRAPOLATED if assumed.sustained_tflops is None else Basis.ASSUMED

    # ------------------------------------------------------------ by parts

    def _by_parts(self, machines: int, a_sample: float) -> float:
        """Seconds of the machine that has the most parts, all as long as the largest."""
        return -(-self.work.parts // machines) * self.work.largest_part * a_sample

    def _on_disk(self, a_sample: float, read: float, written: float, memory: float, machines: Sequence[int]) -> JobCost:
        basis = Basis.EXTRAPOLATED if self.assumed.readers == 1 else Basis.ASSUMED
        seconds = {one: Figure(self._by_parts(one, a_sample / self.assumed.readers), basis) for one in machines}
        samples = self.work.samples
        return JobCost(
            seconds,
            _extrapolated(read * samples),
            _extrapolated(written * samples),
            dict.fromkeys(machines, _extrapolated(memory)),
        )

    def index(self, machines: Sequence[int]) -> JobCost:
        clock, found = self.assumed.clock, self.found
        a_sample = found.opening.each(clock) + found.index.each(clock)
        memory = found.peaks["index"] + INDEX_ROW * self.work.largest_part
        return self._on_disk(a_sample, found.bytes.input, CATALOGUE_ROW, memory, machines)

    def pack(self, machines: Sequence[int]) -> JobCost:
        found, a_sample = self.found, self.found.pack.each(self.assumed.clock)
        memory = found.peaks["pack"] + TABLE_ROW * self.work.samples
        return self._on_disk(a_sample, found.bytes.input, found.bytes.packed, memory, machines)

    def embed(self, machines: Sequence[int]) -> JobCost:
        work, found = self.work, self.found
        return JobCost(
            {one: Figure(self._by_parts(one, self._embed_each()), self.computing) for one in machines},
            _extrapolated(found.bytes.packed * work.samples),
            _extrapolated(_FLOAT * found.network.features * work.samples),
            dict.fromkeys(machines, _extrapolated(found.peaks["embed"] + TABLE_ROW * work.samples)),
        )

    def _embed_each(self) -> float:
        return self._computed(self.found.network.embed_flops, self.found.embed.each(self.assumed.clock))

    def _computed(self, operations: float, measured: float) -> float:
        """Seconds of so many operations at the assumed rate, or as they were measured."""
        rate = self.assumed.sustained_tflops
        return measured if rate is None else operations / (rate * 1e12)

    # ------------------------------------------------------------ rounds

    def rounds(self, machines: Sequence[int]) -> JobCost:
        """Every machine embeds, holds and clusters its share."""
        work, found = self.work, self.found
        a_vector = _FLOAT * found.network.features
        products = work.clustered * found.network.features
        clustering = self._computed(2 * products, found.products.each(self.assumed.clock) * products)
        seconds = {
            one: Figure(
                work.rounds * (-(-work.embedded // one) * self._embed_each() + clustering / one), self.computing
            )
            for one in machines
        }
        rows = found.peaks["embed"] + (TABLE_ROW + ROUND_ROW) * work.samples
        vectors = a_vector * (work.embedded + work.fitted) if work.rounds else 0
        # The pixels once; the vectors once to fit on some of them, and once to assign all.
        read = work.rounds * work.embedded * (found.bytes.packed + 2 * a_vector)
        return JobCost(
            seconds,
            _extrapolated(read),
            _extrapolated(a_vector * work.embedded if work.rounds else 0),
            {one: _extrapolated(rows + vectors / one if work.rounds else 0) for one in machines},
        )

    # ------------------------------------------------------------ training

    def step(self, machines: int) -> StepCost:
        work, found = self.work, self.found
        share = work.batch // machines
        compute = self._compute(share)
        measured = self.assumed.sustained_tflops is None and share == max(found.steps)
        exchange = all_reduce_seconds(found.network.trained, machines, self.assumed.network_gbytes)
        whole = compute + exchange
        basis = Basis.ASSUMED if exchange else self.computing
        return StepCost(
            samples=share,
            compute=Figure(compute, Basis.MEASURED if measured else self.computing),
            exchange=Figure(exchange, Basis.ASSUMED if exchange else Basis.EXTRAPOLATED),
            efficiency=Figure(self._compute(work.batch) / (machines * whole), basis),
            reading=Figure(work.batch * found.bytes.packed / whole, basis),
            device=_extrapolated(found.network.need.of(share // work.accumulate)),
        )

    def _compute(self, samples: int) -> float:
        measured = self.step_time.step(samples)
        return self._computed(self.found.network.train_flops * samples, measured)

    def training(self, steps: Mapping[int, StepCost]) -> JobCost:
        work, found = self.work, self.found
        host = found.peaks["pack"] + (TABLE_ROW + POOL_ROW) * work.samples
        return JobCost(
            {
                one: Figure(work.steps * (step.compute.value + step.exchange.value), step.efficiency.basis)
                for one, step in steps.items()
            },
            _extrapolated(work.steps * work.batch * found.bytes.packed),
            _extrapolated(work.checkpoints * found.network.state),
            {one: _extrapolated(host + step.device.value) for one, step in steps.items()},
        )


def _through_storage(job: JobCost, gbytes: float) -> JobCost:
    """A job that takes no less than its bytes need at so many gigabytes a second."""
    least = Figure((job.read.value + job.written.value) / (gbytes * 1e9), Basis.ASSUMED)
    return replace(
        job, seconds={one: max(time, least, key=lambda figure: figure.value) for one, time in job.seconds.items()}
    )


def _together(jobs: Sequence[JobCost], machines: Sequence[int]) -> JobCost:
    """One job after the other: the sum of seconds and bytes, the most memory."""
    return JobCost(
        {one: _sum([job.seconds[one] for job in jobs]) for one in machines},
        _sum([job.read for job in jobs]),
        _sum([job.written for job in jobs]),
        {one: max((job.memory[one] for job in jobs), key=lambda figure: figure.value) for one in machines},
    )


def _sum(figures: Sequence[Figure]) -> Figure:
    weakest = max((figure.basis for figure in figures), key=list(Basis).index)
    return Figure(sum(figure.value for figure in figures), weakest)


def _extrapolated(value: float) -> Figure:
    return Figure(value, Basis.EXTRAPOLATED)
