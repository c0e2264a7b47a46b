"""Answers as functions of a fitted state: recommend, similar, explain, predict, search, lists for many.

Everything here takes a `state.FittedState`; nothing here trains.
"""
