"""Fold-in: vectors of users who were not in training, one method for each kind of model."""
