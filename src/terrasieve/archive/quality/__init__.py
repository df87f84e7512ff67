"""What may be wrong with samples: flaws that reject one, and suspicions that warn of what spoils a run silently."""
