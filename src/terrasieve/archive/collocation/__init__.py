"""Measurements joined to samples by place and time."""
