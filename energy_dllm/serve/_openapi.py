"""The OpenAPI document: every address, the schema of what it takes, and the shape of an error."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema


GETS = {
    "/health": "Whether passages can be written at once",
    "/metrics": "Counts for Prometheus",
    "/v1/models": "The models that are served",
    "/v1/models/{name}": "One of them",
}
ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def document(posts: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """OpenAPI 3.1, of addresses and the schemas of their requests."""
    modes: list[Any] = [(schema, "validation") for schema in posts.values()]
    _, made = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    schemas = {name: _sorted_out(schema) for name, schema in made["$defs"].items()}
    answers = {
        "200": {"description": "JSON, or with `stream` server-sent events", "content": {"application/json": {}}},
        "default": {
            "description": "What was wrong",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        },
    }
    kinds = lambda schema: ("application/json", "multipart/form-data")[: 1 + getattr(schema, "form", False)]
    content = lambda schema: {"schema": {"$ref": f"#/components/schemas/{schema.__name__}"}}
    paths: dict[str, Any] = {
        path: {
            "post": {
                "summary": (schema.__doc__ or "").strip(),
                "requestBody": {"required": True, "content": dict.fromkeys(kinds(schema), content(schema))},
                "responses": answers,
            }
        }
        for path, schema in posts.items()
    }
    for path, summary in GETS.items():
        paths[path] = {"get": {"summary": summary, "responses": answers}}
    paths["/v1/models/{name}"]["get"]["parameters"] = [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    return {
        "openapi": "3.1.0",
        "info": {"title": "energy_dllm", "version": importlib.metadata.version("energy-dllm")},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _sorted_out(schema: Any) -> Any:
    """Without the titles that repeat the names."""
    if isinstance(schema, dict):
        return {k: _sorted_out(v) for k, v in schema.items() if not (k == "title" and isinstance(v, str))}
    return [_sorted_out(each) for each in schema] if isinstance(schema, list) else schema
