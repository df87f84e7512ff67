"""Measuring about a minute on this machine, by the functions that the commands themselves use."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from terrasieve.archive.archive_options import ArchiveOptions
from terrasieve.archive.catalogue import index_archive
from terrasieve.archive.derived.subset import SubsetArchive
from terrasieve.archive.packed.packing import pack
from terrasieve.archive.packed.reading import PackedArchive
from terrasieve.archive.protocol import Archive
from terrasieve.config import RunConfig
from terrasieve.console import console
from terrasieve.curation.kmeans import KMeans
from terrasieve.device import Precision, describe_device, pick_device
from terrasieve.embeddings.inputs import EncoderInput, resolve_inputs, views_as_inputs
from terrasieve.embeddings.stream import EmbedSettings, embed_vectors
from terrasieve.estimates.attempts import COUNTED, WARM, Enough, StepClock, attempts_at, peak_memory, timed
from terrasieve.estimates.counting import network_size
from terrasieve.estimates.trial_results import NetworkSize, Pace, SampleBytes, TrialResults
from terrasieve.pretraining import make_job
from terrasieve.streams import Stream, generator
from terrasieve.training.job import TrainingJob
from terrasieve.training.loop import make_fabric, train

T = TypeVar("T")

_NO_OPTIONS = ArchiveOptions()
_SHARES = {"index": 0.15, "pack": 0.15, "embed": 0.2, "training": 0.4, "rounds": 0.1}
"""What each stage has of the time."""
_SOON = 5.0
"""Seconds within which an archive opens a second time."""
_FIRST = 4
"""Samples of the first attempt, which tells how many fit into the time."""
_STORE_BYTES = 2**30
"""Size up to which samples are packed for a trial."""
_LISTED = 20_000
"""Samples whose files are looked at."""
_STEPS = 10_000
"""Steps of a run that is stopped when the time is over."""
_CLUSTERS = 1024
_UPDATES = 3
_VECTOR_BYTES = 2**27
"""Size of the vectors that are clustered for a trial."""


def run_trials(
    data: str, config: RunConfig, seconds: float, device: str = "auto", options: ArchiveOptions = _NO_OPTIONS
) -> TrialResults:
    """Measure every stage of a recipe on an archive, in one process; what is written goes to a temporary folder.

    Args:
        data: The archive, as :func:`terrasieve.archive.opening.open_archive` takes it.
        config: The recipe with every parameter resolved.
        seconds: About how long all stages take together; each does at least its smallest attempt.
        device: The name of the device, as :func:`terrasieve.device.pick_device` takes it.
        options: What is said of the archive beside its name.

    Raises:
        TerrasieveError: The archive cannot be opened, or does not suit the recipe.
    """
    with tempfile.TemporaryDirectory(prefix="terrasieve-plan-") as folder:
        trials = Trials(data, config, Path(folder), device, options)
        peaks: dict[str, int] = {}

        def begin(stage: str) -> float:
            about = _SHARES[stage] * seconds
            console.print(f"Measuring {stage}, about {about:.0f} s", highlight=False)
            return about

        def end(stage: str, found: T) -> T:
            peaks[stage] = peak_memory()
            return found

        cores = torch.get_num_threads()
        return TrialResults(
            machine=f"{describe_device(trials.device)}, {cores} thread{'s' * (cores > 1)}, torch {torch.__version__}",
            archive=data,
            opening=trials.opening,
            index=end("index", trials.index(begin("index"))),
            pack=end("pack", trials.pack(begin("pack"))),
            embed=end("embed", trials.embed(begin("embed"))),
            steps=end("training", trials.training(begin("training"))),
            products=end("rounds", trials.rounds(begin("rounds"))),
            bytes=trials.sample_bytes(),
            network=trials.network(),
            peaks=peaks,
        )


# ------------------------------------------------------------------------ stages


class Trials:
    """The stages, each of which may be measured again and for any time; packing comes before embedding and training.

    Args:
        data: The archive, as it is named.
        config: The recipe with every parameter resolved.
        folder: What is written goes below it.
        device: The name of the device.
        options: What is said of the archive beside its name.

    Attributes:
        opening: The pace of opening the archive, a sample.
        store: The samples packed last.
    """

    store: PackedArchive

    def __init__(
        self,
        data: str,
        config: RunConfig,
        folder: Path,
        device: str = "auto",
        options: ArchiveOptions = _NO_OPTIONS,
    ) -> None:
        self.config = config.model_copy(update={"samples": None})
        self.folder = folder
        self.device_name = device
        self.device = pick_device(device)
        opened: list[Archive] = []

        def open_it() -> int:
            opened.append(options.open(data))
            # Part of it, for what checks or packs samples: some archives read or make their table when it is asked for.
            return len(opened[-1].table())

        self.opening = timed(open_it)
        if self.opening.seconds < _SOON:
            # The first time includes what is imported for it.
            self.opening = timed(open_it)
        self.archive = opened[-1]
        self._packed_bytes = 0.0

    def index(self, seconds: float) -> Pace:
        """Samples checked and written to a catalogue, in this process."""
        return attempts_at(self.indexing, seconds, _FIRST, len(self.archive)).pace

    def indexing(self, count: int) -> Callable[[], float]:
        """Work that indexes the first so many samples."""
        some = SubsetArchive(self.archive, np.arange(count))
        out = self.folder / f"{time.monotonic_ns()}.parquet"
        return lambda: index_archive(some, out, max_bad=1.0).samples

    def pack(self, seconds: float) -> Pace:
        """Samples packed, in this process; the last of them are what the other stages read."""
        return attempts_at(self.packing, seconds, _FIRST, self._most_packed()).pace

    def packing(self, count: int) -> Callable[[], float]:
        """Work that packs the first so many samples."""
        some = SubsetArchive(self.archive, np.arange(count))
        out = self.folder / f"{time.monotonic_ns()}.zarr"

        def work() -> float:
            report = pack(some, out, max_bad=1.0)
            self._packed_bytes, self.store = report.bytes / report.samples, PackedArchive(out)
            return report.samples

        return work

    def embed(self, seconds: float) -> Pace:
        """Samples of the store embedded as a round embeds them, by the untrained encoder."""
        return attempts_at(self.embedding(), seconds, _FIRST, 2**31).pace

    def embedding(self) -> Callable[[int], Callable[[], float]]:
        """What gives work that embeds so many samples; where the store has fewer, they come again."""
        job, spec = self._job(), self.config.curation
        inputs = job.curation.inputs if job.curation else self._inputs()
        settings = EmbedSettings(size=self._image_size(job), batch_size=spec.batch_size if spec else 256)
        encoder = job.method.encoder.to(self.device)

        def prepare(count: int) -> Callable[[], float]:
            fitting = settings.model_copy(update={"batch_size": min(count, settings.batch_size)})
            order = np.arange(count) % len(self.store)
            shown = (self.store, inputs, job.normaliser, fitting, order)
            return lambda: len(embed_vectors(encoder, *shown, "Embedding"))

        return prepare

    def training(self, seconds: float) -> dict[int, Pace]:
        """Steps of two or three sizes by their batch, up to the recipe's own where the time is enough for it."""
        whole, paces = self.config.train.batch_size, dict[int, Pace]()
        batch, spent = 2, 0.0
        while True:
            pace = paces[batch] = self.steps(batch, seconds / 8)
            a_step, left_out = pace.seconds / pace.units, 1 + WARM
            spent += (pace.units + left_out) * a_step
            # What a step takes beside its samples makes small batches look dear: a wrong guess is on the safe side.
            fitting = (seconds - spent) / (left_out + COUNTED) / a_step * batch
            following = whole if fitting >= whole else 2 ** int(np.log2(max(1.0, fitting)))
            if following <= batch or len(paces) == 3:
                return paces
            batch = following

    def steps(self, batch: int, seconds: float) -> Pace:
        """Steps of that many samples, the first ones left out."""
        whole = self.config.train
        changed = {
            "batch_size": batch,
            "accumulate": whole.accumulate if batch == whole.batch_size else 1,
            "steps": _STEPS,
            "evaluate_steps": 1,
            "log_every": _STEPS + 1,
            "checkpoint_minutes": 1e6,
            "loggers": (),
        }
        spec = whole.model_copy(update=changed)
        fabric = make_fabric(spec, self.device_name)
        fabric.launch()
        clock = StepClock(seconds, fabric.device)
        config = self.config.model_copy(update={"train": spec, "curation": None})
        job = replace(
            make_job(config, self.store, self.folder / f"steps-{batch}-{time.monotonic_ns()}", clock),
            # It would measure batch norms on a thousand crops.
            export=lambda encoder, step: None,
        )
        with suppress(Enough):
            train(job, fabric)
        return clock.pace

    def rounds(self, seconds: float) -> Pace:
        """Multiplications of the passes of k-means over random vectors as long as the encoder's."""
        features = self._features(self._job())
        precision: Precision = getattr(self.config.curation and self.config.curation.curator, "precision", "auto")

        def prepare(count: int) -> Callable[[], float]:
            drawn = generator(Stream.TRIAL_VECTORS, 0).standard_normal((count, features), dtype=np.float32)

            def work() -> float:
                means = KMeans(
                    _CLUSTERS, iterations=_UPDATES, tolerance=0.0, precision=precision, device=str(self.device)
                )
                means.fit(drawn, start=torch.from_numpy(drawn[:_CLUSTERS]))
                return float(count) * _CLUSTERS * features * len(means.history_)

            return work

        first = 2 * _CLUSTERS
        return attempts_at(prepare, seconds, first, max(first, _VECTOR_BYTES // (4 * features))).pace

    # ------------------------------------------------------------ what is counted

    def sample_bytes(self) -> SampleBytes:
        """Bytes of a sample, in the archive and in the store."""
        looked_at = np.arange(min(_LISTED, len(self.archive)))
        files = sum(os.stat(path).st_size for path in set(self.archive.files(looked_at)))
        pixels = sum(self.store.read(0, key).nbytes for key in self.store.sensors)
        return SampleBytes(files / len(looked_at) if files else float(pixels), self._packed_bytes)

    def network(self) -> NetworkSize:
        """What network and method hold and compute."""
        job = self._job()
        job.method.to(self.device)
        autocast = make_fabric(self.config.train, self.device_name).autocast()
        return network_size(job, self._features(job), self._image_size(job), autocast)

    def _features(self, job: TrainingJob) -> int:
        return job.method.encoder.features * (len(job.curation.inputs) if job.curation else 1)

    def _image_size(self, job: TrainingJob) -> int:
        size = job.curation.spec.size if job.curation else None
        return size or self.config.views.branches[0].size

    def _job(self) -> TrainingJob:
        """A run of the recipe on the store, which is not trained."""
        spec = self.config.curation
        # A store of few samples would be gone through before the first round.
        early = None if spec is None else spec.model_copy(update={"warmup": 0.0})
        return make_job(self.config.model_copy(update={"curation": early}), self.store, self.folder / "run")

    def _inputs(self) -> tuple[EncoderInput, ...]:
        sensors = self.store.sensors
        return resolve_inputs(views_as_inputs(self.config.views, sensors)[:1], sensors, self.config.model.channels)

    def _most_packed(self) -> int:
        """Samples whose pixels, none wider than four bytes, make a store of no more than is bearable."""
        shapes = (self.archive.shape(0, key) for key in self.archive.sensors)
        bands = (len(sensor.bands) for sensor in self.archive.sensors.values())
        pixels = sum(height * width * each for (height, width), each in zip(shapes, bands, strict=True))
        return max(1, min(len(self.archive), _STORE_BYTES // (4 * pixels)))
