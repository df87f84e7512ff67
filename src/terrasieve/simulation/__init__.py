"""Simulated archives, physically motivated and seeded, for people who have no imagery at hand, and for tests."""
