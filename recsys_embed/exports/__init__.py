"""Embeddings as files for other programs: TensorBoard, Embedding Atlas, gensim, safetensors, NumPy."""
