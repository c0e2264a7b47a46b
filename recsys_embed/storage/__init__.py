"""Files: written whole or not at all, and read without executing anything.

The model folder's format, the folders of a workspace, safetensors, JSON and tables; not what they mean.
"""
