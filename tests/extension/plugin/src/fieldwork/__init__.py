"""What a distribution adds to terrasieve without touching it."""
