"""Word vectors: their file formats, neighbours and analogies, tokens, and training from text."""
