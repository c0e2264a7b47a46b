"""Data sources: files of all formats, databases, addresses, downloads, event logs and synthetic data.

To add a source, write one file here whose function returns ratings and items as frames, and name it in `DATASETS` of
`load`. To add a file format, write its reader here and call it from `read`.
"""
