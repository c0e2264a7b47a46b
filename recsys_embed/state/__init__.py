"""The fitted state: the result of training that all answers are computed from, its folder on disk, and its updates."""
