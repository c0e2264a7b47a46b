"""Numbers move: the optimizer, the step and the loop."""
