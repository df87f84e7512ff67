"""Commands that say what work will cost before it is done: plan."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from terrasieve.cli.app import Curate, Data, Device, Settings, app
from terrasieve.cli.data_options import takes_archive
from terrasieve.console import console
from terrasieve.errors import ConfigError

if TYPE_CHECKING:
    from terrasieve.archive.archive_options import ArchiveOptions


@app.command()
@takes_archive
def plan(
    data: Data,
    options: ArchiveOptions,
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see `terrasieve recipes`) or a YAML file.")],
    samples: Annotated[str, typer.Option(help="Samples of the archive that is planned for, e.g. `12_000_000`.")],
    machines: Annotated[
        str, typer.Option(help="Numbers of machines, e.g. `1,8,64`. A machine is one process with one device.")
    ] = "1",
    seconds: Annotated[float, typer.Option(min=0, help="About how long to measure here, all stages together.")] = 60,
    settings: Settings = None,
    curate: Curate = None,
    sustained_tflops: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            help="Reckon embedding, clustering and training with this rate of each machine's device, assumed, and the "
            "operations that were counted, instead of the time that was measured.",
        ),
    ] = None,
    network_gbytes: Annotated[
        float, typer.Option(min=1e-6, help="Gigabytes a second that each machine sends and receives; assumed.")
    ] = 12.5,
    storage_gbytes: Annotated[
        float | None,
        typer.Option(min=1e-6, help="Gigabytes a second that the storage gives all machines together; no bound."),
    ] = None,
    readers: Annotated[
        int, typer.Option(min=1, help="Reader processes of a machine in index and pack, which share the work evenly.")
    ] = 1,
    parts: Annotated[int, typer.Option(min=1, help="Parts for index, pack and embed, shared by machines.")] = 64,
    clock: Annotated[
        Literal["wall", "processor"],
        typer.Option(
            help="Count the seconds that go by or, where other work would falsify them, those of the processor."
        ),
    ] = "wall",
    json: Annotated[Path | None, typer.Option(help="Also write all figures, and what they rest on, as JSON.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the JSON file that is there.")] = False,
    device: Device = "auto",
) -> None:
    """Plan a large job: hours, bytes and memory on so many machines, from about a minute measured here.

    Measured are, on samples of the archive and in one process: indexing, packing to a temporary store, embedding with
    the recipe's untrained network, steps of training, and passes of k-means. Everything that is written to measure is
    removed. Beside each figure stands whether it was measured, is extrapolated, or rests on something assumed.

    **Examples**

    ```
    terrasieve plan wv.parquet oceansar-1-vits16 --samples 12_000_000 --machines 1,8,64
    terrasieve plan simulated-ocean oceansar-small --samples 1_000_000 --machines 1,4 --seconds 30 --json plan.json
    terrasieve plan wv.parquet oceansar-1-resnet50 --samples 12_000_000 --machines 8,64 --sustained-tflops 400
    ```
    """
    from rich.console import Console

    from terrasieve.config import load_config
    from terrasieve.estimates.extrapolation import Assumptions, extrapolate
    from terrasieve.estimates.plan_tables import measured_table, plan_table, step_table, write_plan
    from terrasieve.estimates.trials import run_trials
    from terrasieve.estimates.workload import workload_of
    from terrasieve.files.outputs import hold_file

    counts = [_count("--machines", text) for text in machines.split(",")]
    config = load_config(recipe, settings or [], curate)
    work = workload_of(config, _count("--samples", samples), parts)
    for one in counts:
        work.check_machines(one)
    with nullcontext() if json is None else hold_file(json, (".json",), overwrite):
        found = run_trials(data, config, seconds, device, options)
        planned = extrapolate(
            found, work, counts, Assumptions(network_gbytes, sustained_tflops, storage_gbytes, readers, clock)
        )
        Console().print(measured_table(found), plan_table(planned), step_table(planned))
        if json is not None:
            console.print(f"Plan: {write_plan(found, planned, json)}", highlight=False)


def _count(option: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ConfigError(f"{option} {text!r} is no number above 0; write it like 12_000_000, and several as 1,8,64.")
    return value
