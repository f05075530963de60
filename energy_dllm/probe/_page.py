"""`page`: one motion as a self-contained interactive page."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._model import EnergyDLLM
from ..flow import AbstractEvidence, JointFlow, Trajectory
from ._attribution import attribution
from ._probes import attention_pattern, energy_by_token
from ._record import (
    Record,
    check_finite,
    generated,
    given_start,
    levels_of,
    passage_length,
    recorded_from,
    validate,
    write,
)


TEMPLATE = Path(__file__).with_name("page.html")
WINDOW = 256
"""Tokens that are generated at once, attention being `L x L`; longer passages are split into windows."""
CONTEXT = 64
"""Given tokens at the start of a window: the end of the window before."""
DETAIL = 512
"""Longer passages have their attribution at the last moment only."""
NUMBERS = 80_000
"""Largest number of tokens times moments on a page (two moments at least)."""
NEIGHBOURS = 8
"""Neighbours listed for a token; half as many in a passage longer than `DETAIL`."""


def page(
    model: EnergyDLLM,
    file: str | os.PathLike,
    *,
    prompt: str = "",
    length: int | None = None,
    steps: int = 64,
    seed: int = 0,
) -> Path:
    """Generate a passage and write an interactive HTML file that explains it; it opens from disk.

    The passage is generated as by `inspect`. The page has a slider over noise time, and for each moment the text
    coloured by energy, the terms of `F` (both without `C log sigma`, which is the same for every token), and for the
    selected token the parts of its log-odds (`attribution`) and its attention at the end; beside it a slice of the
    landscape.

    More than 256 tokens are generated window by window, each conditional on the last 64 tokens of the one before; the
    landscape is that of the first. Of a long passage fewer moments are kept, and beyond 512 tokens attribution is given
    at the last moment only. The page states this.

    **Arguments:** as of `inspect`, but `file` is the HTML file; one of this name is replaced whole.

    **Returns:** the path of the file.

    **Raises:** `ValueError` if `length` or `steps` is not positive, `length` is not that of the pictures of a model,
    `file` is a folder, or `prompt` does not fit;
    `FloatingPointError` if the motion was not finite.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, steps=2, key=jax.random.key(0))
    assert ed.probe.page(model, "page.html", length=4, steps=4).stat().st_size < 3e6
    ```
    """
    file = Path(file)
    if file.is_dir():
        raise ValueError(f"`file` {file} is a folder; expected a file, such as report.html.")
    length = passage_length(model, length)
    known = validate(model, prompt, length, steps)
    seen = recorded_from(model, known[:WINDOW], min(length, WINDOW), steps, seed)
    times, land = seen.passage.times, seen.slice
    moments = len(times)
    keep = np.unique(np.linspace(0, moments - 1, max(2, min(moments, NUMBERS // length))).round().astype(int))
    pages, rows = [], []
    for start, behind, given, passage in _windows(model, known, length, steps, seen, seed):
        field = JointFlow(model.energy, given, rate=seen.rate)
        row = jax.tree.map(np.asarray, _moments(field, times[keep], jax.tree.map(lambda s: s[keep], passage.states)))
        row |= {name: np.asarray(passage.probes[name])[keep] for name in ("tokens", "confidence")}
        row["attended"] = {name: _strongest(pairs, length, start) for name, pairs in row["attended"].items()}
        pages.append(start + behind)
        rows.append(_from(row, behind))
    whole = jax.tree.map(lambda *each: np.concatenate(each, axis=-1), *rows)
    # C log sigma is the same for every token, and larger than all else
    whole["terms"]["spring"] += model.energy.vocabulary.codes.shape[1] * np.asarray(times)[keep, None]
    if length > DETAIL:
        whole["why"] = jax.tree.map(lambda each: each[-1:], whole["why"])
    why = whole["why"]
    data = {
        "symbols": list(model.tokenizer.symbols),
        "s": _short(times[keep]),
        "tokens": whole["tokens"].tolist(),
        "confidence": _short(whole["confidence"], 2),
        "energy": _short(sum(whole["terms"].values()), 3),
        "terms": {name: _short(term.sum(axis=-1)) for name, term in whole["terms"].items()},
        "why": {
            "token": why["token"].tolist(),
            "reference": why["reference"].tolist(),
            "parts": {name: _short(part) for name, part in why["parts"].items()},
        },
        "attended": {name: [j.T.tolist(), _short(share.T, 3)] for name, (j, share) in whole["attended"].items()},
        "land": {
            name: _short(getattr(land, key), 6)
            for name, key in (("u", "u"), ("v", "v"), ("F", "free_energy"), ("paths", "paths"))
        },
        "held": float(land.held),
        "moments": moments,
        "known": len(known),
        "pages": pages,
        "context": CONTEXT,
    }
    # "<" could end the script element
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    made = TEMPLATE.read_text(encoding="utf-8").replace("{{data}}", text)
    return write(file.parent, {file.name: made.encode()})[0]


def _windows(
    model: EnergyDLLM, known: np.ndarray, length: int, steps: int, seen: Record, seed: int
) -> Iterator[tuple[int, int, AbstractEvidence, Trajectory]]:
    """Start of each window, number of tokens it shares with the window before, its evidence and its trajectory."""
    yield 0, 0, seen.given, seen.passage
    text = np.asarray(seen.passage.probes["tokens"])[-1]
    levels, key = levels_of(model, steps), jax.random.key(seed)
    while (done := len(text)) < length:
        start = min(done - CONTEXT, length - WINDOW)  # the last window is as long as the others: nothing new compiles
        given = given_start(np.concatenate([text[start:], known[done : start + WINDOW]]), WINDOW)
        passage = _written(model, given, levels, seen.rate, jax.random.fold_in(key, done))
        check_finite(passage, f"passage behind token {done}")
        yield start, done - start, given, passage
        text = np.concatenate([text, np.asarray(passage.probes["tokens"])[-1, done - start :]])


_written = eqx.filter_jit(generated)


@eqx.filter_jit
def _moments(field, times, states):
    """Terms and attribution of every token at every moment; the attention at the last, averaged over heads."""

    def one(at):
        time, state = at
        found = attribution(time, state, field)
        why = {"token": found.token, "reference": found.reference, "parts": found.parts}
        return {"terms": energy_by_token(time, state, field), "why": why}

    heads = attention_pattern(times[-1], jax.tree.map(lambda s: s[-1], states), field)
    attended = {name: jnp.mean(pairs, axis=0) for name, pairs in heads.items()}
    return jax.lax.map(one, (times, states)) | {"attended": attended}


def _from(row: Any, start: int) -> Any:
    """The columns of the tokens from `start` on."""
    return jax.tree.map(lambda each: each[..., start:], row)


def _strongest(pairs: np.ndarray, length: int, start: int) -> list[np.ndarray]:
    """The tokens that each token attends to most, and how much: two arrays `(n, L)`."""
    first = np.argsort(-pairs, axis=1)[:, : NEIGHBOURS if length <= DETAIL else NEIGHBOURS // 2]
    return [first.T + start, np.take_along_axis(pairs, first, axis=1).T]


def _short(array, digits: int = 4) -> list:
    """Lists of numbers with few digits: a page is small."""
    array = np.asarray(array, float)
    flat = [float(f"{value:.{digits}g}") for value in array.ravel()]
    return np.array(flat).reshape(array.shape).tolist()
