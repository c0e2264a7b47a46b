"""The optimizer's step in machine code, where the plain one in torch reads the same rows again and again."""
