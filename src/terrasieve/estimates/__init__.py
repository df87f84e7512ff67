"""What the jobs of a large archive will cost on so many machines, told from a measured minute."""
