"""What the numbers are: ids and vocabularies, ratings, the items of each user, splits, checks, item tables.

Nothing here knows a file format, a model or torch.
"""
