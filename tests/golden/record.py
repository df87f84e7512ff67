"""Make everything that must not change, and write its digests and numbers as JSON.

    python tests/golden/record.py --out tests/golden/expected

Run it again when a change of results is wanted, and say in the commit why.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

FIXED = {
    # Kernels are chosen by processor, and the order in which they add differs: with AVX-512 the last bits of float32
    # are others than with AVX2, and twenty steps of training make more than last bits of it. Libraries are therefore
    # held at AVX2. OpenBLAS stays as the machine has it, and the C library chooses by itself, which is why floats are
    # compared bit by bit on the recording machine only.
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    # The names of numpy before and since 2.4; those that it does not know are passed over.
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "COLUMNS": "120",
    "NO_COLOR": "1",
}
_LIBRARIES = ("numpy", "scipy", "torch", "timm", "scikit-learn", "pyarrow", "zarr", "zarrs", "rasterio", "openTSNE")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def machine() -> dict[str, Any]:
    """What decides the last bits of floats: processor and libraries."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if info.is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    wide = sorted(flag for flag in facts.get("flags", "").split() if flag.startswith(("avx", "fma", "amx")))
    named = {name: facts.get(name, "") for name in ("vendor_id", "cpu family", "model", "stepping")}
    caches = {path.parent.name: path.read_text().strip() for path in sorted(_CACHES.glob("index*/size"))}
    libraries = {name: version(name) for name in _LIBRARIES}
    return {
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "python": ".".join(platform.python_version_tuple()[:2]),
        **named,
        "instructions": " ".join(wide),
        "caches": caches,
        "libraries": libraries,
    }


def record(out: Path, work: Path) -> list[str]:
    """Make all sections in this process, write a file for each, and name those that failed."""
    import making

    making.prepare()
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, make in making.SECTIONS.items():
        try:
            made = make(work)
        except Exception:  # the other sections are compared all the same
            traceback.print_exc()
            made = {"failed": traceback.format_exc()}
            failed.append(name)
        (out / f"{name}.json").write_text(written(made) + "\n", encoding="utf-8")
    (out / "machine.json").write_text(written(machine()) + "\n", encoding="utf-8")
    return failed


def written(value: Any, indent: int = 0) -> str:
    """JSON with a line for each key, but lists of plain values and summaries of arrays in one line."""
    if isinstance(value, dict) and value and "shape" not in value:
        lines = [
            f"{' ' * (indent + 1)}{json.dumps(str(key))}: {written(below, indent + 1)}" for key, below in value.items()
        ]
        return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"
    if isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
        lines = [
            f"{' ' * (indent + 1)}{json.dumps(one) if isinstance(one, list) else written(one, indent + 1)}"
            for one in value
        ]
        return "[\n" + ",\n".join(lines) + "\n" + " " * indent + "]"
    return json.dumps(value)


def restart_needed() -> bool:
    """Whether this process lacks the fixed environment, which libraries read when they are loaded."""
    return any(os.environ.get(name) != value for name, value in FIXED.items())


def restart() -> int:
    """Run the same command under the fixed environment; gives its exit code."""
    return subprocess.run([sys.executable, *sys.argv], env=os.environ | FIXED, check=False).returncode


def main() -> int:
    """Start this file again under the fixed environment, or record where that is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="Folder of the JSON files.")
    out = parser.parse_args().out
    if restart_needed():
        return restart()
    with tempfile.TemporaryDirectory(prefix="terrasieve-golden-") as work:
        return len(record(out, Path(work).resolve()))


if __name__ == "__main__":
    sys.exit(main())
