"""The k best of many items: exact and approximate.

`topk` is the one place that ranks.
"""
