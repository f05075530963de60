"""`page`: one motion as a self-contained interactive page."""

import json
import os
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._model import EnergyDLLM
from ..flow import Given, JointFlow, Masked
from ._attribution import attribution
from ._inspect import _look, _write
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
    for name, value in (("length", length), ("steps", steps)):
        if value < 1:
            raise ValueError(f"`{name}` is {value}; expected a positive number, such as 64.")
    if file.is_dir():
        raise ValueError(f"`file` {file} is a folder; expected a file, such as report.html.")
    try:
        known = np.asarray(model.encode(prompt) if prompt else [], int)
    except ValueError as error:
        raise ValueError(f"`prompt` {prompt!r} cannot be encoded: {error}") from error
    if len(known) > length:
        raise ValueError(f"`prompt` has {len(known)} tokens but `length` is {length}; make `length` larger.")
    given = Masked(length)
    if len(known):
        given = Given(jnp.asarray(np.pad(known, (0, length - len(known)))), jnp.arange(length) < len(known))
    levels = model.schedule.levels(steps)
    rate = min(10.0, steps / float(levels[-1] - levels[0]))
    seen = _look(model, given, levels, rate, jax.random.key(seed))
    path, land = seen.passage, seen.slice
    if not np.isfinite(path.probes["free_energy"]).all():
        raise FloatingPointError("the free energy of the passage was not finite; check `model` with `evaluate`.")
    moments = len(path.times)
    keep = np.unique(np.linspace(0, moments - 1, max(2, min(moments, NUMBERS // length))).round().astype(int))
    detailed = keep if length <= DETAIL else keep[-1:]
    field = JointFlow(model.energy, given, rate=rate)
    token_energy = _energies(field, path.times[keep], jax.tree.map(lambda s: s[keep], path.states))
    why = _why(field, path.times[detailed], jax.tree.map(lambda s: s[detailed], path.states))
    pattern = _attention(field, path.times[-1], jax.tree.map(lambda s: s[-1], path.states))
    heard = {}
    for name, pairs in pattern.items():
        mean = np.asarray(pairs)
        first = np.argsort(-mean, axis=1)[:, :HEARD]
        heard[name] = [first.tolist(), _short(np.take_along_axis(mean, first, axis=1))]
    data = {
        "symbols": list(model.tokenizer.symbols),
        "s": _short(path.times[keep]),
        "tokens": np.asarray(path.probes["tokens"])[keep].tolist(),
        "confidence": _short(path.probes["confidence"][keep], 2),
        "energy": _short(token_energy, 3),
        "terms": {name: _short(term[keep]) for name, term in path.probes["energy_terms"].items()},
        "why": {
            "token": np.asarray(why[0]).tolist(),
            "rival": np.asarray(why[1]).tolist(),
            "parts": {name: _short(part, 3) for name, part in why[2].items()},
        },
        "heard": heard,
        "land": {
            name: _short(getattr(land, key), 6)
            for name, key in (("u", "u"), ("v", "v"), ("F", "free_energy"), ("paths", "paths"))
        },
        "held": float(land.held),
        "moments": moments,
        "known": len(known),
    }
    # "<" could end the script element
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    made = TEMPLATE.read_text(encoding="utf-8").replace("{{data}}", text)
    return _write(file.parent, {file.name: made.encode()})[0]


@eqx.filter_jit
def _energies(field, times, states):
    return jax.lax.map(lambda at: sum(energy_by_token(*at, field).values()), (times, states))


@eqx.filter_jit
def _why(field, times, states):
    def one(at):
        found = attribution(*at, field)
        return found.token, found.rival, found.parts

    return jax.lax.map(one, (times, states))


@eqx.filter_jit
def _attention(field, time, state):
    return {name: jnp.mean(heads, axis=0) for name, heads in attention_pattern(time, state, field).items()}


def _short(array, digits: int = 4) -> list:
    """Lists of numbers with few digits: a page is small."""
    array = np.asarray(array, float)
    flat = [float(f"{value:.{digits}g}") for value in array.ravel()]
    return np.array(flat).reshape(array.shape).tolist()
