"""Trained models of several families side by side, as plain arrays, behind one interface (`base`).

A new family is one file here and one line in `registry`; torch is not imported.
"""
