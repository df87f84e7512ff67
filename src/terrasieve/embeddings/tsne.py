"""Vectors in the plane, by t-SNE."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terrasieve.console import progress_bar
from terrasieve.errors import ConfigError

EXAGGERATED, PLAIN = 250, 500
"""Iterations with and without early exaggeration: openTSNE's defaults."""

STEPS = 50
"""Iterations between two signs of progress."""

FEWEST = 5


def default_perplexity(samples: int) -> float:
    """30, or a third of the others where there are few."""
    return min(30.0, (samples - 1) / 3)


def tsne(
    vectors: NDArray[np.float32], seed: int, perplexity: float | None = None, jobs: int = 1
) -> NDArray[np.float64]:
    """Coordinates of vectors by t-SNE with exact neighbours, started from principal components.

    Van der Maaten and Hinton 2008; the start as in Kobak and Berens 2019, The art of using t-SNE.

    Args:
        vectors: Shape ``(n, features)``; compared by their cosine.
        seed: Seed of the starting positions.
        perplexity: Above 0 and below the number of samples; that of :func:`default_perplexity` when None.
        jobs: Number of threads, 1 or more.

    Returns:
        Shape ``(n, 2)``, without unit.

    Raises:
        ConfigError: There are fewer than five vectors, or all point the same way.
    """
    import openTSNE  # brings scikit-learn along, and training draws nothing

    unit = _unit(vectors)
    with progress_bar() as bar:
        task = bar.add_task(f"t-SNE of {len(unit)} samples (iterations)", total=EXAGGERATED + PLAIN, note="")

        def step(iteration: int, error: float, embedding: object) -> bool:
            bar.advance(task, STEPS)
            return False  # going on

        model = openTSNE.TSNE(
            perplexity=default_perplexity(len(unit)) if perplexity is None else perplexity,
            metric="cosine",
            neighbors="exact",
            initialization="pca",
            early_exaggeration_iter=EXAGGERATED,
            n_iter=PLAIN,
            n_jobs=jobs,
            random_state=seed,
            callbacks=[step],
            callbacks_every_iters=STEPS,
        )
        return np.array(model.fit(unit), dtype=np.float64)


def describe_tsne(samples: int, seed: int, perplexity: float | None = None) -> str:
    """Every setting of :func:`tsne` in one line."""
    from openTSNE import __version__

    used = default_perplexity(samples) if perplexity is None else perplexity
    return (
        f"t-SNE (openTSNE {__version__}): cosine distance, exact neighbours, perplexity {used:g}, start from "
        f"principal components, {EXAGGERATED} + {PLAIN} iterations, seed {seed}"
    )


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    if len(vectors) < FEWEST:
        raise ConfigError(f"t-SNE needs at least {FEWEST} samples, and there are {len(vectors)}; project more.")
    wide = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: NDArray[np.float64] = wide / np.maximum(lengths, np.finfo(np.float64).tiny)
    if not np.ptp(unit, axis=0).max() > np.finfo(np.float32).eps:
        raise ConfigError(
            f"The {len(vectors)} vectors all point the same way, so t-SNE has nothing to show: "
            "the encoder has collapsed."
        )
    return unit
