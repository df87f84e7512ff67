"""The processes of a run: how many there are, what they tell each other, and work that is dealt out to more of them."""
