"""Where ratings and item facts come from."""

from recsys_embed.datasets.catalog import DATASETS, Catalog, load_dataset

__all__ = ["DATASETS", "Catalog", "load_dataset"]
