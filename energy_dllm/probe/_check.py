"""`check`: a health report of a landscape, numbers with limits and advice."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from .._checks import seeded
from .._model import EnergyDLLM
from ..energy import FreeEnergy
from ._measure import MULTIPLES, measure
from ._record import passage_length
from ._spectrum import largest_gain, relaxation_rates


@dataclasses.dataclass(frozen=True)
class Finding:
    """One number of a health report: its name, value and limit, whether it passes, and advice if it does not."""

    name: str
    value: float
    relation: str
    limit: float
    passed: bool
    advice: str

    def __str__(self) -> str:
        mark = "ok  " if self.passed else "FAIL"
        line = f"{mark}  {self.name}: {self.value:.3g} ({self.relation} {self.limit:g})"
        return line if self.passed else f"{line}. {self.advice}"


@dataclasses.dataclass(frozen=True)
class Health:
    """What `check` returns.

    - `findings`: in order of importance.
    - `curve`: pairs of relaxation time (time constants) and the cross-entropy of masked tokens in nats; without a
      text, the spread of the hidden states.
    - `largest_step`: the largest Euler step that is stable at rest, in time constants.
    """

    findings: list[Finding]
    curve: list[tuple[float, float]]
    largest_step: float

    @property
    def passed(self) -> bool:
        """Whether every finding keeps its limit."""
        return all(finding.passed for finding in self.findings)

    @property
    def failed(self) -> list[Finding]:
        """The findings that do not."""
        return [finding for finding in self.findings if not finding.passed]

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready values, with `passed`."""
        return {"passed": self.passed, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


def check(
    model: EnergyDLLM,
    text: str | Int[np.ndarray, " L"] | None = None,
    *,
    length: int | None = None,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
) -> Health:
    """Check a landscape: force against slope, dissipation against the fall of `F`, convergence, and dead terms.

    | finding | meaning |
    |---|---|
    | force of a term | the force against finite differences of the energy, relative |
    | dissipation balance | the drop of `F` against the integrated dissipation, relative |
    | rise of F | the largest rise of `F` along the relaxation, relative to its fall |
    | asymmetry of the denoiser | of its Jacobian at the default relaxation; 0 at rest, where it is a gradient |
    | spread | the variation of the hidden states over the passage at ten times the default; 0 is collapse |
    | drift of the cross-entropy | its rise from the default to ten times the default, nats; with a text only |
    | step against the largest stable step | below 1 an Euler step does not overshoot |
    | slowest rate | below 0 the default relaxation ends near a saddle |
    | dependence on the start | of the posterior at rest under noise, neutral or random, the largest total variation |
    | share of the log-odds from E | of masked tokens, in absolute nats beside prior and residual; near 0 `E` is idle |
    | share of a term | in the force at rest; near 0 it is dead |
    | gradient of a term | its share in the gradient of the loss; near 0 it does not learn |
    | gain | the largest slope `dg/dy` of the activation |
    | convexity | the least such slope over the largest; below 0 `F` need not fall |

    **Arguments:**

    - `model`: the model.
    - `text`: held-out text, of which the first `length` tokens are used; random tokens by default.
    - `length`: tokens of the passage; by default 48, or as many as a picture has.
    - `seed`: of the random tokens, of which of them are hidden, and of all directions.
    - `progress`: a function that is told what is measured next.

    **Returns:** a `Health`.

    **Raises:** `ValueError` if the model has no network, `length` is below 4 or not that of a picture, or the text is
    shorter than `length` or holds what the model does not know.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, steps=12, key=jax.random.key(0))
    health = ed.probe.check(model, length=6)
    assert not [finding for finding in health.failed if finding.name.startswith("force")]
    ```
    """
    if not isinstance(model.energy, FreeEnergy):
        raise ValueError(f"`model` has an energy of type {type(model.energy).__name__}, without a network to check.")
    length = passage_length(model, length, 48)
    if length < 4:
        raise ValueError(f"`length` is {length}; expected at least 4 tokens, such as 48.")
    seeded(seed)
    k1, k2, k3, k4, k5 = jax.random.split(jax.random.key(seed), 5)
    if text is None:
        ids = jax.random.randint(k1, (length,), 0, model.size)
    else:
        ids = jnp.asarray(model.encode(text) if isinstance(text, str) else text, int)[:length]
        if len(ids) < length:
            raise ValueError(f"`text` has {len(ids)} tokens; expected at least `length` {length}.")
    known = jax.random.permutation(k2, jnp.arange(length) % 2 == 0)
    say = (lambda words: None) if progress is None else progress
    seen = jax.tree.map(np.asarray, measure(model, ids, known, k3, say))
    say("finding rates and gains by Lanczos")
    rest, b = seen["rest"], seen["b"]
    rates = relaxation_rates(model.energy, jnp.asarray(rest), jnp.asarray(b), key=k4, count=48)
    gain, least = largest_gain(model.energy, jnp.asarray(rest), jnp.asarray(b), key=k5)
    largest = 2.0 / float(rates.values[-1]) if rates.values[-1] > 0 else math.inf
    watched = seen["spread"] if text is None else seen["loss"]
    curve = [(n * model.steps * model.step, float(value)) for n, value in zip(MULTIPLES, watched, strict=True)]
    return Health(_findings(model, seen, rates, gain, least, largest, text is not None), curve, largest)


def _findings(model, seen, rates, gain, least, largest, read) -> list[Finding]:
    made = []

    def most(name, value, limit, advice):
        made.append(Finding(name, float(value), "at most", limit, bool(value <= limit), advice))

    def not_below(name, value, limit, advice):
        made.append(Finding(name, float(value), "at least", limit, bool(value >= limit), advice))

    for name, wrong in seen["wrong"].items():
        most(
            f"force of {name}",
            wrong,
            0.03,
            f"The force of `{name}` is not the slope of its energy; let autodiff make it.",
        )
    most("dissipation balance", seen["balance"], 0.02, "F is not what the motion descends; see the forces above.")
    most("rise of F", seen["rise"], 0.01, "F rises on the way; are the neurons convex?")
    most(
        "asymmetry of the denoiser",
        seen["asymmetry"],
        0.2,
        (
            "The default relaxation stops far from rest; raise `steps`, or train with a longer `Denoising(horizon=)`. "
            "A deep energy that is trained for one step fails this by design."
        ),
    )
    advice = "All tokens fall into one hidden state; train at random, late times, and check for a term that dominates."
    not_below("spread", seen["spread"][-1], 0.02, advice)
    if read:
        drift = seen["loss"][-1] - seen["loss"][0]
        most(
            "drift of the cross-entropy",
            drift,
            0.25,
            "The answer gets worse at rest; train with a longer `Denoising(horizon=)`.",
        )
    most(
        "step against the largest stable step",
        model.step / largest,
        1.0,
        f"Take a `step` below {largest:.2g} time constants.",
    )
    not_below("slowest rate", rates.values[0], -0.1, "The relaxation stops on a pass, not in a valley; raise `steps`.")
    most(
        "dependence on the start",
        seen["dependence"],
        0.25,
        "There are several rest points, and the start decides; average over starts, or lower the noise in steps.",
    )
    advice = "Prior and residual decide the tokens; train longer, or raise `steps` if the residual is large."
    not_below("share of the log-odds from E", seen["carried"], 0.05, advice)
    for name in (name for name in seen["share"] if name not in ("neurons", "bias")):
        not_below(
            f"share of {name}",
            seen["share"][name],
            0.005,
            f"`{name}` has hardly any force; remove it, or scale it up.",
        )
    for name in model.energy.network.synapses:
        advice = f"`{name}` hardly learns; check its scale and `Denoising().diagnose`."
        not_below(f"gradient of {name}", seen["slope"][name], 1e-4, advice)
    most("gain", gain, 1e3, "Small differences are blown up; raise the neurons' epsilon or lower kappa.")
    not_below("convexity", least / gain, -1e-3, "The Lagrangian is not convex; F need not fall.")
    return made
