"""Files: written completely or not at all, and read without executing anything in them.

The format of a model folder, the model folders of a workspace, safetensors, JSON and tables; not what they mean.
"""
