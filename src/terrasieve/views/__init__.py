"""From a sample to what a method sees: band policies and batched, seeded, N-channel augmentation."""
