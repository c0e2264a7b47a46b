"""Embeddings to look at."""
