"""What is answered at the addresses of pictures."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request

from .._model import EnergyDLLM
from . import _requests as ask
from ._passage import PIECE
from ._pictures import Drawing, PicturePlan, drawing, filling, png as png, size_of
from ._plan import COLDEST
from ._sent import streamed
from ._task import Budget, Shown
from ._write import short, written


DRAWN = 48
"""Force evaluations of a picture by default, as of `sampling.default_sampler`."""
FILLED = 64
"""The same where a hole is filled."""


async def generations(server: Any, asked: ask.ImageRequest, _: Request) -> Any:
    """Pictures of a caption."""
    name, model = _model(server, asked)
    plan = await asyncio.to_thread(drawing, name, model, asked.prompt, **_settings(asked, DRAWN))
    return await _made(server, asked, plan, "image_generation")


async def edits(server: Any, asked: ask.ImageEditRequest, _: Request) -> Any:
    """The hole of a picture filled, or a picture named."""
    name, model = _model(server, asked)
    settings = _settings(asked, FILLED)
    plan = await asyncio.to_thread(filling, name, model, asked.image, asked.mask, asked.prompt or "", **settings)
    return await _made(server, asked, plan, "image_edit")


def sizes(model: EnergyDLLM) -> dict[str, Any]:
    """Of pictures, and of captions."""
    tokenizer: Any = model.tokenizer
    return {"size": size_of(model), "caption": {"letters": tokenizer.letters, "width": tokenizer.width}}


def _model(server: Any, asked: Any) -> tuple[str, EnergyDLLM]:
    name = server.model(asked.model, True)
    model = server.engine.models[name]
    if asked.size not in (None, "auto", size_of(model)):
        raise ValueError(
            f"`size` is {asked.size!r}; expected {size_of(model)}, that of pictures of this model, or auto."
        )
    return name, model


def _settings(asked: Any, evaluations: int) -> dict[str, Any]:
    evaluations = evaluations if asked.budget is None else asked.budget
    return {
        "temperature": 1.0 if asked.temperature is None else max(COLDEST, float(asked.temperature)),
        "budget": Budget(max(PIECE, round(evaluations / PIECE) * PIECE), 0),
        "seed": secrets.randbelow(2**31) if asked.seed is None else asked.seed,
    }


async def _made(server: Any, asked: Any, plan: PicturePlan, kind: str) -> Any:
    drawings = [Drawing(plan, index) for index in range(asked.n or 1)]
    moments = written(server.engine, drawings, server.timeout, moments=bool(asked.stream))
    if asked.stream:
        first = await anext(moments)
        return streamed(_records(server, asked, plan, kind, moments, first), server.timeout)
    async with contextlib.aclosing(moments):
        async for _ in moments:
            pass
    server.metrics.pictures += len(drawings)
    facts = [_facts(each) for each in drawings]
    return {
        "created": int(time.time()),
        "data": [{"b64_json": each.file, "revised_prompt": each.caption} for each in drawings],
        "output_format": "png",
        "size": size_of(plan.model),
        "usage": _usage(plan, len(drawings)),
        "energy_dllm": _head(plan) | {name: [each[name] for each in facts] for name in facts[0]},
    }


async def _records(
    server: Any, asked: Any, plan: PicturePlan, kind: str, moments: Any, item: tuple[Drawing, Shown, str] | None
) -> AsyncGenerator[dict[str, Any], None]:
    """Events of the OpenAI API: `partial_images` on the way, evenly spaced, and every picture at its end."""
    several, count = plan.budget.steps // PIECE, 1 + (asked.partial_images or 0)
    looked = {number * several // count for number in range(1, count)} - {0}
    sent: dict[int, int] = {}
    async with contextlib.aclosing(moments):
        while item is not None:
            drawing, shown, _ = item
            if shown.final or shown.evaluations // PIECE in looked:
                number = sent[drawing.index] = sent.get(drawing.index, -1) + 1
                end = {"usage": _usage(plan, 1)} if shown.final else {"partial_image_index": number}
                yield {
                    "type": f"{kind}.{'completed' if shown.final else 'partial_image'}",
                    "b64_json": drawing.file,
                    "created_at": int(time.time()),
                    "size": size_of(plan.model),
                    "quality": "auto",
                    "background": "opaque",
                    "output_format": "png",
                    "energy_dllm": _head(plan) | {"index": drawing.index} | _facts(drawing),
                } | end
            item = await anext(moments, None)
    server.metrics.pictures += len(sent)


def _head(plan: PicturePlan) -> dict[str, Any]:
    return {"model": plan.name, "seed": plan.seed, "budget": plan.budget.steps}


def _facts(drawing: Drawing) -> dict[str, Any]:
    """The extension: what the descent says of a picture."""
    return {
        "caption": drawing.caption,
        "sigma": short(drawing.sigma),
        "free_energy": short(drawing.free_energy),
        "force_evaluations": drawing.evaluations,
    }


def _usage(plan: PicturePlan, count: int) -> dict[str, Any]:
    tokenizer: Any = plan.model.tokenizer
    width = tokenizer.width
    text, image = int(plan.known[:width].sum()), int(plan.known[width:].sum())
    made = count * int((~plan.known).sum())
    details = {"text_tokens": text, "image_tokens": image}
    return {"input_tokens": text + image, "input_tokens_details": details, "output_tokens": made,
            "total_tokens": text + image + made}  # fmt: skip
