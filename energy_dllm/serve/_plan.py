"""From a request to passages: given tokens, evidence, automata; long answers window after window."""

import contextlib
import dataclasses
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer

from .._model import EnergyDLLM
from ..data import RegexDFA
from ..energy import FreeEnergy, HMMVocabulary
from ..flow import FORBIDDEN
from ..sampling import of_template, typed
from . import _requests as ask
from ._automaton import Strict, avoiding, line_of, matching, states_of
from ._engine import Engine
from ._errors import APIError
from ._passage import Pattern, anything, keys_of
from ._schema import pattern_of
from ._task import Budget, Passage, Way


BUDGET = 25
"""Force evaluations by default, as of `sampling.descent`."""
COLDEST = 0.05
"""The temperature that is taken for lower ones: the noise is then next to none."""
FROZEN = 1e-3
"""The same from left to right: the most likely token."""
WORDS = 16
"""Tokens of an answer by default, as in the OpenAI API."""


WHOLE = ("suffix", "budget", "commit")
"""Arguments of a descent of the whole passage."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be written behind, between or around given tokens; all choices of a request have one.

    - `ids`, `known`: the given tokens, and places that are unknown, before those that are appended.
    - `append`: how many tokens are written behind them.
    - `tail`, `tail_known`: given tokens behind those.
    - `pattern`: an automaton about what is appended, or (`whole`) about everything. `avoid`: words that do not occur.
    - `forbid`: tokens that may not stand at a place. `bias`: nats for a token id at every place that is written.
    - `opening`: which tokens a template leaves open, `(L, V)`.
    """

    name: str
    model: EnergyDLLM
    ids: Integer[np.ndarray, " n"]
    known: Bool[np.ndarray, " n"]
    append: int
    tail: Integer[np.ndarray, " m"]
    tail_known: Bool[np.ndarray, " m"]
    pattern: RegexDFA | None
    whole: bool
    avoid: tuple[str, ...]
    forbid: tuple[tuple[int, int], ...]
    bias: tuple[tuple[int, float], ...]
    temperature: float
    budget: Budget
    commit: bool
    block: int
    seed: int
    opening: Bool[np.ndarray, "L V"] | None = None

    @property
    def size(self) -> int:
        """Tokens of the whole passage."""
        return len(self.ids) + self.append + len(self.tail)

    def window(self, longest: int, done: int) -> tuple[int, int]:
        """Where the window begins and ends that writes what follows after `done` tokens."""
        if self.size <= longest:
            return 0, self.size
        end = min(done + longest // 2, self.size)
        return max(0, end - longest), end

    def passage(
        self,
        engine: Engine,
        ids: Integer[np.ndarray, " L"],
        known: Bool[np.ndarray, " L"],
        number: int,
        deliver: Callable[[Any], object],
    ) -> Passage:
        """The next window of choice `number`, from all its tokens `ids` and which of them are `known` by now."""
        done = int(np.argmin(known)) if not known.all() else self.size
        begin, end = self.window(engine.lengths[-1], done)
        length = engine.length(end - begin)
        assert length is not None
        size = self.model.size
        b = np.zeros((length, size), self.model.energy.vocabulary.codes.dtype)
        here = np.zeros(length, np.int32), np.zeros(length, bool)
        here[0][: end - begin], here[1][: end - begin] = ids[begin:end], known[begin:end]
        free = ~here[1][: end - begin]
        if self.opening is not None:
            b[: end - begin][~self.opening[begin:end]] = FORBIDDEN
        for token, nats in self.bias:
            b[: end - begin][free, token] += nats
        for place, token in self.forbid:
            if begin <= place < end and not known[place]:
                b[place - begin, token] = FORBIDDEN
        if dark := np.flatnonzero((b <= FORBIDDEN / 2).all(axis=-1)).tolist():
            raise ValueError(f"`forbid` leaves no token at place {dark[0] + begin}; allow at least one.")
        keys = np.asarray(keys_of(np.uint32(self.seed), np.int32(begin), np.int32(number)))
        strict, pattern, state, dfa, budget = self._strict(b, *here, end - begin), None, 0, None, self.budget
        way: Way = self.block
        if self.block:
            pattern, state = self._from_left(engine, strict, *here, b)
            way, strict = len(pattern.after), None
        elif strict is not None and (dfa := strict.dfa(length)) is not None:
            way = (len(dfa.moves), dfa.moves.shape[1])
        elif strict is not None:  # what the automaton reads out is not drawn anew
            budget = Budget(self.budget.steps, 0)
        return Passage(
            self.name, *here, b, end - begin, self.temperature, keys, budget, self.commit, strict, way, deliver,
            pattern=pattern, state=state, dfa=dfa,
        )  # fmt: skip

    def _from_left(self, engine: Engine, strict: Strict | None, ids, known, b) -> tuple[Pattern, int]:
        """The automaton with what may follow at every place, and its state before the first unknown token."""
        if strict is None:
            return anything(1, len(ids), b.shape[1], b.dtype), 0
        count, states = len(strict.next), states_of(len(strict.next), b.shape[1])
        assert states is not None
        after, ahead, *_ = anything(states, len(ids), b.shape[1], b.dtype)
        table, fits = np.asarray(after), np.full_like(ahead, FORBIDDEN)
        table[:count], table[count:] = strict.next, count  # what has failed stays so
        only = np.arange(b.shape[1]) == ids[:, None]
        log_p = np.where(known[:, None] & ~only, FORBIDDEN, engine.ordered[self.name].prior + b)
        fits[:, :count] = np.maximum(strict.ahead(log_p), FORBIDDEN)
        state = 0
        for token in ids[strict.begin : int(np.argmin(known))]:
            state = int(table[state, token])
        begin, end = np.array(strict.begin, np.int32), np.array(strict.end, np.int32)
        return Pattern(table, fits, begin, end), state  # pyright: ignore

    def _strict(self, b, ids, known, size) -> Strict | None:
        automaton, first, last = self.pattern, 0, size
        if automaton is not None and not self.whole:
            first, last = len(self.ids), len(self.ids) + self.append
        if self.avoid:
            words = avoiding(self.avoid, self.model.tokenizer)
            if automaton is not None and (first, last) != (0, size):
                raise ValueError(
                    "`avoid` beside a pattern is not supported behind a prompt; exclude it in the pattern."
                )
            automaton = words if automaton is None else automaton & words
        if automaton is None:
            return None
        only = np.arange(b.shape[1]) == ids[:, None]
        what = " with ".join(["the pattern"] * (self.pattern is not None) + ["`avoid`"] * bool(self.avoid))
        return Strict(automaton, first, last, np.where(known[:, None], only, b > FORBIDDEN / 2), what)


def _common(request: Any, model: EnergyDLLM, block: int) -> dict[str, Any]:
    forbid: list[tuple[int, int]] = []
    symbols: dict[str, list[int]] = {}
    for place, token in request.forbid or []:
        if isinstance(token, str) and token not in symbols:
            symbols[token] = read(model, token, False, "forbid")[0].tolist()
        found = [token] if isinstance(token, int) else symbols[token]
        if len(found) != 1:
            raise ValueError(f"`forbid` has {str(token)[:40]!r}, {len(found)} tokens; expected one, such as 'e'.")
        if found[0] >= model.size:
            raise ValueError(f"`forbid` has token {token}; this model has tokens 0 to {model.size - 1}.")
        forbid.append((place, found[0]))
    vocabulary = model.energy.vocabulary
    wants = request.avoid or getattr(request, "match", None) or getattr(request, "regex", None)
    wants = wants or getattr(request, "response_format", None) not in (None, ask.ResponseFormat(type="text"))
    if wants and (not isinstance(model.energy, FreeEnergy) or isinstance(vocabulary, HMMVocabulary)):
        raise ValueError(
            f"constraints over HTTP need a model whose tokens are independent given its hidden state; this one has a "
            f"{type(vocabulary).__name__}: use `generate(evidence=)` in Python."
        )
    coldest = FROZEN if block else COLDEST
    temperature = 1.0 if request.temperature is None else max(coldest, float(request.temperature))
    return {
        "avoid": tuple(request.avoid or ()),
        "forbid": tuple(forbid),
        "temperature": temperature,
        "budget": Budget(0, 0) if block else Budget.of(BUDGET if request.budget is None else request.budget),
        "commit": bool(block or request.stream) if request.commit is None else request.commit,
        "block": block,
        "seed": secrets.randbelow(2**31) if request.seed is None else request.seed,
    }


def block_of(request: Any, model: EnergyDLLM) -> int:
    """1 where an answer is written from left to right: where the request or, if it says nothing about it, the model
    allows it. What is about the passage as a whole is of the descent."""
    if request.block is not None and request.block not in model.blocks:
        sizes = ", ".join(map(str, sorted(set(model.blocks))))
        raise ValueError(
            f"`block` is {request.block}; this model reads text in blocks of {sizes} (0 is the whole passage): choose "
            "one of them."
        )
    whole = [
        name for name in WHOLE if getattr(request, name, None) not in (None, "", [], ask.ResponseFormat(type="text"))
    ]
    if request.block and whole:
        raise ValueError(
            f"`{whole[0]}` is given with `block` 1, which writes from left to right; leave one of them out."
        )
    return int(1 in model.blocks and not whole) if request.block is None else request.block


def read(
    model: EnergyDLLM, text: str, mask_unknown: bool, name: str
) -> tuple[Integer[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """The tokens of a text, the argument `name` of a request, and which of them are known."""
    found = typed(model, text, mask_unknown, name)
    return np.asarray(found.ids, np.int32), np.asarray(found.known, bool)


def of_answer(
    request: Any, name: str, engine: Engine, prompt: str, suffix: str, tokens: int | None, what: str = "prompt"
) -> Plan:
    """What follows after a prompt (which a request calls `what`), before a suffix."""
    model = engine.models[name]
    hidden, block = bool(request.mask_unknown), block_of(request, model)
    ids, known = read(model, prompt, hidden, what)
    tail, tail_known = read(model, suffix, hidden, "suffix")
    pattern = _pattern(request, model)
    with _named("response_format" if request.regex is None else "regex"):
        automaton = None if pattern is None else line_of(pattern, model.tokenizer)
    words = avoiding(tuple(request.avoid), model.tokenizer) if request.avoid else None
    if block and not all(states_of(len(each.next), model.size) for each in (automaton, words) if each is not None):
        if request.block:
            raise ValueError(
                "`block` is 1 with a `regex`, `response_format` or `avoid` of too many states to be kept from left to "
                "right; leave `block` out."
            )
        block = 0
    made = Plan(
        name=name,
        model=model,
        ids=ids,
        known=known,
        append=WORDS if tokens is None else tokens,
        tail=tail,
        tail_known=tail_known,
        bias=_bias(request, model),
        pattern=automaton,
        whole=False,
        **_common(request, model, block),
    )
    _fits(made, engine, bool(len(tail)) or pattern is not None)
    return made


def of_infill(request: ask.InfillRequest, name: str, engine: Engine) -> Plan:
    """The holes of a template."""
    model = engine.models[name]
    lengths = request.length if isinstance(request.length, list) else [request.length or 1]
    if max(lengths, default=1) > engine.lengths[-1]:  # several are compared, which takes long
        raise ValueError(f"`length` is {max(lengths)}; expected at most {engine.lengths[-1]} tokens: shorten it.")
    given, opening = of_template(model, request.template, request.length, bool(request.mask_unknown))
    none = np.zeros(0, np.int32)
    with _named("match"):
        pattern = None if request.match is None else matching(request.match, model.tokenizer)
    made = Plan(
        name=name,
        model=model,
        ids=np.asarray(given.ids, np.int32),
        known=np.asarray(given.known, bool),
        append=0,
        tail=none,
        tail_known=none.astype(bool),
        bias=(),
        pattern=pattern,
        whole=True,
        opening=None if opening is None else np.asarray(opening.sets),
        **_common(request, model, 0),
    )
    _fits(made, engine, True)
    return made


def _fits(plan: Plan, engine: Engine, at_once: bool) -> None:
    longest = engine.lengths[-1]
    if at_once and plan.size > longest:
        raise APIError(
            400,
            f"this passage has {plan.size} tokens; with a suffix, holes or a pattern it is written at once, of at most "
            f"{longest}: shorten it.",
            code="context_length_exceeded",
        )


def _bias(request: Any, model: EnergyDLLM) -> tuple[tuple[int, float], ...]:
    bias = []
    for word, nats in (request.logit_bias or {}).items():
        if not word.isascii() or not word.isdigit() or len(word) > 9 or int(word) >= model.size:
            raise ValueError(f"`logit_bias` has the token id {word[:40]!r}; expected one of 0 to {model.size - 1}.")
        bias.append((int(word), float(nats)))
    return tuple(bias)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """What is wrong with a pattern is wrong with the member `name` of the request."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace("`pattern`", f"`{name}`", 1)) from None


def _pattern(request: Any, model: EnergyDLLM) -> str | None:
    """The regular expression that an answer has to match."""
    form = request.response_format
    if form is None or form.type == "text":
        return request.regex
    if request.regex is not None:
        raise ValueError("`regex` and `response_format` are both given; expected one of them.")
    if form.type == "json_object":
        raise ValueError("`response_format` json_object is no regular language; give a `json_schema`, or a `regex`.")
    if form.type == "regex":
        if form.pattern is None:
            raise ValueError("`response_format` is a regex without `pattern`; give one.")
        return form.pattern
    schema = (form.json_schema or {}).get("schema")
    if not isinstance(schema, dict):
        raise ValueError("`response_format` is a json_schema without `json_schema.schema`, an object; give one.")
    return pattern_of(schema, model.tokenizer)


def chat_prompt(messages: list[ask.Message]) -> str:
    """The plain template: a line `role: content` for each message, then `assistant:`."""
    lines = []
    for n, message in enumerate(messages):
        content = message.content
        if content is None and message.role != "assistant":
            raise ValueError(f"`messages[{n}].content` is null, of a {message.role}; expected a text.")
        parts = [content] if isinstance(content, str) else [part.text for part in content or ()]
        lines.append(f"{message.role}: {''.join(parts)}\n")
    return "".join(lines) + "assistant:"
