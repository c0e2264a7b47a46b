"""The service's pages: the one to try it, the API's documentation, and the map."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from recsys_embed.serving.docs_page import docs_page
from recsys_embed.serving.examples import examples_of, with_examples
from recsys_embed.serving.service import Service

_MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
# The page may run only its own scripts and styles, and connect only to this service.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_page_routes(app: FastAPI, service: Service) -> None:
    """Add the page, the API's documentation, and the map."""
    page_files = {file.name: file for file in (files("recsys_embed.serving") / "page").iterdir()}

    def examples() -> dict[tuple[str, str], Any]:
        return examples_of(service.model, name_user=service.config.secret is None)

    def page_file(name: str) -> Response:
        headers = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}
        media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
        return Response(page_files[name].read_bytes(), media_type=media_type, headers=headers)

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page_file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        if name not in page_files:
            raise HTTPException(404, "there is no such file")
        return page_file(name)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        headers = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff"}
        base = str(request.base_url).rstrip("/")
        return HTMLResponse(docs_page(app.openapi(), base, examples()), headers=headers)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(to_json(with_examples(app.openapi(), examples())), media_type="application/json")

    @app.get("/map", include_in_schema=False)
    async def map_() -> Response:
        page = service.map()
        if page is None:
            waiting = '<!doctype html><meta http-equiv="refresh" content="2"><title>Map</title>The map is being drawn …'
            return HTMLResponse(waiting, 202, headers={"retry-after": "2"})
        return HTMLResponse(page.read_bytes(), headers={"x-content-type-options": "nosniff"})
