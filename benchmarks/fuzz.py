"""Hostile and damaged files of every reader, each in a folder with good ones.

Small archives of every layout are written, as for the tests. Then, again and again, up to three files of one of them
are damaged or replaced, and the archive is indexed in a process of its own, which may take 2 GiB. Each damaged file has
to be read, to be quarantined or to be named in an error of one line; samples whose files are whole have to be read as
before.

    python benchmarks/fuzz.py --files 10000

The last line is JSON: ``files``, how many were damaged; ``unaccounted``, runs that lost a sample, read a whole file
otherwise than before, or ended in an error that names nothing of the archive; ``tracebacks``, runs that ended in an
error nobody foresaw, or by a signal; ``outside_reads``, runs that read a file outside the archive or requested an
address.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pkgutil
import resource
import signal
import socket
import sys
import tempfile
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from fuzz_damage import CANARY, Outside, damage, is_canary

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from small_archives import all_makers
from small_archives.making import Bench, write_tif
from terrasieve import archive as archive_room
from terrasieve import simulation as simulation_room
from terrasieve.archive.catalogue import index_archive, read_catalogue
from terrasieve.archive.opening import open_archive
from terrasieve.archive.protocol import Archive
from terrasieve.console import console
from terrasieve.errors import TerrasieveError

ROOM = 2 * 2**30
SECONDS = 30
"""Of work that a run may take."""
LONGEST = 900
"""Seconds by the clock after which it waits for something that never comes, however busy the machine is."""
PIXELS = {".tif", ".tiff", ".jpg", ".jpeg", ".png", ".h5"}
"""Suffixes of files whose damage takes no sample away; of a damaged list nobody can know what it named."""


@dataclass(frozen=True)
class Target:
    """An archive that is to be damaged.

    Attributes:
        name: Of its layout, and its number there.
        root: Its folder.
        described: The file that says how it is opened.
        files: The content of its files.
        samples: A digest of the pixels of every sample, by id.
        assets: The files that each sample is of, by id.
    """

    name: str
    root: Path
    described: Path
    files: Mapping[Path, bytes]
    samples: Mapping[str, str]
    assets: Mapping[str, frozenset[str]]


def targets(root: Path) -> Iterator[Target]:
    """Every small archive that lies in files.

    Each is made in a process of its own: a forked process that inherits an archive which was read waits for ever for
    the threads that read it.
    """
    for layout, makers in all_makers().items():
        for number in range(len(makers)):
            name = f"{layout}-{number}"
            folder, described = root / name, root / f"{name}.yaml"
            folder.mkdir()
            said = in_child(lambda layout=layout, number=number, folder=folder: _make(layout, number, folder))
            files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
            if not files:
                continue
            try:
                made = json.loads(said)
            except ValueError as error:
                raise RuntimeError(f"{name} cannot be made: {said}") from error
            described.write_text(json.dumps(made["spec"]))
            assets = {sample: frozenset(paths) for sample, paths in made["assets"].items()}
            yield Target(name, folder, described, files, made["samples"], assets)


def _make(layout: str, number: int, folder: Path) -> str:
    archive = all_makers()[layout][number](Bench(folder))
    columns = [archive.table()[f"asset:{key}"].to_pylist() for key in archive.sensors]
    # A sample may be of more files than its assets say, such as one for each band.
    files = [list(archive.files(np.array([row]))) for row in range(len(archive))]
    made = {
        "spec": archive.spec.model_dump(mode="json"),
        "samples": _digests(archive),
        "assets": {
            name: [*(str(column[row]) for column in columns), *files[row]]
            for row, name in enumerate(archive.ids.tolist())
        },
    }
    return json.dumps(made)


def _digests(archive: Archive) -> dict[str, str]:
    return {name: _digest(archive, index) for index, name in enumerate(archive.ids.tolist())}


def _digest(archive: Archive, index: int) -> str:
    pixels = [np.ascontiguousarray(archive.read(index, key)) for key in archive.sensors]
    if any(is_canary(one) for one in pixels):
        return "outside"
    return hashlib.sha256(b"".join(one.tobytes() for one in pixels)).hexdigest()


def look(target: Target, damaged: Sequence[Path], out: Path) -> str:
    """Index a damaged archive; gives ``""`` or what is wrong with how that ended."""
    try:
        archive = open_archive(target.described)
        report = index_archive(archive, out / "c.parquet", max_bad=1.0)
    except TerrasieveError as error:
        known = (str(target.root), *(path.name for path in target.files), *target.samples)
        return "" if any(name in str(error) for name in known) else f"unaccounted: the error names nothing: {error}"
    kept = read_catalogue(report.path).restrict(archive)
    found = _digests(kept)
    if "outside" in found.values():
        return "outside"
    # A list of the archive's own, of items or of a split, may lose samples with its damage: they are in it no more.
    pixels = all(path.suffix.lower() in PIXELS for path in damaged)
    if pixels and (nameless := _nameless(target, found, report.quarantine)):
        return f"unaccounted: {len(nameless)} samples, such as {nameless[0]}, are neither read nor quarantined"
    return _changed(target, damaged, found) if pixels else ""


def _nameless(target: Target, found: Mapping[str, str], quarantine: Path) -> list[str]:
    """Samples that are not read, and of which the list of what was left out names neither themselves nor a file."""
    listed = quarantine.read_text(encoding="utf-8") if quarantine.is_file() else ""
    return [
        name
        for name in target.samples
        if name not in found and not any(one in listed for one in (name, *map(os.path.basename, target.assets[name])))
    ]


def _changed(target: Target, damaged: Sequence[Path], found: Mapping[str, str]) -> str:
    """Whether a sample none of whose files was damaged is read otherwise than before."""
    touched = {str(path) for path in damaged} | {str(path.relative_to(target.root)) for path in damaged}
    for name, digest in found.items():
        whole = not any(one.endswith(path) or path.endswith(one) for one in target.assets[name] for path in touched)
        if whole and target.samples[name] != digest:
            return f"unaccounted: {name} is read otherwise than before, and its files are whole"
    return ""


def in_child(work: Callable[[], str]) -> str:
    """What a function says in a process of its own with little memory and work, or how that ended."""
    readable, writable = os.pipe()
    pid = os.fork()
    if not pid:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, size + ROOM))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        signal.alarm(LONGEST)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            said = work()
        except BaseException:  # whatever it is, nobody foresaw it
            said = f"traceback: {traceback.format_exc()[-1500:]}"
        os.write(writable, said.encode()[:60_000])
        os._exit(0)
    os.close(writable)
    with open(readable, "rb") as file:
        said = file.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return said if status == 0 else f"traceback: ended with {status}"


class Requests:
    """Counts the connections to an address of this machine."""

    def __init__(self) -> None:
        self.count = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        """The address."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            self.count += 1
            connection.close()


def run(files: int, seed: int) -> Counter[str]:
    """Damage so many files; gives the sums, and prints a line for each run that goes wrong."""
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    requests = Requests()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        root = Path(folder)
        outside = Outside(root / "outside" / "secret.tif", requests.url)
        write_tif(outside.file, np.full((1, 32, 32), CANARY, np.uint16))
        (root / "archives").mkdir()
        every = list(targets(root / "archives"))
        out = root / "out"
        while found["files"] < files:
            target = every[int(rng.integers(len(every)))]
            chosen = rng.permutation(len(target.files))[: int(rng.integers(1, 4))]
            damaged = [list(target.files)[i] for i in chosen]
            ways = []
            for path in damaged:
                way, content = damage(target.files[path], rng, outside)
                path.write_bytes(content)
                ways.append(f"{way} in {path.relative_to(target.root)}")
            before = requests.count
            out.mkdir(exist_ok=True)
            said = in_child(lambda target=target, damaged=damaged: look(target, damaged, out))
            for path in out.iterdir():
                path.unlink()
            for path in damaged:
                path.write_bytes(target.files[path])
            found["files"] += len(damaged)
            found["outside_reads"] += requests.count > before or said == "outside"
            found["tracebacks"] += said.startswith("traceback")
            found["unaccounted"] += said.startswith("unaccounted")
            if said or requests.count > before:
                note = f"- {target.name}: {'; '.join(ways)}: {said or 'an address was requested'}"
                console.print(note, highlight=False, markup=False, soft_wrap=True)
    return found


def _import_readers() -> None:
    """Import what reads files, once for all processes that are forked: most of the time of a run would go there."""
    for room in (archive_room, simulation_room):
        for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            if not found.name.endswith("__main__"):
                import_module(found.name)
    for name in ("h5py", "zarr", "zarrs", "pyogrio", "geopandas", "rasterio.features", "pyarrow.dataset"):
        with suppress(ImportError):
            import_module(name)


def main() -> None:
    """Measure, and print what went wrong and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="How many files to damage.")
    parser.add_argument("--seed", type=int, default=0, help="Of what is damaged, and how.")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    _import_readers()
    found = run(options.files, options.seed)
    names = ("files", "unaccounted", "tracebacks", "outside_reads")
    print(json.dumps({name: found[name] for name in names}))
    sys.exit(any(found[name] for name in names[1:]))


if __name__ == "__main__":
    main()
