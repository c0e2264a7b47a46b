"""Every setting, written once, and the recipes that fill what is left open.

A setting is a field of a dataclass in `settings`; options, JSON, MLflow parameters and checks follow from it.
"""
