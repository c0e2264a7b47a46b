"""Rules for lists: filter expressions, boosts and group limits.

`expression` parses the language, `evaluate` applies it to an item table, and `compile` prepares rules for a model.
"""
