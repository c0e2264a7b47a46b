"""Answers as functions of a fitted state: recommend, similar, explain, predict, search, and batch recommendations.

Everything here takes a `FittedState`; nothing here trains.
"""
