"""Linear models on frozen vectors, fitted to their optimum."""
