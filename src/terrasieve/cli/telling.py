"""What several commands say on the screen: suspicions, and that an interrupted command goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.text import Text

from terrasieve.archive.quality.suspicion import Suspicion
from terrasieve.console import console


@contextmanager
def resumable() -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("Stopped. Run the same command again to go on from here.", highlight=False)
        raise


def tell(suspicions: Sequence[Suspicion], listed: Path) -> None:
    """Print a short list: what, in how many samples, an example, what was seen, and what mends it."""
    if not suspicions:
        console.print("Suspicions: none.", highlight=False)
        return
    console.print(f"Suspicions; no sample was left out for them, all ids are in {listed}:", highlight=False)
    for one in suspicions:
        console.print(Text(f"  {one.headline}", style="bold yellow"))
        where = f" ({one.asset})" if one.asset else ""
        console.print(Text(f"    for example  {one.example}{where}"))
        console.print(Text(f"    seen         {one.seen}"))
        console.print(Text(f"    mend         {one.mend}"))


def warn(suspicions: Sequence[Suspicion]) -> None:
    """Print a line for each."""
    for one in suspicions:
        console.print(Text(f"Warning: {one.line()}", style="yellow"))
