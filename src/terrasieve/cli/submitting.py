"""Array jobs: every part of a command as one job of a batch system."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from terrasieve.cli.app import app
from terrasieve.cli.parts import command_named
from terrasieve.console import console
from terrasieve.errors import ConfigError

_OWN = ("--part", "--claim", "--on")


@dataclass(frozen=True)
class PartTask:
    """One job of the array; submitit keeps it as a file.

    Attributes:
        words: The command and its options.
        parts: Number of parts.
    """

    words: tuple[str, ...]
    parts: int

    def __call__(self, number: int) -> None:
        """Do a part, counted from 1."""
        app([*self.words, "--part", f"{number}/{self.parts}"], standalone_mode=False)

    def checkpoint(self, number: int) -> Any:
        """What is queued again when the job is preempted or runs out of time: the same part."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, number)


@dataclass(frozen=True)
class Resources:
    """What each job of the array asks for.

    Attributes:
        partition: Slurm's partition; its default when None.
        minutes: Time limit.
        gpus: GPUs of a job.
        cpus: Cores of a job.
        memory: Gigabytes of a job; the partition's default when None.
        nodes: Most jobs that run at a time, each on one node; all when None.
        account: Slurm's account; the user's default when None.
    """

    partition: str | None
    minutes: int
    gpus: int
    cpus: int
    memory: float | None
    nodes: int | None
    account: str | None = None

    def of_executor(self, name: str, parts: int) -> dict[str, Any]:
        """The same as submitit's executor for any batch system takes it."""
        asked = {
            "name": name,
            "timeout_min": self.minutes,
            "nodes": 1,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "mem_gb": self.memory,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_array_parallelism": self.nodes or parts,
        }
        return {key: value for key, value in asked.items() if value is not None}


@app.command(context_settings={"ignore_unknown_options": True})
def submit(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="A command that works in parts, with its options.")
    ],
    slurm: Annotated[bool, typer.Option("--slurm", help="Submit to Slurm; no other batch system is known.")] = False,
    parts: Annotated[int, typer.Option(min=1, help="Number of parts, and of jobs.")] = 64,
    time: Annotated[int, typer.Option(min=1, help="Time limit of a job, in minutes.")] = 240,
    partition: Annotated[str | None, typer.Option(help="Slurm's partition; its default.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm's account; yours.")] = None,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of a job.")] = 0,
    cpus: Annotated[int, typer.Option(min=1, help="Cores of a job.")] = 1,
    memory: Annotated[float | None, typer.Option(min=0.1, help="Gigabytes of a job; Slurm's default.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Most jobs at a time, each on one node; all.")] = None,
    logs: Annotated[Path, typer.Option(help="Folder of the jobs' logs, which all nodes see.")] = Path("slurm"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script, and submit nothing.")] = False,
) -> None:
    """Submit a command in parts as an array job.

    Each job does what the command does with `--part`, is queued again when it is preempted or runs out of time, and
    needs terrasieve where it runs. Make one of the parts with `terrasieve merge` when all are done.

    **Examples**

    ```
    terrasieve submit index scenes --sensor s2=s2-l2a --out scenes.parquet --slurm --parts 64 --dry-run
    terrasieve submit embed runs/first --data pairs.zarr --input s2:B03 --out e.parquet --slurm --gpus 1 --time 60
    ```
    """
    if not slurm:
        raise ConfigError("Say where to submit: --slurm.")
    name, out = _checked(context, words, parts)
    asked = Resources(partition, time, gpus, cpus, memory, nodes, account)
    if dry_run:
        print(array_script(name, parts, logs, asked))
        return
    jobs = submit_array(PartTask(tuple(words), parts), name, logs, asked, cluster="slurm")
    array = str(jobs[0].job_id).partition("_")[0]
    console.print(
        f"Submitted array job {array} of {parts} parts; logs in {logs}. When all are done: terrasieve merge {out}",
        highlight=False,
        soft_wrap=True,
    )


def _checked(context: typer.Context, words: list[str], parts: int) -> tuple[str, str]:
    """The name of the command and its ``--out``, where it works in parts and its options are such as it has."""
    root = context.find_root()
    name = next((" ".join(words[:n]) for n in (1, 2) if command_named(root.command, " ".join(words[:n]))), None)
    if name is None:
        raise ConfigError(f"{words[0]} does not work in parts: submit index, pack, embed, curate or wv ingest.")
    if given := [word for word in words if word.partition("=")[0] in _OWN]:
        raise ConfigError(f"{given[0]} is for one worker; the array job does all parts. Leave it out.")
    rest = [*words[len(name.split()) :], "--part", f"1/{parts}"]
    with command_named(root.command, name).make_context(name, rest, parent=root) as inner:
        return f"terrasieve-{name.replace(' ', '-')}", shlex.quote(str(inner.params["out"]))


def submit_array(task: PartTask, name: str, logs: Path, asked: Resources, cluster: str) -> list[Any]:
    """Submit a job for each part.

    Args:
        task: What the jobs do.
        name: Their name.
        logs: Folder of the jobs' logs.
        asked: What each job asks for.
        cluster: ``slurm``, or one of submitit's for tests: ``local`` or ``debug``.

    Returns:
        submitit's jobs, by part.

    Raises:
        ConfigError: submitit is not installed, there is no such batch system here, or it refuses the job.
    """
    submitit = _submitit()
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        executor.update_parameters(**asked.of_executor(name, task.parts))
        return list(executor.map_array(task, range(1, task.parts + 1)))
    except (RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"The array job cannot be submitted: {said}. Submit where `sbatch` is and takes these options, or see the "
            "script with --dry-run."
        ) from error


def array_script(name: str, parts: int, logs: Path, asked: Resources) -> str:
    """The script that :func:`submit_array` submits.

    Args:
        name: Name of the jobs.
        parts: Number of parts.
        logs: Folder of the jobs' logs.
        asked: What each job asks for.

    Raises:
        ConfigError: submitit is not installed.
    """
    _submitit()
    # Not for others to call, but an executor can only be made where Slurm is, and its script is nowhere else.
    from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

    names = {**SlurmExecutor._equivalence_dict(), "timeout_min": "time"}
    given = asked.of_executor(name, parts).items()
    parameters = {str(names.get(key, key.removeprefix("slurm_"))): value for key, value in given}
    if "mem" in parameters:
        parameters["mem"] = f"{parameters['mem']:g}GB"
    command = shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(logs.absolute())])
    return str(_make_sbatch_string(command, logs.absolute(), map_count=parts, **parameters))


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("--slurm needs submitit: pip install 'terrasieve[slurm]'.") from error
    return submitit
