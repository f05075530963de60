"""`page`: one motion as a self-contained interactive page."""

import json
import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._model import EnergyDLLM
from ..flow import JointFlow
from ._attribution import attribution
from ._look import look, write
from ._probes import attention_pattern, energy_by_token


TEMPLATE = Path(__file__).with_name("page.html")
DETAIL = 512
"""Longer passages have their attribution at the last moment only."""
NUMBERS = 100_000
"""Tokens times moments on a page, at most (two moments at least)."""
HEARD = 8
"""Neighbours listed for a token."""


def page(
    model: EnergyDLLM,
    file: str | os.PathLike,
    *,
    prompt: str = "",
    length: int = 64,
    steps: int = 64,
    seed: int = 0,
) -> Path:
    """Look at a model at work, and leave what was seen in one HTML file that opens from disk.

    A passage is generated as by `inspect`. The page has a slider over noise time, and for each moment the text coloured
    by energy, the terms of `F`, and for the token under the pointer or in focus what its log-odds are made of
    (`attribution`), and whom it attends to at the end; beside it a slice of the landscape.

    **Arguments:** as of `inspect`, but `file` is the HTML file; one of this name is replaced whole.

    **Returns:** the path of the file.

    **Raises:** `ValueError` if `length` or `steps` is not positive, `file` is a folder, or `prompt` does not fit;
    `FloatingPointError` if the motion was not finite.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, steps=2, key=jax.random.key(0))
    assert ed.probe.page(model, "look.html", length=4, steps=4).stat().st_size < 3e6
    ```
    """
    file = Path(file)
    if file.is_dir():
        raise ValueError(f"`file` {file} is a folder; expected a file, such as report.html.")
    seen = look(model, prompt, length, steps, seed)
    path, land = seen.passage, seen.slice
    moments = len(path.times)
    keep = np.unique(np.linspace(0, moments - 1, max(2, min(moments, NUMBERS // length))).round().astype(int))
    field = JointFlow(model.energy, seen.given, rate=seen.rate)
    states = jax.tree.map(lambda s: s[keep], path.states)
    token_energy, token, rival, parts, pattern = jax.tree.map(np.asarray, _told(field, path.times[keep], states))
    if length > DETAIL:
        token, rival, parts = jax.tree.map(lambda each: each[-1:], (token, rival, parts))
    heard = {}
    for name, pairs in pattern.items():
        first = np.argsort(-pairs, axis=1)[:, :HEARD]
        heard[name] = [first.tolist(), _short(np.take_along_axis(pairs, first, axis=1), 3)]
    data = {
        "symbols": list(model.tokenizer.symbols),
        "s": _short(path.times[keep]),
        "tokens": np.asarray(path.probes["tokens"])[keep].tolist(),
        "confidence": _short(path.probes["confidence"][keep], 2),
        "energy": _short(token_energy, 3),
        "terms": {name: _short(term[keep]) for name, term in path.probes["energy_terms"].items()},
        "why": {
            "token": token.tolist(),
            "rival": rival.tolist(),
            "parts": {name: _short(part) for name, part in parts.items()},
        },
        "heard": heard,
        "land": {
            name: _short(getattr(land, key), 6)
            for name, key in (("u", "u"), ("v", "v"), ("F", "free_energy"), ("paths", "paths"))
        },
        "held": float(land.held),
        "moments": moments,
        "known": seen.known,
    }
    # "<" could end the script element
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    made = TEMPLATE.read_text(encoding="utf-8").replace("{{data}}", text)
    return write(file.parent, {file.name: made.encode()})[0]


@eqx.filter_jit
def _told(field, times, states):
    """Of every moment each token's energy and attribution; of the last one the attention, the mean of its heads."""

    def one(at):
        time, state = at
        found = attribution(time, state, field)
        return sum(energy_by_token(time, state, field).values()), found.token, found.rival, found.parts

    heads = attention_pattern(times[-1], jax.tree.map(lambda s: s[-1], states), field)
    return *jax.lax.map(one, (times, states)), {name: jnp.mean(pairs, axis=0) for name, pairs in heads.items()}


def _short(array, digits: int = 4) -> list:
    """Lists of numbers with few digits: a page is small."""
    array = np.asarray(array, float)
    flat = [float(f"{value:.{digits}g}") for value in array.ravel()]
    return np.array(flat).reshape(array.shape).tolist()
