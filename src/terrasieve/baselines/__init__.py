"""Encoders that others trained, read from their own files and measured under the same protocol."""
