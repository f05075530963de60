"""What is answered at each address: from a request to a JSON object, or to a stream of events."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import StreamingResponse

from ..memory import TextMemory
from . import _requests as ask
from ._errors import APIError
from ._inside import attributed, echoed, recalled, repaired, scored
from ._plan import Plan, block_of, chat_prompt, of_answer, of_infill
from ._sent import streamed
from ._write import Choice, called, short, written


SHORT = 1024
"""Characters that are soon read."""
LINE = "\n"
"""Where an answer of a chat ends, whatever else it is to stop at."""


async def completions(server: Any, asked: ask.CompletionRequest, _: Request) -> Any:
    """Text behind a prompt, and before a suffix."""
    count = asked.n or 1
    drawn = count if asked.best_of is None else asked.best_of
    prompts = [asked.prompt or ""] if not isinstance(asked.prompt, list) else asked.prompt
    if len(prompts) * drawn > ask.SAMPLES:
        raise ValueError(f"`prompt` and `n` ask for {len(prompts) * drawn} texts; expected at most {ask.SAMPLES}.")
    name = server.model(asked.model)
    make = lambda prompt: of_answer(asked, name, server.engine, prompt, asked.suffix or "", asked.max_tokens)
    plans = await _planned(asked, lambda: [make(prompt) for prompt in prompts], prompts)
    if drawn < count or (drawn > count and (asked.stream or not plans[0].block)):
        fault = (
            f"`best_of` is {drawn}; expected the value of `n`, {count}, or more with `block` 1 and without `stream`."
        )
        raise APIError(400, fault, param="best_of")
    choices = _choices(plans, drawn, _stops(asked.stop))
    head = _head("cmpl", "text_completion", name, plans[0])
    behind = lambda choice: (asked.suffix or "") if asked.echo else ""
    before = lambda choice: prompts[choice.index // count] if asked.echo else ""
    heads: list[list[dict[str, Any]]] = [[] for _ in plans]
    if asked.echo and asked.logprobs is not None:
        read = lambda: [echoed(server.engine, plan) for plan in plans]
        heads = await called(server.engine, read, server.timeout)

    def one(choice: Choice, text: str, reason: str | None, whole: bool) -> dict[str, Any]:
        top, first, head = asked.logprobs, len(before(choice)), heads[choice.index // count]
        found = _logprobs(choice, top, first, head) if whole and top is not None else None
        return {"index": choice.index, "text": text, "logprobs": found, "finish_reason": reason}

    if asked.stream:
        return await _stream(server, asked, choices, head, one, before, behind)
    await _all(server, choices)
    usage = _usage(plans, choices)
    if drawn > count:
        choices = _likeliest(choices, drawn, count)
    made = [one(each, before(each) + each.text + behind(each), each.reason, True) for each in choices]
    return head | {"choices": made, "usage": usage} | _facts(choices)


async def chat(server: Any, asked: ask.ChatRequest, _: Request) -> Any:
    """The answer of an assistant: one line behind the plain template."""
    name = server.model(asked.model)
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise ValueError("`max_tokens` and `max_completion_tokens` are both given; expected one of them.")
    tokens = asked.max_completion_tokens or asked.max_tokens
    prompt = chat_prompt(asked.messages)
    make = lambda: of_answer(asked, name, server.engine, prompt, "", tokens, "messages")
    plan = await _planned(asked, make, [prompt])
    choices = _choices([plan], asked.n or 1, [*_stops(asked.stop), LINE])
    head = _head("chatcmpl", "chat.completion.chunk" if asked.stream else "chat.completion", name, plan)

    def one(choice: Choice, text: str, reason: str | None, whole: bool) -> dict[str, Any]:
        found = _chat_logprobs(choice, asked.top_logprobs or 0) if whole and asked.logprobs else None
        new = choice.text.strip(" ")
        if asked.stream:  # spaces at its beginning are left out, and others sent when something follows
            sent, begun[choice.index] = begun.get(choice.index), new
            said = ({"role": "assistant"} if sent is None else {}) | {"content": new[len(sent or "") :]}
        else:
            said = {"role": "assistant", "content": new, "refusal": None}
        return {
            "index": choice.index,
            "delta" if asked.stream else "message": said,
            "logprobs": found,
            "finish_reason": reason,
        }

    begun: dict[int, str] = {}
    if asked.stream:
        return await _stream(server, asked, choices, head, one)
    await _all(server, choices)
    made = [one(each, each.text, each.reason, True) for each in choices]
    return head | {"choices": made, "usage": _usage([plan], choices)} | _facts(choices)


async def infill(server: Any, asked: ask.InfillRequest, _: Request) -> Any:
    """The holes of a template."""
    name = server.model(asked.model)
    if isinstance(asked.length, list) and len(asked.length) > 1:  # several to choose from: that computes
        make = lambda: of_infill(asked, name, server.engine)
        plan = await called(server.engine, make, server.timeout)
    else:
        plan = await asyncio.to_thread(of_infill, asked, name, server.engine)
    choices = _choices([plan], asked.n or 1, ())
    head = _head("infill", "infill", name, plan)

    def one(choice: Choice, text: str, reason: str | None, whole: bool) -> dict[str, Any]:
        return {"index": choice.index, "text": text, "finish_reason": reason}

    if asked.stream:
        return await _stream(server, asked, choices, head, one)
    await _all(server, choices)
    named = lambda found: found | {"token": _name(found["token"]), "top": _named(found["top"])}
    made = [one(each, each.text, each.reason, True) | {"tokens": list(map(named, each.logprobs()))} for each in choices]
    return head | {"choices": made, "usage": _usage([plan], choices)} | _facts(choices)


async def repair(server: Any, asked: ask.RepairRequest, _: Request) -> Any:
    """Typing errors corrected."""
    model = server.engine.models[server.model(asked.model)]
    hidden = True if asked.mask_unknown is None else asked.mask_unknown
    rate = 0.1 if asked.rate is None else float(asked.rate)
    make = lambda: repaired(server.engine, model, asked.text, rate, asked.shifts or 0, hidden)
    return {"object": "repair", "model": server.model(asked.model)} | await called(server.engine, make, server.timeout)


async def recall(server: Any, asked: ask.RecallRequest, _: Request) -> Any:
    """The stored line that a cue comes from, or none."""
    if asked.lines is None and server.memory is None:
        raise APIError(400, "`lines` is missing, and this server has no memory; give some.", param="lines")
    options = {"unknown": asked.unknown, "threshold": asked.threshold}
    options = {name: value for name, value in options.items() if value is not None}
    lines = asked.lines

    def make() -> dict[str, Any]:
        memory = server.memory if lines is None else TextMemory(lines)
        return recalled(memory, asked.cue, options)

    return {"object": "recall"} | await called(server.engine, make, server.timeout)


async def score(server: Any, asked: ask.ScoreRequest, _: Request) -> Any:
    """How probable a text is, token by token."""
    name = server.model(asked.model)
    model = server.engine.models[name]
    block = block_of(asked, model)
    make = lambda: scored(server.engine, model, asked.text, block)
    return {"object": "score", "model": name} | await called(server.engine, make, server.timeout)


async def attribution(server: Any, asked: ask.AttributionRequest, _: Request) -> Any:
    """Why a token stands where it does."""
    name = server.model(asked.model)
    model = server.engine.models[name]
    make = lambda: attributed(server.engine, model, asked.text, asked.place, asked.reference)
    return {"object": "attribution", "model": name} | await called(server.engine, make, server.timeout)


async def _planned(asked: Any, make: Callable[[], Any], prompts: Sequence[str]) -> Any:
    """What is to be written; what may take its time in a thread, so that others are answered meanwhile."""
    soon = not (asked.regex or asked.response_format or asked.avoid) and sum(map(len, prompts)) <= SHORT
    return make() if soon else await asyncio.to_thread(make)


def _choices(plans: Sequence[Plan], count: int, stops: Sequence[str]) -> list[Choice]:
    return [Choice(plan, n, k * count + n, stops) for k, plan in enumerate(plans) for n in range(count)]


def _likeliest(choices: list[Choice], each: int, count: int) -> list[Choice]:
    """Of every prompt's choices those with the highest log-probability a token, which is exact from left to right."""
    mean = lambda choice: float(np.mean(choice.log_p[choice.first : choice.first + max(1, choice.shown)]))
    groups = [choices[n : n + each] for n in range(0, len(choices), each)]
    best = [choice for group in groups for choice in sorted(group, key=mean, reverse=True)[:count]]
    for index, choice in enumerate(best):
        choice.index = index
    return best


def _stops(stop: str | list[str] | None) -> list[str]:
    return [] if stop is None else [stop] if isinstance(stop, str) else list(stop)


def _head(prefix: str, kind: str, name: str, plan: Plan) -> dict[str, Any]:
    made = {"id": f"{prefix}-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": name}
    return made | {"energy_dllm": _settings(plan)}


def _settings(plan: Plan) -> dict[str, Any]:
    budget = plan.append if plan.block else plan.budget.evaluations
    return {"seed": plan.seed, "block": plan.block, "budget": budget, "commit": plan.commit}


def _facts(choices: Sequence[Choice]) -> dict[str, Any]:
    """The extension: what the descent says of every choice."""
    return {
        "energy_dllm": _settings(choices[0].plan)
        | {
            "sigma": [short(each.sigma) for each in choices],
            "free_energy": [short(each.free_energy) for each in choices],
            "force_evaluations": [each.evaluations for each in choices],
        }
    }


def _usage(plans: Sequence[Plan], choices: Sequence[Choice]) -> dict[str, int]:
    read = sum(int(plan.known.sum() + plan.tail_known.sum()) for plan in plans)
    made = sum(choice.tokens for choice in choices)
    return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}


def _logprobs(choice: Choice, top: int, first: int, head: list[dict[str, Any]]) -> dict[str, Any]:
    """As the API has them, the answer beginning at character `first` of what is returned, behind the tokens `head`."""
    answer = choice.logprobs()
    found = head + [each | {"offset": first + each["offset"]} for each in answer]
    likely = [None if each["logprob"] is None else _named(each["top"][:top]) for each in found]
    return {
        "tokens": [_name(each["token"]) for each in found],
        "token_logprobs": [each["logprob"] for each in found],
        "top_logprobs": likely if top else None,
        "text_offset": [each["offset"] for each in found],
    }


def _chat_logprobs(choice: Choice, top: int) -> dict[str, Any]:
    one = lambda token, p: {"token": _name(token), "logprob": p, "bytes": list(token)}
    content = [
        one(each["token"], each["logprob"]) | {"top_logprobs": [one(*pair) for pair in each["top"][:top]]}
        for each in choice.logprobs()
    ]
    return {"content": content, "refusal": None}


def _name(token: bytes) -> str:
    """Text, or `bytes:\\xe2\\x80` for a part of a character, as the API has it."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def _named(likely: Sequence[tuple[bytes, float]]) -> dict[str, float]:
    return {_name(token): p for token, p in likely}


async def _all(server: Any, choices: Sequence[Choice]) -> None:
    """Write all of them to their ends."""
    async with contextlib.aclosing(written(server.engine, choices, server.timeout, moments=False)) as moments:
        async for _ in moments:
            pass
    server.metrics.tokens += sum(choice.tokens for choice in choices)


async def _stream(
    server: Any,
    asked: Any,
    choices: Sequence[Choice],
    head: dict[str, Any],
    one: Callable[[Choice, str, str | None, bool], dict[str, Any]],
    before: Callable[[Choice], str] = lambda choice: "",
    behind: Callable[[Choice], str] = lambda choice: "",
) -> StreamingResponse:
    """Events as the passage condenses; what is wrong before the first of them is an ordinary answer."""
    moments = written(server.engine, choices, server.timeout, moments=True)
    first = await anext(moments)
    usage = bool((asked.model_dump().get("stream_options") or {}).get("include_usage"))

    async def records() -> AsyncGenerator[dict[str, Any], None]:
        begun: set[int] = set()
        async with contextlib.aclosing(moments):
            item: Any = first
            while item is not None:
                choice, shown, new = item
                text = new if choice.index in begun else before(choice) + new
                begun.add(choice.index)
                text += "" if choice.reason is None else behind(choice)
                chunk = one(choice, text, choice.reason, choice.reason is not None)
                yield head | {"choices": [chunk], "energy_dllm": head["energy_dllm"] | choice.moment(shown)}
                item = await anext(moments, None)
        if usage:
            plans = list({id(choice.plan): choice.plan for choice in choices}.values())
            yield head | {"choices": [], "usage": _usage(plans, choices)}
        server.metrics.tokens += sum(choice.tokens for choice in choices)

    return streamed(records(), server.timeout)
