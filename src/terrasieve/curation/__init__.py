"""Which samples of an archive are worth training on: vectors in, indices out."""
