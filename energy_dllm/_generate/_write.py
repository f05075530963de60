"""`generate` and `infill`: what is given differs, the motion is one."""

import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._model import EnergyDLLM
from ..energy import AbstractFreeEnergy
from ..flow import AbstractField, Given
from ._motion import FRAMES, STEPS, Generation, positive, write


def generate(
    model: EnergyDLLM,
    *,
    length: int = 64,
    prompt: str = "",
    samples: int = 1,
    steps: int = STEPS,
    churn: float | None = None,
    field: Callable[[AbstractFreeEnergy, Given], AbstractField] | None = None,
    solver: Any = None,
    controller: Any = None,
    frames: int = FRAMES,
    seed: int = 0,
    watch: Callable[[Generation], object] | None = None,
) -> Generation:
    """Write passages: noise falls, the system descends, what it settles on is the text.

    From `x = mean code + sigma_max * noise` along the model's noise schedule to `argmax p` at its end.

    Main arguments:

    - `length`: tokens of a passage `L`, the prompt among them.
    - `prompt`: how the passage begins; kept exactly.
    - `samples`: passages `N`, drawn independently; number `n` is the same however many there are.
    - `steps`: steps through the noise schedule, equal in information: more is better and slower.
    - `seed`: of all randomness.

    Other arguments:

    - `churn`: noise on the way down, 0 for none (see `flow.ReverseDiffusion`); by default what was measured
      to write best, and none beside a `solver` or `controller` of your own.
    - `field`: makes the motion from a landscape and what is given: `flow.ProbabilityFlow`, `flow.JointFlow`,
      `functools.partial(flow.ProbabilityFlow, steps=20)`, or one of your own that moves `x`; by default what
      was measured to write best.
    - `solver`: any diffrax solver; default Euler.
    - `controller`: any diffrax step size controller in place of the schedule's `steps`.
    - `frames`: at most so many moments are recorded after the start, the end among them.
    - `watch`: called after every recorded moment with the `Generation` so far. The motion does not notice,
      unless it has a `controller`, which then starts anew at every moment.

    **Returns:** a `Generation`.

    **Raises:** `ValueError` for sizes that are not positive, a prompt that leaves no token to write or has
    characters unknown to the model, noise with a `controller`, or a field that does not move `x`;
    `FloatingPointError` if the motion diverges.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    written = ed.generate(model, length=12, prompt="cab", steps=4)
    assert written.texts[0].startswith("cab") and written.free_energy.shape == (1, 5)
    ```
    """
    positive(length=length)
    ids = model.encode(prompt)
    if ids.shape[0] >= length:
        raise ValueError(
            f"`prompt` has {ids.shape[0]} tokens and `length` is {length}; expected a prompt that leaves at "
            f"least one token to write, so make `length` at least {ids.shape[0] + 1}."
        )
    given = Given(jnp.pad(ids, (0, length - ids.shape[0])), jnp.arange(length) < ids.shape[0])
    return write(model, given, samples, steps, churn, field, solver, controller, frames, seed, watch)


def infill(
    model: EnergyDLLM,
    template: str,
    *,
    samples: int = 1,
    steps: int = STEPS,
    churn: float | None = None,
    field: Callable[[AbstractFreeEnergy, Given], AbstractField] | None = None,
    solver: Any = None,
    controller: Any = None,
    frames: int = FRAMES,
    seed: int = 0,
    watch: Callable[[Generation], object] | None = None,
) -> Generation:
    """Fill the holes of a text, reading what stands before and behind them.

    **Arguments:**

    - `template`: the text, with holes such as `[8]`, eight tokens wide (characters, for most models). A
      bracket that is meant as such is written `[[`.
    - all others: as in `generate`.

    **Returns:** a `Generation`, in which everything outside of the holes is kept exactly.

    **Raises:** as `generate`, and `ValueError` for a hole that is malformed or a template without any.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    text = ed.infill(model, "abc [3] cab", steps=4).texts[0]
    assert text[:4] == "abc " and text[7:] == " cab"
    ```
    """
    ids, known = [], []
    for piece in _pieces(template):
        tokens = np.zeros(piece, int) if isinstance(piece, int) else np.asarray(model.encode(piece))
        ids.append(tokens)
        known.append(np.full(tokens.shape, isinstance(piece, str)))
    given = Given(jnp.asarray(np.concatenate(ids)), jnp.asarray(np.concatenate(known)))
    return write(model, given, samples, steps, churn, field, solver, controller, frames, seed, watch)


def _pieces(template: str) -> list[str | int]:
    """Literal text and the widths of holes, in order."""
    pieces: list[str | int] = [""]
    place = 0
    for match in re.finditer(r"\[\[|\[([1-9][0-9]*)\]|\[", template):
        literal = template[place : match.start()] + ("[" if match[0] == "[[" else "")
        place = match.end()
        pieces.append(literal)
        if match[1]:
            pieces.append(int(match[1]))
        elif match[0] == "[":
            near = template[match.start() : match.start() + 12]
            raise ValueError(
                f"`template` has a malformed hole at character {match.start()}, {near!r}; expected one such "
                "as [8], or [[ for a bracket that is meant as such."
            )
    pieces.append(template[place:])
    if not any(isinstance(piece, int) for piece in pieces):
        raise ValueError(f"`template` {template[:40]!r} has no hole; write one as [8], eight tokens wide.")
    return pieces
