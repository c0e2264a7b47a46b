"""What people write today: FastAPI around implicit's ALS, for known users alone."""

import os

from fastapi import FastAPI
from implicit.cpu.als import AlternatingLeastSquares

from recsys_embed import load_dataset

data = load_dataset(os.environ["DATASET"])
matrix, ids, titles = (
    data.ratings.matrix(),
    data.ratings.items.series.to_list(),
    dict(data.items.select("item_id", "title").rows()),
)
model = AlternatingLeastSquares(factors=128, iterations=5, num_threads=1)
model.fit(matrix, show_progress=False)
app = FastAPI()


@app.post("/recommend")
async def recommend(body: dict) -> dict:
    row = int(data.ratings.users.rows([body["user"]])[0])
    rows, scores = model.recommend(row, matrix[row], N=body["k"])
    return {"items": [{"item": ids[i], "title": titles[ids[i]], "score": float(s)} for i, s in zip(rows, scores)]}
