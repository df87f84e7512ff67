"""What launchers say of the processes of a run is read, and refused where it does not fit."""

from __future__ import annotations

import pytest
from torch import nn

from terrasieve.cli.boundary import guarded
from terrasieve.console import console
from terrasieve.errors import CheckpointError, RequeueError, StoppedError, WorldError
from terrasieve.methods.byol import Byol
from terrasieve.models.backbone import Encoder
from terrasieve.processes.world import World, first_node, is_first, read_world
from terrasieve.training.loop import make_fabric
from terrasieve.training.process_count import check_processes
from terrasieve.training.spec import TrainSpec

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "first",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NNODES": "2",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "MASTER_ADDR": "first",
    "MASTER_PORT": "29500",
}
MPI = {
    "PMI_RANK": "3",
    "PMI_SIZE": "4",
    "MPI_LOCALRANKID": "1",
    "MPI_LOCALNRANKS": "2",
    "MASTER_ADDR": "first",
    "MASTER_PORT": "29500",
}
LAUNCHERS = {"torchrun": TORCHRUN, "Slurm": SLURM, "Open MPI": OPEN_MPI, "MPI": MPI}


@pytest.mark.parametrize("source", LAUNCHERS)
def test_every_launcher_says_the_same(source: str) -> None:
    world = read_world(LAUNCHERS[source])
    assert world is not None
    assert (world.rank, world.size, world.local_rank, world.nodes, world.per_node) == (3, 4, 1, 2, 2)
    assert world.source == source
    assert not is_first(LAUNCHERS[source])
    where = ("gpu03", 15_000 + 1_234_567 % 10_000) if source == "Slurm" else ("first", 29_500)
    assert (world.address, world.port) == where


def test_without_a_launcher_there_is_no_world() -> None:
    assert read_world({}) is None
    assert is_first({})
    assert read_world({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}) is None, "a shell in an allocation"
    assert read_world({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}) is None, "a batch script of one task"
    assert read_world({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "1"}) is None


def test_torchrun_and_mpi_go_before_the_slurm_job_that_they_run_in() -> None:
    for source, variables in LAUNCHERS.items():
        world = read_world({**SLURM, "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"} | variables)
        assert world is not None
        assert world.source == source
        assert world.size == 4
    world = read_world({**SLURM, "PMI_RANK": "3", "PMI_SIZE": "4"})
    assert world is not None
    assert world.source == "Slurm", "which starts MPI programs itself"


def test_the_tasks_of_a_step_count_where_the_job_has_more() -> None:
    world = read_world({**SLURM, "SLURM_NTASKS": "16", "SLURM_NNODES": "4", "SLURM_STEP_NUM_TASKS": "4"} | STEP)
    assert world is not None
    assert (world.size, world.nodes) == (4, 2)


STEP = {"SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize(
    ("listed", "first"),
    [
        ("gpu[03-07,11],login1", "gpu03"),
        ("gpu[3,7]", "gpu3"),
        ("gpu12", "gpu12"),
        ("rack[1-2]-gpu,other", "rack1-gpu"),
        ("a,b", "a"),
        ("", None),
    ],
)
def test_the_first_of_listed_machines_is_where_processes_meet(listed: str, first: str | None) -> None:
    assert first_node(listed) == first


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({k: v for k, v in TORCHRUN.items() if k != "LOCAL_RANK"}, "LOCAL_RANK is not set"),
        ({k: v for k, v in TORCHRUN.items() if k != "MASTER_ADDR"}, "MASTER_ADDR is not set"),
        ({**TORCHRUN, "WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({**TORCHRUN, "RANK": "4"}, "RANK is 4, but WORLD_SIZE is 4"),
        ({**TORCHRUN, "LOCAL_RANK": "2"}, "LOCAL_RANK is 2, but torchrun started 2 on each machine"),
        ({**TORCHRUN, "WORLD_SIZE": "5"}, "not as many on each"),
        ({**SLURM, "SLURM_NTASKS": "5"}, "5 tasks on 2 nodes"),
        ({**SLURM, "SLURM_NTASKS_PER_NODE": "4"}, "SLURM_NTASKS_PER_NODE is 4"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_ID"}, "Start the run by srun"),
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"}, "MASTER_ADDR is not set"),
        ({"PMI_RANK": "0", "PMI_SIZE": "2"}, "MPI_LOCALRANKID is not set"),
    ],
)
def test_variables_that_are_missing_or_contradict_each_other_are_refused(variables: dict[str, str], said: str) -> None:
    with pytest.raises(WorldError, match=said):
        read_world(variables)


def _launched(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(console, "quiet", console.quiet)


def test_more_devices_than_were_started_are_refused_and_the_first_process_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in ("1", "0"):
        one = {**TORCHRUN, "RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        _launched(monkeypatch, one)
        with pytest.raises(SystemExit) as stopped:
            guarded(lambda: make_fabric(TrainSpec(), "cpu", 2))
        assert stopped.value.code == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == (rank == "0")
    assert "WorldError: --devices is 2, but torchrun started 1 process on each machine" in lines[0]


def test_fabric_is_given_the_launchers_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    _launched(monkeypatch, SLURM)
    fabric = make_fabric(TrainSpec(timeout_minutes=3), "cpu")
    assert (fabric.world_size, fabric.global_rank, fabric.local_rank) == (4, 3, 1)
    assert console.quiet, "the first process speaks for all"
    assert fabric.strategy._timeout.total_seconds() == 180  # type: ignore[attr-defined]


def test_a_world_of_one_needs_no_group_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    _launched(monkeypatch, {name: "0" if "RANK" in name else "1" for name in TORCHRUN} | {"MASTER_ADDR": "first"})
    fabric = make_fabric(TrainSpec(), "cpu")
    assert fabric.world_size == 1
    assert type(fabric.strategy).__name__ == "SingleDeviceStrategy"
    assert read_world() == World(0, 1, 0, 1, 1, "torchrun", "first", 1)


# ------------------------------------------------------------------------------ ends


@pytest.mark.parametrize(("error", "code"), [(StoppedError("Stopped."), 1), (RequeueError("Stopped."), 75)])
def test_a_run_that_is_to_be_queued_again_says_so_by_its_status(
    error: StoppedError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        guarded(fail)
    assert stopped.value.code == code
    assert capsys.readouterr().err.strip().endswith("Stopped.")


# ------------------------------------------------------------------- another number of processes


def _byol(*layers: nn.Module) -> Byol:
    return Byol(Encoder(nn.Sequential(nn.Flatten(), *layers), 1, 4), nn.Linear(4, 2), nn.Linear(2, 2), momentum=0.9)


def test_a_run_goes_on_with_another_number_of_processes_where_that_is_exact() -> None:
    plain, normed = _byol(nn.Linear(1, 4)), _byol(nn.BatchNorm1d(4))
    assert check_processes(2, 2, normed, synchronised=False) is None
    assert check_processes(None, 2, normed, synchronised=False) is None, "older checkpoints do not say"
    assert "2 processes instead of 4: exact" in str(check_processes(4, 2, plain, synchronised=False))
    assert "exact" in str(check_processes(4, 2, normed, synchronised=True))


def test_another_number_of_processes_is_refused_where_it_would_be_another_run() -> None:
    comparing = _byol(nn.Linear(1, 4))
    comparing.mixes_samples = True
    for method, reason in (
        (_byol(nn.BatchNorm1d(4)), "Batch normalisation"),
        (_byol(nn.Dropout(0.1)), "dropped"),
        (comparing, "compares the samples"),
    ):
        with pytest.raises(CheckpointError, match=f"by 4 processes, and now the number is 2. .*{reason}"):
            check_processes(4, 2, method, synchronised=False)
