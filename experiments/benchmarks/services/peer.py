"""What people write today: FastAPI around implicit's ALS, for known users alone."""

import os

from fastapi import FastAPI
from implicit.cpu.als import AlternatingLeastSquares

from recsys_embed import load_dataset
from recsys_embed.data.item_table import align_items

data = load_dataset(os.environ["DATASET"])
matrix, ids = data.ratings.matrix(), data.ratings.items.series.to_list()
titles = align_items(data.items, data.ratings.items)["title"].to_list()
model = AlternatingLeastSquares(factors=128, iterations=5, num_threads=1)
model.fit(matrix, show_progress=False)
app = FastAPI()


@app.post("/recommend")
async def recommend(body: dict) -> dict:
    row = int(data.ratings.users.rows([body["user"]])[0])
    found = zip(*model.recommend(row, matrix[row], N=body["k"]), strict=True)
    return {"items": [{"item": ids[i], "title": titles[i], "score": float(score)} for i, score in found]}
