"""How good, honestly: metrics, the protocol, significance, slices, cold items, baselines."""
