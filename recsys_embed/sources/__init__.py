"""Where data come from: delimited files, downloads, event logs, made-up data.

A new source returns a `data.dataset.Dataset`, and is one file here and one line in `load`.
"""
