"""Evaluation: metrics, the protocol, significance, slices, cold items, probes and baselines."""
