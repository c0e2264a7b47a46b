"""What items say about themselves: words, pictures, ready-made vectors."""
