"""What a list may hold: filter expressions, boosts, limits for groups.

`expression` reads the language, `evaluate` applies it to an item table, `compile` readies rules for a model.
"""
