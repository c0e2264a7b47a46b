"""Torch modules: towers encode users and items, scorers score pairs, losses compare positives with negatives."""
