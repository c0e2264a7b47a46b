"""All settings, each declared once, and the recipes that fill in those left open.

A setting is a field of a dataclass in `settings`; options, JSON, MLflow parameters and checks are derived from it.
"""
