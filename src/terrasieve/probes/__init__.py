"""Honest measurements of frozen embeddings, with intervals and floors."""
