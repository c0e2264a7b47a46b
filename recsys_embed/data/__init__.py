"""In-memory data: ids and vocabularies, ratings, the items of each user, splits, checks and item tables.

Nothing here depends on a file format, a model or torch.
"""
