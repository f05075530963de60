"""The OpenAPI document: every address, and the schemas of what it takes, of what it answers, and of an error."""

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from . import _shapes as shapes


GETS: dict[str, tuple[str, Any]] = {
    "/health": ("Whether passages can be written at once", shapes.HealthAnswer),
    "/metrics": ("Counts for Prometheus", None),
    "/v1/models": ("The models that are served", shapes.ServedList),
    "/v1/models/{name}": ("One of them", shapes.Served),
}
"""What is asked for without a body, and what is answered: text where that has no schema."""
ANSWERS: dict[str, tuple[Any, Any]] = {
    "/v1/completions": (shapes.CompletionAnswer, shapes.CompletionAnswer),
    "/v1/chat/completions": (shapes.ChatCompletion, shapes.ChatChunk),
    "/v1/infill": (shapes.InfillAnswer, shapes.InfillAnswer),
    "/v1/repair": (shapes.RepairAnswer, None),
    "/v1/recall": (shapes.RecallAnswer, None),
    "/v1/score": (shapes.ScoreAnswer, None),
    "/v1/attribution": (shapes.AttributionAnswer, None),
    "/v1/images/generations": (shapes.ImagesAnswer, shapes.ImageEvent),
    "/v1/images/edits": (shapes.ImagesAnswer, shapes.ImageEvent),
}
"""An answer, and an event of a stream, where there is one."""


def document(posts: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """OpenAPI 3.1, of addresses and the schemas of their requests."""
    answered = [shape for pair in ANSWERS.values() for shape in pair] + [shape for _, shape in GETS.values()]
    kept = dict.fromkeys(shape for shape in (*posts.values(), *answered, shapes.ErrorAnswer) if shape is not None)
    adapters: Any = [(shape, "validation", TypeAdapter(shape)) for shape in kept]
    named, made = TypeAdapter.json_schemas(adapters, ref_template="#/components/schemas/{model}")
    schemas = {name: _sorted_out(schema) for name, schema in made["$defs"].items()}
    content = lambda shape: {"schema": named[shape, "validation"]}
    fault = {"description": "What was wrong", "content": {"application/json": content(shapes.ErrorAnswer)}}

    def answers(shape: Any, event: Any = None) -> dict[str, Any]:
        kinds = {"text/plain": {}} if shape is None else {"application/json": content(shape)}
        if event is not None:
            both = [content(each)["schema"] for each in (event, shapes.ErrorAnswer)]
            kinds["text/event-stream"] = {"schema": {"anyOf": both}}
        text = "An answer" + ("" if event is None else "; with `stream` events, `data: ` and one of these, then [DONE]")
        return {"200": {"description": text, "content": kinds}, "default": fault}

    kinds = lambda schema: ("application/json", "multipart/form-data")[: 1 + getattr(schema, "form", False)]
    paths: dict[str, Any] = {
        path: {
            "post": {
                "summary": (schema.__doc__ or "").strip(),
                "requestBody": {"required": True, "content": dict.fromkeys(kinds(schema), content(schema))},
                "responses": answers(*ANSWERS[path]),
            }
        }
        for path, schema in posts.items()
    }
    for path, (summary, shape) in GETS.items():
        paths[path] = {"get": {"summary": summary, "responses": answers(shape)}}
    paths["/health"]["get"]["responses"]["503"] = paths["/health"]["get"]["responses"]["200"]
    paths["/v1/models/{name}"]["get"]["parameters"] = [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    return {
        "openapi": "3.1.0",
        "info": {"title": "energy_dllm", "version": importlib.metadata.version("energy-dllm")},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _sorted_out(schema: Any) -> Any:
    """Without the titles that repeat the names."""
    if isinstance(schema, dict):
        return {k: _sorted_out(v) for k, v in schema.items() if not (k == "title" and isinstance(v, str))}
    return [_sorted_out(each) for each in schema] if isinstance(schema, list) else schema
