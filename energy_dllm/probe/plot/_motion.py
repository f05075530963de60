"""Figures of what the probes recorded. They read arrays and trajectories, never a model."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ...flow import Trajectory
from ...learn import Evaluation
from .._landscape import Landscape
from ._style import COLOURS, GREY, INK, figure, finish, label_ends, nats, recorded, sigma_axis, style


if TYPE_CHECKING:
    import matplotlib.figure

RELAXATION = "relaxation time $t$ (time constants)"
DASHES = "-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5))
"""Layers of one kind, first to last."""
MOST = 14
"""Terms that have labels of their own."""
NOISE = "noise time $s = -\\log\\,\\sigma$"


def plot_energy(path: Trajectory, *, noise_time: bool = False) -> "matplotlib.figure.Figure":
    """The free energy on the way, and which terms changed it.

    Above `F` itself; below the change of every term since the start, which add up to the change of `F`. Colours tell
    kinds of terms apart, dashes their layers; of more than 14 terms the layers of a kind are one. A spring and the
    vocabulary are shown as one: both are huge when the noise is weak, and only their sum is informative. In relaxation
    time `F` can only fall; in noise time it may rise, because `sigma` reshapes the landscape meanwhile, and it is
    drawn without `L C log sigma`, which is the same for every text and larger than all else.

    **Arguments:**

    - `path`: a trajectory recorded with `probes={"energy_terms": energy_terms}`.
    - `noise_time`: whether its clock is noise time; an axis of `sigma` is then added.

    **Returns:** a matplotlib `Figure`.

    **Raises:** `ImportError` without matplotlib; `ValueError` if the probe was not recorded.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    field, probes = (
        ed.flow.Relaxation(model.energy, ed.flow.Masked(8)),
        {"energy_terms": ed.probe.energy_terms},
    )
    path = ed.solve(field, model.energy.neutral(8), t0=0.0, t1=5.0, times=jnp.arange(5.0), probes=probes)
    assert len(ed.probe.plot_energy(path).axes) == 2
    ```
    """
    times = np.asarray(path.times)
    terms = {name: np.asarray(term) for name, term in recorded(path, "energy_terms").items()}
    if noise_time and "spring" in terms:
        _, length, width = jax.tree.leaves(path.states)[0].shape  # the observation
        terms["spring"] = terms["spring"] + length * width * times
    with style():
        made, (above, below) = figure(7.2, 5.4, 2, 1, sharex=True, height_ratios=(2, 3))
        above.plot(times, sum(terms.values()), color=INK)
        above.set_ylabel("$F - L C\\,\\log\\sigma$ (nats)" if noise_time else "$F$ (nats)")
        above.set_title("The free energy while the noise is lowered" if noise_time else "The free energy falls")
        _changes(below, times, terms, "" if noise_time else ", mostly $L C\\,\\log\\sigma$")
        below.set_xlabel(NOISE if noise_time else RELAXATION)
        finish(above)
        if noise_time:
            sigma_axis(above)
    return made


def plot_relaxation(path: Trajectory, *, horizon: float | None = None) -> "matplotlib.figure.Figure":
    """How a relaxation comes to rest: `F` falling, and the dissipation, its rate.

    The dots are the measured slope `-dF/dt` between two records, the line the `dissipation` probe: one law,
    seen twice. Where `energy_terms` was recorded too, a third panel shows what each of them contributed.

    **Arguments:**

    - `path`: a trajectory of `Relaxation` recorded with the probes `free_energy` and `dissipation`, under
      these names.
    - `horizon`: a relaxation time to mark, such as `model.steps * model.step`.

    **Returns:** a matplotlib `Figure`.

    **Raises:** `ImportError` without matplotlib; `ValueError` if a probe was not recorded.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    probes = {"free_energy": ed.probe.free_energy, "dissipation": ed.probe.dissipation}
    field = ed.flow.Relaxation(model.energy, ed.flow.Given(jnp.arange(8) % 3))
    path = ed.solve(field, model.energy.neutral(8), t0=0.0, t1=5.0, times=jnp.arange(0.1, 5.0), probes=probes)
    assert len(ed.probe.plot_relaxation(path, horizon=3.0).axes) == 2
    ```
    """
    energy = np.asarray(recorded(path, "free_energy"))
    burnt = np.asarray(recorded(path, "dissipation"))
    times = np.asarray(path.times)
    later = times > 0  # the axis is logarithmic
    slope = -np.diff(energy) / np.diff(times)
    middle = np.sqrt(times[1:] * times[:-1])
    # below the rounding of F a slope is noise
    floor = np.finfo(energy.dtype).eps * np.abs(energy).max() / np.diff(times)
    shown = (slope > 8 * floor) & (middle > 0)
    terms = path.probes.get("energy_terms", {})
    with style():
        rows = 3 if terms else 2
        made, (above, *between, below) = figure(7.2, 2.6 * rows, rows, 1, sharex=True)
        for axes in between:
            _changes(axes, times, terms)
        above.plot(times[later], energy[later], color=INK)
        above.set_title("The free energy falls")
        above.set_ylabel("$F$ (nats)")
        below.plot(times[later], burnt[later], color=COLOURS[0])
        below.plot(middle[shown], slope[shown], "o", color=COLOURS[1], markersize=3.5, markeredgewidth=0)
        below.set_title("The rate of its fall is the dissipation")
        below.set_ylabel("nats per time constant")
        below.set_xlabel(RELAXATION)
        below.set_xscale("log")
        if (burnt[later] > 0).any():  # at rest from the start nothing is dissipated
            below.set_yscale("log")
        below.text(0.02, 0.14, "line: dissipation", color=COLOURS[0], transform=below.transAxes)
        below.text(0.02, 0.05, "dots: measured $-\\Delta F/\\Delta t$", color=COLOURS[1], transform=below.transAxes)
        for axes in (above, below):
            finish(axes)
        for axes in (above, *between, below):
            _mark(axes, horizon, "default relaxation" if axes is above else "")
    return made


def plot_relaxation_curve(
    curve: Evaluation | Sequence[tuple[float, float]], *, horizon: float | None = None
) -> "matplotlib.figure.Figure":
    """Cross-entropy against relaxation time: flat at the end for a descent, rising for an unrolled network.

    **Arguments:**

    - `curve`: an `Evaluation`, or pairs of relaxation time (time constants) and cross-entropy (nats).
    - `horizon`: a relaxation time to mark, such as `model.steps * model.step`.

    **Returns:** a matplotlib `Figure`.

    **Raises:** `ImportError` without matplotlib; `ValueError` if the curve has fewer than two points.

    **Example:**

    ```python
    import energy_dllm as ed

    figure = ed.probe.plot_relaxation_curve([(0.6, 2.9), (7.2, 2.3), (72.0, 2.35)], horizon=7.2)
    assert figure.axes[0].get_ylabel() == "cross-entropy (nats)"
    ```
    """
    pairs = np.asarray(curve.relaxation_curve if isinstance(curve, Evaluation) else curve, float)
    if pairs.ndim != 2 or pairs.shape[0] < 2 or pairs.shape[1] != 2:
        raise ValueError(f"`curve` has shape {pairs.shape}; expected at least two pairs of time and cross-entropy.")
    with style():
        made, axes = figure(5.6, 3.6)
        axes.plot(*pairs.T, "o-", color=COLOURS[0], markersize=4)
        axes.set_xscale("log")
        axes.set_xlabel(RELAXATION)
        axes.set_ylabel("cross-entropy (nats)")
        axes.set_title("Masked tokens, predicted on the way to rest")
        finish(axes)
        _mark(axes, horizon, "default relaxation")
    return made


def landscape_figure(landscape: Landscape) -> "matplotlib.figure.Figure":
    """`Landscape.plot`."""
    height = np.asarray(landscape.free_energy)
    ends = []
    with style():
        made, axes = figure(6.4, 5.0)
        filled = axes.contourf(
            np.asarray(landscape.u), np.asarray(landscape.v), height, levels=_levels(height), cmap="cividis"
        )
        axes.contour(filled, colors="white", linewidths=0.4, alpha=0.6, linestyles="solid")
        for line in np.asarray(landscape.paths):
            axes.plot(*line.T, color="black", linewidth=2.6)
            axes.plot(*line.T, color="white", linewidth=1.3)
            ends = [
                axes.plot(*at, "o", markersize=6.5, color=colour, markeredgecolor="white")[0]
                for at, colour in ((line[0], "black"), (line[-1], COLOURS[1]))
            ]
        axes.legend(ends, ["start", "end"], framealpha=0.9, edgecolor="none", handletextpad=0.2)
        axes.set_aspect("equal")
        axes.set_xlabel("$u$, first direction (units of $y$)")
        axes.set_ylabel("$v$, second direction (units of $y$)")
        axes.set_title(f"The free energy on a plane that holds {float(landscape.held):.0%} of the motion")
        bar = made.colorbar(filled, ax=axes, fraction=0.045, pad=0.02)
        ticks = bar.get_ticks()  # closer at the bottom; as many digits as tell them apart
        digits = max(0, math.ceil(-math.log10(np.diff(ticks).min()))) if len(ticks) > 1 else 4
        bar.set_ticks(ticks, labels=[f"{tick:.{digits}f}".replace("-", "−") for tick in ticks])
        bar.set_label("$F$ (nats)")
        bar.outline.set_visible(False)
    return made


def _changes(axes: Any, times: np.ndarray, terms: Mapping[str, Any], mostly: str = "") -> None:
    """Every term's change since the first record, named at its end with its last value; `mostly` says what a spring
    that is not drawn is."""
    terms = {name: np.asarray(term) for name, term in terms.items()}
    spring = terms.pop("spring", None)
    if spring is not None and np.any(spring):
        terms["vocabulary + spring"] = terms.pop("vocabulary") + spring
    sizes = {name: float(np.abs(term - term[0]).max()) for name, term in terms.items()}
    noise, title = "vocabulary + spring", "What changed it, term by term"
    if sizes.get(noise, 0.0) > 5 * max((size for name, size in sizes.items() if name != noise), default=math.inf):
        change = float(terms[noise][-1] - terms.pop(noise)[0])
        title += f" (not drawn: {noise}, {nats(change)}{mostly})"
    kind = lambda name: name.rstrip(" 0123456789")
    kinds = list(dict.fromkeys(map(kind, terms)))
    if len(terms) > MOST:
        terms = {of: sum(term for name, term in terms.items() if kind(name) == of) for of in kinds}
    ends, layers = [], collections.Counter()
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    for name, term in terms.items():
        colour = COLOURS[kinds.index(kind(name)) % len(COLOURS)]
        axes.plot(times, term - term[0], color=colour, linestyle=DASHES[layers[kind(name)] % len(DASHES)])
        layers[kind(name)] += 1
        change = float(term[-1] - term[0])
        ends.append((change, f"{name} {nats(change)}", colour))
    axes.set_title(title)
    axes.set_ylabel("change since the start (nats)")
    finish(axes)
    label_ends(axes, times[-1], ends)


def _levels(height: np.ndarray, count: int = 24) -> np.ndarray:
    """Contour levels, denser near the bottom: equal steps of the square root, as round a bowl."""
    low, high = float(height.min()), float(height.max())
    span = max(high - low, 1e-6 * max(1.0, abs(low)))
    return low + span * np.linspace(0.0, 1.0, count) ** 2


def _mark(axes: Any, time: float | None, text: str) -> None:
    if time is not None:
        axes.axvline(time, color=GREY, linewidth=0.9, linestyle=(0, (3, 3)))
        across = axes.get_xaxis_transform()
        axes.text(time, 0.97, f"{text} ", color=GREY, ha="right", va="top", transform=across)
