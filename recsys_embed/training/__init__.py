"""Numbers move: the loop, the steps, the optimiser, Gibbs sampling, and warm starts.

`fit` takes ratings to a fitted state; `trainer` holds the one loop.
"""
