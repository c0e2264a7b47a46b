"""Item features: words, tags, numbers, pictures and ready-made vectors, encoded as numbers."""
