"""Trained models as plain arrays, one family per file, behind one interface (`base.ScoringModel`).

To add a family, add a file here and a line in `registry`. Nothing here imports torch.
"""
