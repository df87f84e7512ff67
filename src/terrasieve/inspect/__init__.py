"""Diagnostics of embeddings: arrays in, numbers out."""
