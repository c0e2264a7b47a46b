"""Modules of torch: towers make vectors, scorers make scores, losses compare them with negatives."""
