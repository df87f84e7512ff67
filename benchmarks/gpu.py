"""DINO steps and k-means at the scale of a GPU, beside the same step put together from lightly's parts.

On a GPU: ViT-S/16 and ResNet50 at 224 pixels in bf16 with 2 global and 6 local crops, images per second and model FLOP
utilisation, ours and lightly's in turns; k-means of 1 and 10 million vectors of length 384. The views are on the device
already, so that the step is measured and not the disk. Without a GPU the same code runs at its smallest size, and says
so: those figures are no statement about a GPU.

End to end, the loop itself trains a recipe from a packed store of simulated vignettes: read, render, step, log. Its
samples per second stand beside those of the same method's step on views that are on the device already.
``--profile DIR`` writes what torch's profiler saw of the last steps of that run: ``trace.json`` for chrome://tracing or
Perfetto, and ``table.txt``.

Usage: ``python benchmarks/gpu.py [--only steps kmeans end-to-end] [--profile DIR] [--out gpu.md]``. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import terrasieve._torchvision  # noqa: F401  (must come before torchvision)

import torch
from lightly.loss import DINOLoss
from lightly.models.modules.heads import DINOProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from machine import describe
from terrasieve.archive.opening import open_archive
from terrasieve.archive.packed.packing import pack
from terrasieve.config import load_config
from terrasieve.curation.kmeans import KMeans
from terrasieve.device import bf16_is_fast, pick_device
from terrasieve.methods.base import Method
from terrasieve.methods.dino import DinoSpec
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.pretraining import make_job
from terrasieve.training.loop import make_fabric, train

PARTS = ("steps", "kmeans", "end-to-end")

PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
"""Dense bf16 products, from the makers' data sheets."""


@dataclass(frozen=True)
class Size:
    """What is measured on one kind of machine."""

    backbones: tuple[str, ...]
    large: int
    small: int
    locals: int
    batch: int
    prototypes: int
    steps: int
    rounds: int
    vectors: tuple[tuple[int, int], ...]
    recipe: str
    settings: tuple[str, ...]
    samples: int


GPU = Size(
    ("vit_small_patch16_224", "resnet50"),
    224,
    96,
    6,
    128,
    65536,
    10,
    5,
    ((1_000_000, 8192), (10_000_000, 8192)),
    "oceansar-1-vits16",
    (),
    1024,
)
CPU = Size(
    ("vit_tiny_patch16_224", "resnet18"),
    64,
    32,
    2,
    16,
    2048,
    2,
    3,
    ((20_000, 256),),
    "oceansar-small",
    ("train.batch_size=16",),
    96,
)


class LightlyDino(nn.Module):
    """DINO as a careful user of lightly writes it."""

    def __init__(self, backbone: nn.Module, features: int, prototypes: int) -> None:
        super().__init__()
        self.student_backbone = backbone
        self.student_head = DINOProjectionHead(features, 2048, 256, prototypes, freeze_last_layer=1)
        self.teacher_backbone = copy.deepcopy(backbone)
        self.teacher_head = DINOProjectionHead(features, 2048, 256, prototypes)
        deactivate_requires_grad(self.teacher_backbone)
        deactivate_requires_grad(self.teacher_head)
        self.loss = DINOLoss(output_dim=prototypes, warmup_teacher_temp_epochs=5)

    def forward(self, views: list[Tensor]) -> Tensor:
        """The loss of two global views and the local ones."""
        with torch.no_grad():
            taught = [self.teacher_head(self.teacher_backbone(view)) for view in views[:2]]
        seen = [self.student_head(self.student_backbone(view)) for view in views]
        loss: Tensor = self.loss(taught, seen, epoch=0)
        return loss

    def move(self) -> None:
        """The teacher's step."""
        update_momentum(self.student_backbone, self.teacher_backbone, m=0.996)
        update_momentum(self.student_head, self.teacher_head, m=0.996)


def our_step(name: str, size: Size, device: torch.device) -> Callable[[list[Tensor]], None]:
    """One optimiser step of terrasieve's DINO."""
    encoder = build_encoder(BackboneSpec(name=name, channels=1), 0)
    method = DinoSpec(prototypes=size.prototypes).build(encoder, (2, size.locals), 0)
    # torch's stubs leave memory_format out of Module.to's overloads.
    return method_step(method.to(device, memory_format=torch.channels_last), device)  # type: ignore[call-overload]


def method_step(method: Method, device: torch.device) -> Callable[[list[Tensor]], None]:
    """One optimiser step of a method that is on the device."""
    optimiser = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def step(views: list[Tensor]) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_fast(device)):
            loss = method(views).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        method.after_step(0.5)

    return step


def peer_step(name: str, size: Size, device: torch.device) -> Callable[[list[Tensor]], None]:
    """One optimiser step of DINO from lightly's parts."""
    encoder = build_encoder(BackboneSpec(name=name, channels=1), 0)
    model = LightlyDino(encoder.model, encoder.features, size.prototypes)
    # As above.
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step(views: list[Tensor]) -> None:
        model.move()
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_fast(device)):
            loss = model(views)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def make_views(size: Size, device: torch.device) -> list[Tensor]:
    """Random pixels in the shapes of DINO's views."""
    generator = torch.Generator().manual_seed(0)
    sizes = [size.large] * 2 + [size.small] * size.locals
    views = [torch.randn(size.batch, 1, pixels, pixels, generator=generator) for pixels in sizes]
    return [view.to(device, memory_format=torch.channels_last) for view in views]


def seconds_of(work: Callable[[], None], device: torch.device) -> float:
    """Seconds of something, the device's own work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def step_flops(name: str, size: Size) -> float:
    """Floating-point operations of one step: three passes' worth for the student, one for the teacher's two views."""
    encoder = build_encoder(BackboneSpec(name=name, channels=1), 0).eval()
    total = 0.0
    for pixels, passes in ((size.large, 2 * (3 + 1)), (size.small, size.locals * 3)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            encoder(torch.zeros(1, 1, pixels, pixels))
        total += counter.get_total_flops() * passes
    return total * size.batch


def measure_steps(size: Size, device: torch.device) -> dict[str, dict[str, float]]:
    """Images per second of each backbone, ours and the peer's in turns."""
    views = make_views(size, device)
    peak = next((tflops for card, tflops in PEAK_TFLOPS.items() if card in _name(device)), None)
    figures = {}
    for name in size.backbones:
        steps = {"ours": our_step(name, size, device), "lightly": peer_step(name, size, device)}
        rounds: dict[str, list[float]] = {"ours": [], "lightly": []}
        for turn in range(size.rounds + 1):
            for key in sorted(steps, reverse=bool(turn % 2)):
                # mypy cannot infer a lambda with a default; the default binds this turn's step.
                spent = seconds_of(lambda step=steps[key]: [step(views) for _ in range(size.steps)], device)  # type: ignore[misc]
                if turn:  # the first turn warms up
                    rounds[key].append(spent / size.steps)
        ours, theirs = statistics.median(rounds["ours"]), statistics.median(rounds["lightly"])
        found = {"images_per_s": size.batch / ours, "vs_lightly": theirs / ours}
        if peak:
            found["mfu"] = step_flops(name, size) / ours / (peak * 1e12)
        figures[name] = {key: round(value, 3) for key, value in found.items()}
        print(f"{name}: {figures[name]}")
    return figures


def measure_kmeans(size: Size, device: torch.device) -> dict[str, float]:
    """Seconds of k-means by number of vectors."""
    figures = {}
    for count, clusters in size.vectors:
        generator = torch.Generator(device).manual_seed(0)
        vectors = nn.functional.normalize(torch.randn(count, 384, generator=generator, device=device), dim=1)
        model = KMeans(clusters, seed=0, device=str(device))
        # Called at once, so that the loop's variables are this turn's.
        figures[f"{count}x384, K = {clusters}"] = round(seconds_of(lambda: model.fit(vectors), device), 2)  # type: ignore[arg-type, return-value]  # noqa: B023
        print(f"k-means {count:,} x 384, K = {clusters:,}: {list(figures.values())[-1]} s")
    return figures


class Clock:
    """Stands in for the online probe of a run: notes the time, and lets a profiler look at the last turn.

    Args:
        device: The device, whose work is waited for.
        turns: Number of turns of the run.
        profiler: Looks at the last turn; None where nothing does.
    """

    def __init__(self, device: torch.device, turns: int, profiler: torch.profiler.profile | None) -> None:
        self.device = device
        self.turns = turns
        self.profiler = profiler
        self.times: list[float] = []

    def __call__(self, encoder: nn.Module) -> dict[str, float]:
        """The end of a turn."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())
        if self.profiler and len(self.times) == self.turns - 1:
            self.profiler.start()
        if self.profiler and len(self.times) == self.turns:
            self.profiler.stop()
        return {}


def measure_end_to_end(size: Size, device: torch.device, profile: Path | None) -> dict[str, float]:
    """Samples per second of a recipe from the store to the step, and of its step alone."""
    profiler = torch.profiler.profile(with_stack=False) if profile else None
    turns = size.rounds + 2
    length = (f"train.steps={turns * size.steps}", f"train.evaluate_steps={size.steps}", "train.checkpoint_minutes=1e6")
    config = load_config(size.recipe, [*length, "method.teacher_memory=null", *size.settings], curate="none")
    with tempfile.TemporaryDirectory() as folder:
        pack(open_archive(f"simulated-ocean:0:{size.samples}"), Path(folder) / "packed.zarr")
        clock = Clock(device, turns, profiler)
        job = make_job(config, open_archive(Path(folder) / "packed.zarr"), Path(folder) / "run", evaluate=clock)
        train(job, make_fabric(config.train, str(device)))
    batch = config.train.batch_size
    # The first turn warms up; the last may be profiled.
    spent = statistics.median(b - a for a, b in itertools.pairwise(clock.times[:-1])) / size.steps
    views = [
        torch.randn(batch, config.model.channels, view.size, view.size, device=device).contiguous(
            memory_format=torch.channels_last
        )
        for view in job.planner.recipe.views
    ]
    step = method_step(job.method, device)
    step(views)
    alone = statistics.median(seconds_of(lambda: step(views), device) for _ in range(size.rounds))
    if profiler and profile:
        profile.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(profile / "trace.json"))
        by = "cuda_time_total" if device.type == "cuda" else "cpu_time_total"
        (profile / "table.txt").write_text(profiler.key_averages().table(sort_by=by, row_limit=60))
    figures = {"samples_per_s": batch / spent, "in_memory_per_s": batch / alone, "vs_in_memory": alone / spent}
    print(f"{size.recipe}, end to end: { ({key: round(value, 3) for key, value in figures.items()}) }")
    return {key: round(value, 3) for key, value in figures.items()}


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


def main() -> None:
    """Measure, print, and write a page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a page to write (Markdown)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure")
    parser.add_argument("--profile", type=Path, help="a folder for the trace and the table of the end-to-end run")
    arguments = parser.parse_args()
    device = pick_device("auto")
    size = GPU if device.type == "cuda" else CPU
    if device.type != "cuda":
        print("No GPU here: the smallest size on the CPU, which says nothing about a GPU.")
    figures: dict[str, object] = {"device": _name(device)}
    if "steps" in arguments.only:
        figures["steps"] = measure_steps(size, device)
    if "kmeans" in arguments.only:
        figures["kmeans_s"] = measure_kmeans(size, device)
    if "end-to-end" in arguments.only:
        figures["end_to_end"] = measure_end_to_end(size, device, arguments.profile)
    where = describe(seed=0)
    print(where)
    if arguments.out:
        arguments.out.write_text(f"# On {_name(device)}\n\n{where}\n\n```json\n{json.dumps(figures, indent=1)}\n```\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
