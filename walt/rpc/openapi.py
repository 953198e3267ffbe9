"""The web API as an OpenAPI document (version 3.1): `python -m walt.rpc.openapi`.

It is made of the shapes of rows (`walt.rpc.rows`); tests compare answers with it.
"""

from __future__ import annotations

import json
from typing import Any

import walt
from walt.rpc import rows
from walt.rpc.shapes import Field, Row

KINDS = {
    "text": "string", "truth": "boolean", "whole": "integer", "number": "number",
    "object": "object", "texts": "array", "objects": "array",
}
ITEMS = {"texts": {"type": "string"}, "objects": {"type": "object"}}
LINE = Row(
    timestamp="number epoch seconds, or milliseconds with ts_unit=ms",
    line="text what was logged",
    issuer="text name of the device, or its MAC when it is gone",
    stream="text name of the stream",
)
ERROR = {"error": "what is wrong", "status_code": "the status of the answer"}


def of_field(field: Field) -> dict[str, Any]:
    """Return the schema of a field."""
    kind = KINDS[field.kind]
    found: dict[str, Any] = {
        "type": [kind, "null"] if field.null else kind, "description": field.meaning,
    }
    if field.kind in ITEMS:
        found["items"] = ITEMS[field.kind]
    return found


def of_row(row: Row, every: bool = False) -> dict[str, Any]:
    """Return the schema of an object; `every`: it has all fields, those that may lack elsewhere."""
    return {
        "type": "object", "additionalProperties": False,
        "required": [name for name, field in row.fields.items() if every or not field.optional],
        "properties": {name: of_field(field) for name, field in row.fields.items()},
    }


def _listed(name: str, number: str | None, schema: str) -> dict[str, Any]:
    """Return the schema of an answer: items under a name, and their number."""
    properties: dict[str, Any] = {
        name: {"type": "array", "items": {"$ref": f"#/components/schemas/{schema}"}},
    }
    if number is not None:
        properties[number] = {"type": "integer", "description": "how many these are"}
    return {
        "type": "object", "additionalProperties": False, "required": list(properties),
        "properties": properties,
    }


def _query(name: str, kind: str = "string", *, needed: bool = False, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": needed, "schema": {"type": kind, **more}}


def _path(summary: str, answer: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    def content(schema: str) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}

    refused = {"description": "The error as text, HTML or JSON (Prefer: errors=json).",
               "content": content("error")}
    return {"get": {
        "summary": summary, "parameters": parameters,
        "responses": {
            "200": {"description": "The items.", "content": content(answer)},
            "400": refused, "403": refused, "503": refused,
        },
    }}


def document() -> dict[str, Any]:
    """Return the whole document."""
    filters = ("name", "model", "image", "ip", "mac", "owner", "state")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "WalT web API", "version": walt.__version__,
            "description": "State and logs of a platform, to read only.",
        },
        "servers": [{"url": "/api/v1"}],
        "paths": {
            "/nodes": _path("Nodes with their settings", "nodes", [
                *(_query(name) for name in filters),
                *(_query(name, "boolean") for name in ("virtual", "booted")),
            ]),
            "/images": _path("Images of all users", "images", [
                *(_query(name) for name in ("fullname", "user", "id")),
                *(_query(name, "boolean") for name in ("in_use", "refresh")),
            ]),
            "/logs": _path("Log lines between two moments", "logs", [
                _query("from", "number", needed=True), _query("to", "number", needed=True),
                _query("ts_unit", enum=["s", "ms"]), _query("issuer"), _query("stream"),
            ]),
            "/services": _path("Daemons of the server", "services", []),
        },
        "components": {"schemas": {
            "node": of_row(rows.NODES.rows.row, every=True),
            "image": of_row(rows.IMAGES.rows.row),
            "line": of_row(LINE), "service": of_row(rows.SERVICES.row),
            "nodes": _listed("nodes", "num_nodes", "node"),
            "images": _listed("images", "num_images", "image"),
            "logs": _listed("logs", "num_logs", "line"),
            "services": _listed("services", None, "service"),
            "error": {"type": "object", "properties": {
                name: {"type": "integer" if name == "status_code" else "string",
                       "description": meaning}
                for name, meaning in ERROR.items()
            }},
        }},
    }


def written() -> str:
    """Return the document as JSON."""
    return json.dumps(document(), indent=2) + "\n"


if __name__ == "__main__":
    print(written(), end="")
