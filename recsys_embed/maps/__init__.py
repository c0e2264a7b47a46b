"""A map of the items in two dimensions: a picture, and a page to explore it."""
