"""Word vectors: file formats, nearest words and analogies, tokens, and training on texts."""
