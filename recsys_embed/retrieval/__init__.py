"""Top-k retrieval: find the k best of many items, exactly or approximately.

All ranking happens in `topk`.
"""
