"""Training: the loop, the steps, the optimizer, Gibbs sampling, and warm starts.

`fit` turns ratings into a fitted state; `trainer` holds the training loop.
"""
