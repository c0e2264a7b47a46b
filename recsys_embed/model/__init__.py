"""Vectors and scores. Import from the modules: `plain` needs numpy only, the others torch."""
