"""What items say about themselves, as numbers: words, tags, numbers, pictures, ready-made vectors."""
