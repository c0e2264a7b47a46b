"""The map of the items: layout, picture, and the page to explore it."""
