"""Pictures by matplotlib: of a training, of comparisons, of searches, of words."""
