"""What a training leaves: the fitted state that all answers depend on, its folder on disk, and its updates."""
