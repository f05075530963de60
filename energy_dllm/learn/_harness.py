"""A model as the lm-evaluation-harness asks for one: likelihoods and text, token by token from left to right."""

import functools
import importlib
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import on_device, sizes
from .._model import EnergyDLLM


BATCH = 32


def harness(model: EnergyDLLM, *, window: int = 64) -> Any:
    """A model for EleutherAI's lm-evaluation-harness, extra `eval`.

    `log P(text) = sum_i log p(token_i | tokens before it)`, each factor the posterior at rest with all tokens from `i`
    on unknown: the deterministic order from left to right, one relaxation a token. `generate_until` takes the most
    likely token of the same posterior, over and over, so that what it writes is what `loglikelihood` calls greedy.
    A model that also reads in blocks of one (`EnergyDLLM(blocks=(0, 1))`) is asked about all tokens of a window in one
    evaluation; windows of a longer text then overlap by half. Spaces at the end of a context are part of the
    continuation, as the harness has it, and text is made into tokens as a whole.
    A character that the tokenizer does not have is refused, as everywhere.

    **Arguments:**

    - `model`: any `EnergyDLLM` that writes text.
    - `window`: tokens that are seen at once, the unknown ones included.

    **Returns:** an `lm_eval.api.model.LM`.

    **Raises:** `ValueError` for a window below 2, `ImportError` without the extra.

    **Example:**

    ```text
    lm_eval.simple_evaluate(model=ed.learn.harness(ed.load("stories")), tasks=["lambada_openai"], limit=100)
    ```
    """
    sizes(2, window=window)
    try:
        base = importlib.import_module("lm_eval.api.model").LM
    except ImportError:
        raise ImportError("the harness needs lm_eval: pip install '.[eval]' in a checkout.") from None
    return type("Harness", (_Answers, base), {})(model, window)


class _Answers:
    """The three questions of the harness."""

    def __init__(self, model: EnergyDLLM, window: int):
        super().__init__()
        self.model, self.window, self.in_order = model, window, 1 in model.blocks

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Of each continuation given its context, in nats, and whether every token of it is the most likely one."""
        texts = [self._divided(*request.args) for request in requests]
        asked = [(ids, n) for ids, begin in texts for n in range(begin, len(ids))]
        true = np.array([ids[n] for ids, n in asked], int)
        if self.in_order:
            nats, likeliest = self._side_by_side(asked)
        else:
            log_p = self._log_posteriors([(ids[:n], n) for ids, n in asked])
            nats, likeliest = log_p[np.arange(len(true)), true], log_p.argmax(-1)
        best = likeliest == true
        counts = [len(ids) - begin for ids, begin in texts]
        spans = [slice(end - count, end) for end, count in zip(np.cumsum(counts), counts, strict=True)]
        return [(math.fsum(nats[span]), bool(best[span].all())) for span in spans]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Of each text, nothing being known before it."""
        whole = [type("Request", (), {"args": ("", *request.args)}) for request in requests]
        return [nats for nats, _ in self.loglikelihood(whole)]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The most likely token after the other, up to one of the strings `until` or `max_gen_toks` tokens."""
        return [self._written(context, settings) for context, settings in (request.args for request in requests)]

    def _written(self, context: str, settings: dict[str, Any]) -> str:
        until = settings.get("until") or []
        until = [until] if isinstance(until, str) else until
        ids, made = self._ids(context), ""
        begin = len(ids)
        while len(ids) < begin + settings.get("max_gen_toks", 256) and not any(stop in made for stop in until):
            if self.in_order:
                likeliest = self._side_by_side([(np.append(ids, 0), len(ids))])[1][0]
            else:
                likeliest = self._log_posteriors([(ids, len(ids))])[0].argmax()
            ids = np.append(ids, likeliest)
            made = self.model.decode(ids[begin:])
        return made[: min((made.find(stop) for stop in until if stop in made), default=len(made))]

    def _log_posteriors(self, asked: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
        """`log p(token n | the tokens before it)` of each `(tokens, n)`: `(N, V)`."""
        kept = [ids[max(0, n + 1 - self.window) : n] for ids, n in asked]
        places = np.array([len(ids) for ids in kept], np.int32)
        rows = np.zeros((len(kept), self.window), np.int32)
        for row, ids in zip(rows, kept, strict=True):
            row[: len(ids)] = ids
        if not asked:
            return np.zeros((0, self.model.size))
        return self._in_batches(lambda *part: (_next(self.model, *part),), rows, places)[0]

    @staticmethod
    def _in_batches(compute: Any, *arrays: np.ndarray) -> list[np.ndarray]:
        """What is computed of rows, so many at once."""
        made, count = [], len(arrays[0])
        size = BATCH if count > 1 else 1  # two programs at most
        for n in range(0, count, size):
            part = (np.resize(each[n : n + size], (size, *each.shape[1:])) for each in arrays)
            made.append([np.asarray(rows)[: count - n] for rows in compute(*map(on_device, part))])
        return [np.concatenate(rows) for rows in zip(*made, strict=True)]

    def _side_by_side(self, asked: Sequence[tuple[np.ndarray, int]]) -> tuple[np.ndarray, np.ndarray]:
        """`log p(token n | the tokens before it)` of each `(tokens, n)`, and the likeliest token there: `(N,)` both.
        One evaluation a window, all places of it at once."""
        half, windows, where = max(1, self.window // 2), {}, []
        for ids, n in asked:  # where a window begins depends on `n` alone
            begin = 0 if n < self.window else ((n - self.window) // half + 1) * half
            part = ids[begin : begin + self.window]
            number, _ = windows.setdefault(part.tobytes(), (len(windows), part))
            where.append((number, n - begin))
        rows = np.zeros((len(windows), self.window), np.int32)
        for number, ids in windows.values():
            rows[number, : len(ids)] = ids
        if not asked:
            return np.zeros(0), np.zeros(0, int)
        found = self._in_batches(functools.partial(_places, self.model), rows)
        at = tuple(np.array(where, int).reshape(-1, 2).T)
        return found[0][at], found[1][at]

    def _divided(self, context: str, continuation: str) -> tuple[np.ndarray, int]:
        """The tokens of a whole text, and the first that is not one of its context: byte pairs reach over where it is
        cut, and a space belongs to the word behind it, as in the models of the harness."""
        cut = len(context.rstrip()) if continuation else len(context)
        whole, before = self._ids(context + continuation), self._ids(context[:cut])
        same = whole[: len(before)] == before[: len(whole)]
        return whole, int(np.argmin(np.append(same, False)))

    def _ids(self, text: str) -> np.ndarray:
        return np.asarray(self.model.tokenizer.encode(text), int)


@eqx.filter_jit
def _places(model: EnergyDLLM, rows: Int[Array, "N W"]) -> tuple[Float[Array, "N W"], Int[Array, "N W"]]:
    def one(ids: Int[Array, " W"]) -> tuple[Float[Array, " W"], Int[Array, " W"]]:
        log_p = energy.conditionals(ids)
        return jnp.take_along_axis(log_p, ids[:, None], axis=-1)[:, 0], jnp.argmax(log_p, axis=-1)

    energy: Any = model.energy
    return jax.lax.map(one, rows, batch_size=min(8, len(rows)))


@eqx.filter_jit
def _next(model: EnergyDLLM, ids: Int[Array, "N W"], places: Int[Array, " N"]) -> Float[Array, "N V"]:
    def one(row: tuple[Int[Array, " W"], Int[Array, ""]]) -> Float[Array, " V"]:
        ids, place = row
        return model.log_posterior(ids, jnp.arange(len(ids)) < place)[place]

    return jax.lax.map(one, (ids, places), batch_size=min(8, len(ids)))
