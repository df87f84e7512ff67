"""Parts that meet at an address: merged they equal one machine's, whoever dies, comes late or is cut off."""

from __future__ import annotations

import json
import signal
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apart import run_apart
from commanding import call
from remote_server import Dropping, Server
from small_archives.making import write_tif
from terrasieve.archive.packed import packing, store_writer
from terrasieve.archive.packed.progress import WrittenChunk
from terrasieve.archive.statistics import measure
from terrasieve.errors import ConfigError, PartsError, RemoteError
from terrasieve.files import object_store
from terrasieve.files.object_store import ObjectFolder
from terrasieve.models.backbone import BackboneSpec, build_encoder
from terrasieve.models.export import EncoderCard, save_encoder
from terrasieve.parts import leases, sharing
from terrasieve.parts.leases import Leases
from terrasieve.parts.part_plan import Outline
from terrasieve.parts.shared_objects import LeaseObjects, SharedObjects
from terrasieve.parts.sharing import Planned, Share, do_part, plan_of, work_on
from terrasieve.sensors import SENSORS
from terrasieve.simulation.land import SimulatedArchive, SimulatedSpec

CHUNK = 3 * 3 * 32 * 32
"""Bytes of a chunk: three samples."""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files; and no long waiting, in a folder of the test's own."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(packing, "CHUNK_BYTES", CHUNK)
    monkeypatch.setattr(sharing, "POLL", 0.05)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, scenes of which two are spoilt, and an encoder."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    for name in ("good", "scenes"):
        for number in range(8):
            path = folder / name / "s2" / f"{number:02d}.tif"
            write_tif(path, rng.integers(1, 250, (3, 32, 64)).astype(np.uint8))
            if name == "scenes" and number in (1, 6):
                # Pixels alone, so that only reading tells.
                whole = path.read_bytes()
                path.write_bytes(whole[:1000] + bytes(1000) + whole[2000:])
    backbone = BackboneSpec(name="test_resnet", channels=1)
    card = EncoderCard(
        backbone=backbone,
        method="byol",
        recipe="rs-byol-1",
        image_size=32,
        sensors={"s2": SENSORS["s2-l2a"]},
        view_bands=(),
        statistics=measure(SimulatedArchive(SimulatedSpec(samples=4, size=32)), sensors=["s2"]),
        provenance={"step": 1},
        weights_sha256="0" * 64,
    )
    save_encoder(folder / "run", build_encoder(backbone, seed=0), card)
    return folder


@pytest.fixture
def command(sources: Path) -> Callable[[str], list[Any]]:
    """The words of a command, up to the value of ``--out``."""
    tiled = ("--sensor", "s2=s2-rgb8", "--tile", 32, "--max-bad", 0.5, "--workers", 0)
    words: dict[str, list[Any]] = {
        "pack": ["pack", sources / "good", *tiled, "--out"],
        "pack shifted": ["pack", sources / "scenes", *tiled, "--out"],
        "pack compressed": ["pack", sources / "scenes", *tiled, "--compress", "--out"],
        "embed": [
            *("embed", sources / "run", "--data", "simulated:3:14", "--input", "s2:B03", "--batch-size", 2),
            *("--device", "cpu", "--out"),
        ],
    }
    return lambda name: words[name]


@pytest.fixture
def place(server: Server) -> Callable[[str], str]:
    """An address in a folder of that name."""
    return lambda folder: f"s3://{server.bucket}/{folder}/made.parquet"


def objects(address: str) -> dict[str, bytes | None]:
    """Everything in the folder of an address, but for the parts."""
    folder = ObjectFolder(address.rpartition("/")[0])
    return {name: folder.read(name) for name in sorted(folder.sizes()) if ".parts/" not in name}


def left(address: str) -> list[str]:
    """The names of what lies in the place of the parts."""
    return sorted(ObjectFolder(SharedObjects(address).name).sizes())


@dataclass
class Noting:
    """Work of so many items, in parts that note which worker did them.

    Attributes:
        worker: Name of the worker.
        items: Number of items.
        at_first: What is done in the midst of the first part.
        did: The first item of each part that was done.
    """

    worker: str
    items: int = 6
    at_first: Callable[[], object] = lambda: None
    did: list[int] = field(default_factory=list)
    work: str = "pack"

    def request(self) -> str:
        return "r"

    def outline(self, folder: Path) -> Outline:
        (folder / "extra.txt").write_text("of the plan")
        return Outline(self.items)

    def state(self, items: range, planned: Planned) -> str:
        assert (planned.files / "extra.txt").read_text() == "of the plan"
        return "s"

    def write(self, items: range, place: Path, planned: Planned) -> None:
        self.did.append(items.start)
        if len(self.did) == 1:
            self.at_first()
        (place / "by" / "whom").mkdir(parents=True)
        (place / "by" / "whom" / "name.txt").write_text(self.worker)


def planned_at(address: str) -> Planned:
    return Planned(SharedObjects(address), plan_of(address)[0])


# ---------------------------------------------------------------- as one machine


@pytest.mark.parametrize(("name", "parts"), [("pack", 3), ("pack shifted", 4), ("pack compressed", 2), ("embed", 4)])
def test_merged_parts_equal_one_machine(
    name: str,
    parts: int,
    command: Callable[[str], list[Any]],
    place: Callable[[str], str],
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, many = place("one"), place("many")
    call(*command(name), one)
    for number in reversed(range(2, parts + 1)):
        call(*command(name), many, "--part", f"{number}/{parts}")
    with pytest.raises(PartsError, match=rf"1 of {parts} parts of {many} are missing: 1/{parts}\. "):
        call("merge", many)
    assert objects(many) == {}
    call(*command(name), many, "--claim")
    here = []
    real = SharedObjects.bring
    monkeypatch.setattr(
        SharedObjects, "bring", lambda self, one: (real(self, one), here.append(len(list(scratch.glob("*/part-*")))))[0]
    )
    call("merge", many)
    assert objects(many) == objects(one)
    assert left(many) == ["merged.json"]
    assert max(here) == 2 <= parts, "no more than two parts lie here, however many there are"
    assert list(scratch.iterdir()) == []


def test_merging_again_changes_nothing_and_late_workers_find_nothing_to_do(place: Callable[[str], str]) -> None:
    out, words = place("a"), ("pack", "simulated:3:4", "--workers", 0, "--out")
    call(*words, out, "--claim", "--parts", 2)
    call("merge", out)
    before = objects(out)
    call("merge", out)
    call(*words, out, "--part", "1/2")
    assert objects(out) == before
    assert left(out) == ["merged.json"]
    ObjectFolder(out).remove(ObjectFolder(out).sizes())
    with pytest.raises(PartsError, match=r"it was removed since\. Remove s3://.*/a/\.made\.parquet\.parts, too"):
        call("merge", out)


def test_merging_that_was_interrupted_goes_on(
    command: Callable[[str], list[Any]], place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, stored = place("many"), place("store")
    call(*command("embed"), out, "--claim", "--parts", 2)
    call(*command("pack"), stored, "--claim", "--parts", 2)
    written, write, append = list[int](), ObjectFolder.write, store_writer.append_chunk

    def dead(folder: ObjectFolder, name: str, *more: Any, **asked: Any) -> bool:
        if name == "made.parquet":
            raise RemoteError("the server is gone")
        return write(folder, name, *more, **asked)

    def killed(path: Path, chunk: WrittenChunk) -> None:
        written.append(chunk.position)
        if len(written) == 3:
            raise KeyboardInterrupt
        append(path, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(ObjectFolder, "write", dead)
        with pytest.raises(RemoteError):
            call("merge", out)
        patch.setattr(store_writer, "append_chunk", killed)
        with pytest.raises(AssertionError):
            call("merge", stored)
    assert objects(out).keys() <= {"made.parquet.collection.json"}
    for address, name in ((out, "embed"), (stored, "pack")):
        assert {"done/plan", "done/part-00000", "done/part-00001"} < set(left(address))
        call("merge", address)
        call(*command(name), place("one"), "--overwrite")
        assert objects(address) == objects(place("one"))
        assert left(address) == ["merged.json"]
        ObjectFolder(place("one").rpartition("/")[0]).remove(objects(place("one")))


# ---------------------------------------------------------------------- workers


def test_two_workers_at_once_do_different_parts(place: Callable[[str], str]) -> None:
    out, both = place("a"), threading.Barrier(2, timeout=60)
    workers = [Noting(name, at_first=both.wait) for name in ("one", "other")]
    threads = [threading.Thread(target=work_on, args=(job, out, Share(None, 6), {})) for job in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The barrier lets neither go on before both are at a part.
    assert sorted(workers[0].did + workers[1].did) == [0, 1, 2, 3, 4, 5]
    planned = planned_at(out)
    for job in workers:
        assert job.did
        for number in job.did:
            assert (planned.part(number) / "by/whom/name.txt").read_text() == job.worker


def test_of_two_that_make_a_lease_one_wins(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LeaseObjects, "look", lambda self, key: None)
    claims = [Leases(LeaseObjects(ObjectFolder(f"s3://{server.bucket}/leases"))).claim("part") for _ in range(3)]
    assert claims[0] is not None
    assert claims[1:] == [None, None]


def test_signs_of_life_are_put_and_a_taken_lease_is_lost(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT", 0.01)
    leases_there = LeaseObjects(ObjectFolder(f"s3://{server.bucket}/leases"))
    lease = Leases(leases_there).claim("part")
    assert lease is not None
    seen = leases_there.look("part.0")
    with lease.held():
        wait_until(lambda: server.count("PUT", "part.0") > 3)
        assert not lease.lost
        leases_there.create("part.1", b"{}")
        wait_until(lambda: lease.lost)
    again = leases_there.look("part.0")
    assert seen is not None
    assert again is not None
    assert again.content == seen.content


def test_ages_are_by_the_servers_clock(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is behind the worker's by years changes no age."""
    place, dated = LeaseObjects(ObjectFolder(f"s3://{server.bucket}/leases")), ObjectFolder.dated

    def behind(folder: ObjectFolder, name: str) -> tuple[bytes, datetime] | None:
        found = dated(folder, name)
        return None if found is None else (found[0], found[1] - timedelta(days=3650))

    monkeypatch.setattr(ObjectFolder, "dated", behind)
    place.create("part.0", b"{}")
    seen = place.look("part.0")
    assert seen is not None
    # Times have whole seconds, and the machine may be busy; years would show.
    assert 0 <= seen.age < leases.EXPIRY


def test_who_fails_gives_back(place: Callable[[str], str]) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work_on(Noting("one", at_first=fail), place("a"), Share(0, 2), {})
    job = Noting("other")
    work_on(job, place("a"), Share(None, 2), {})
    assert job.did == [0, 3]


KILLED = """
import os, signal, sys, tempfile
tempfile.tempdir = os.path.abspath("scratch")
os.environ.update(AWS_ENDPOINT_URL=sys.argv.pop(1), AWS_ACCESS_KEY_ID="any", AWS_SECRET_ACCESS_KEY="any")
from terrasieve.archive.packed import packing
from terrasieve.files.object_store import ObjectFolder
packing.CHUNK_BYTES = int(sys.argv.pop(1))
write = ObjectFolder.write
def killed(folder, name, *more, **asked):
    # All of the second part is there, but for what makes a part of it.
    if name == "part-00001":
        os.kill(os.getpid(), signal.SIGKILL)
    return write(folder, name, *more, **asked)
ObjectFolder.write = killed
from terrasieve.cli import main
main()
"""


def test_a_killed_worker_costs_its_part_alone(
    command: Callable[[str], list[Any]], place: Callable[[str], str], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, many = place("one"), place("many")
    words = [str(word) for word in command("pack shifted")]
    ended = run_apart(
        KILLED, f"http://127.0.0.1:{server.port}", CHUNK, *words, many, "--claim", "--parts", "3", folder=Path.cwd()
    )
    assert ended.code == -signal.SIGKILL, ended.errors
    before = left(many)
    assert [name for name in before if name.startswith("done/")] == ["done/part-00000", "done/plan"]
    assert any(name.startswith("files/part-00001.") for name in before), "its files were there"
    # As on another machine, which cannot tell that the process is gone.
    monkeypatch.setattr(leases, "_space", lambda: None)
    held = Leases(SharedObjects(many).lease_place())
    assert held.claim("part-00001") is None, "the lease is held until it is old"
    monkeypatch.setattr(leases, "EXPIRY", -60.0)
    call(*words, many, "--claim")
    made = [name for name in left(many) if name.startswith("leases/part-")]
    assert made == ["leases/part-00000.0", "leases/part-00001.0", "leases/part-00001.1", "leases/part-00002.0"]
    call("merge", many)
    call(*words, one)
    assert objects(many) == objects(one)
    assert left(many) == ["merged.json"]


def test_a_worker_that_is_late_replaces_nothing(place: Callable[[str], str]) -> None:
    out = place("a")
    work_on(Noting("planner"), out, Share(1, 2), {})
    quick, results = Noting("quick"), list[bool]()
    late = Noting("late", at_first=lambda: results.append(do_part(quick, planned_at(out), 0)))
    results.append(do_part(late, planned_at(out), 0))
    assert results == [True, False]
    assert (planned_at(out).part(0) / "by/whom/name.txt").read_text() == "quick"
    # Both found that no other was first, and uploaded all.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectFolder, "holds", lambda self, name: False)
        assert not do_part(Noting("later"), planned_at(out), 0)
    assert (planned_at(out).part(0) / "by/whom/name.txt").read_text() == "quick"
    uploads = {name.split("/")[1] for name in left(out) if name.startswith("files/part-00000.")}
    assert len(uploads) == 1, "what came too late was removed"


# ------------------------------------------------------------- servers and words


def test_dropped_connections_are_tried_again_and_a_lost_server_leaves_what_goes_on(
    command: Callable[[str], list[Any]], place: Callable[[str], str], dropping: Dropping
) -> None:
    one, many = place("one"), place("many")
    call(*command("pack"), one)
    # In the midst of a part: its worker ends with a line.
    with pytest.raises(RemoteError, match=r"run the same command again"):
        work_on(Noting("cut off", at_first=lambda: dropping.drop(10**9)), place("a"), Share(0, 2), {})
    dropping.drop(0)

    def fail() -> None:
        dropping.drop(10**9)
        raise ZeroDivisionError

    # That the lease cannot be given back then is not what the worker failed of.
    with pytest.raises(ZeroDivisionError):
        work_on(Noting("cut off", at_first=fail), place("a"), Share(1, 2), {})
    for words in (("--claim", "--parts", 2), ()):
        dropping.drop(2)
        cut = dropping.cut
        call(*command("pack") if words else ("merge",), many, *words)
        assert dropping.cut == cut + 2
    assert objects(many) == objects(one)


def test_a_server_that_is_away_for_a_while_costs_no_work(
    place: Callable[[str], str], server: Server, dropping: Dropping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT", 0.01)

    def away() -> None:
        tries = object_store.TRIES * (1 + object_store.RETRIES["max_retries"])
        cut = dropping.cut
        dropping.drop(10**9)
        # More than are made for one sign of life.
        wait_until(lambda: dropping.cut > cut + tries)
        dropping.drop(0)
        before = server.count("PUT", "part-00000.0")
        wait_until(lambda: server.count("PUT", "part-00000.0") > before)

    job = Noting("one", at_first=away)
    work_on(job, place("a"), Share(None, 2), {})
    assert job.did == [0, 3]
    assert planned_at(place("a")).missing() == []


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/etc/out.txt", ".hidden", "a//b", "a\\b", ""])
def test_no_record_leads_out_of_the_folder_of_its_part(name: str, place: Callable[[str], str], scratch: Path) -> None:
    out = place("a")
    folder = ObjectFolder(SharedObjects(out).name)
    folder.write("done/part-00000", json.dumps({"writer": "0" * 32, "files": {name: "0"}}).encode())
    with pytest.raises(PartsError, match="done/part-00000 cannot be read"):
        SharedObjects(out).bring("part-00000")
    assert list(scratch.rglob("*")) == []


def test_a_damaged_part_is_refused_and_can_be_done_again(
    command: Callable[[str], list[Any]], place: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = place("a")
    call(*command("pack"), out, "--claim", "--parts", 2)
    folder = ObjectFolder(SharedObjects(out).name)
    chunk = next(name for name in folder.sizes() if name.startswith("files/part-00001") and "/c/" in name)
    folder.write(chunk, b"of somebody else")
    with pytest.raises(PartsError, match=r"is damaged: .*Remove the object done/part-00001 there, do that part again"):
        call("merge", out)
    folder.remove([chunk])
    with pytest.raises(PartsError, match=r"is damaged: .*Remove the object done/part-00001 there, do that part again"):
        call("merge", out)
    folder.remove(["done/part-00001"])
    monkeypatch.setattr(leases, "EXPIRY", -60.0)
    call(*command("pack"), out, "--claim")
    call("merge", out)
    call(*command("pack"), place("one"))
    assert objects(out) == objects(place("one"))


def test_what_cannot_meet_at_an_address_is_refused_with_what_to_do(
    command: Callable[[str], list[Any]], place: Callable[[str], str], server: Server, tmp_path: Path
) -> None:
    out = place("a")
    for words in (
        ("index", "simulated:3:4", "--out", out, "--claim"),
        ("curate", tmp_path / "v.npy", "--out", out, "--part", "1/2"),
        ("wv", "ingest", tmp_path, "--out", out, "--claim"),
    ):
        with pytest.raises(ConfigError, match=r"writes to no address\. .*a folder that all machines share"):
            call(*words)
    with pytest.raises(ConfigError, match="Start --claim on each machine instead, or write to a shared folder"):
        call("pack", "simulated:3:4", "--out", out, "--on", "ray")
    with pytest.raises(ConfigError, match=r"let it end in \.parquet"):
        call(*command("embed"), f"s3://{server.bucket}/made.zarr", "--claim")
    with pytest.raises(PartsError, match=f"There is no plan of {out}: "):
        call("merge", out)
    assert left(out) == []
    assert {path.name for path in tmp_path.iterdir()} == {"scratch"}


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come to that")
