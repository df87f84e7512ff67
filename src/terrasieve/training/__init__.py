"""The loop, the pool sampler, schedules and state."""
