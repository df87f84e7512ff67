"""Silent corrupters: what an archive may hold that stops no run and spoils its result. They warn and reject nothing."""

from terrasieve.archive.suspicions.suspects import Finding, Suspects, look_at
from terrasieve.archive.suspicions.suspicion import (
    Kind,
    Suspicion,
    suspicions_path,
    write_suspicions,
)

__all__ = ["Finding", "Kind", "Suspects", "Suspicion", "look_at", "suspicions_path", "write_suspicions"]
