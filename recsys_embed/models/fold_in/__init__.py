"""Vectors of users who were not there in training, one way for each kind of model."""
