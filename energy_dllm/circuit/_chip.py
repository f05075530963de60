"""A chip: one set of conductances that is at once an equation in jax and a netlist of devices."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._types import Key, Scalar
from ..flow import AbstractMotion, solve
from ._circuit import Circuit
from ._crossbar import Competition, Crossbar, Follower, Rectification, TanhPair
from ._technology import Technology


class Chip(AbstractMotion):
    """A crossbar as it was built: every conductance, offset and capacitor with its own value.

    The same arrays give the chip's equation (call it, `solve` it, `vmap` it over a thousand chips) and, by `circuit`,
    its netlist; without spread the equation is that of the `Crossbar`. Made by `fabricate`.

    - `forward (M, N)`, `threshold (M,)`, `pad (M,)`: conductances that meet on the input wire of a cell, in units of
      1/R, the sign telling which of a line and its mirror image; the wire takes their mean.
    - `backward (M, N)`, `bias (N,)`, `leak (N,)`: conductances that meet on a visible neuron.
    - `capacity (N,)`: its capacitor, in units of C.
    - `offset (M,)`, `base (M,)`: volts at the input of a cell's driver, and at its transistor's base.
    - `reach`, `drive`: largest sum of weights on a wire and on a neuron, which the drivers' gains undo.
    """

    forward: Float[Array, "M N"]
    threshold: Float[Array, " M"]
    pad: Float[Array, " M"]
    backward: Float[Array, "M N"]
    bias: Float[Array, " N"]
    leak: Float[Array, " N"]
    capacity: Float[Array, " N"]
    offset: Float[Array, " M"]
    base: Float[Array, " M"]
    reach: Scalar
    drive: Scalar
    clamped: Bool[Array, " N"]
    hidden: Competition | Rectification
    visible: Follower | TanhPair
    technology: Technology

    @property
    def force_evaluations(self) -> int:
        """One."""
        return 1

    def __call__(self, time: Scalar | float, state: Float[Array, " N"], args: object = None) -> Float[Array, " N"]:
        """`dv/dt (N,)`, the chip's own."""
        p = self.hidden(self.signal(state))
        total = jnp.sum(jnp.abs(self.backward), axis=0) + jnp.abs(self.bias) + self.leak
        speed = (self.drive * (p @ self.backward + self.bias) - total * state) / self.capacity
        return jnp.where(self.clamped, 0.0, speed)

    def signal(self, state: Float[Array, " N"]) -> Float[Array, " M"]:
        """What the hidden cells see `(M,)`, nominally `W g(v) + c`."""
        total = jnp.sum(jnp.abs(self.forward), axis=1) + jnp.abs(self.threshold) + self.pad
        mean = (self.forward @ self.visible(state) + self.threshold) / total
        signal = self.reach * (mean + self.offset / self.technology.volts)
        if isinstance(self.hidden, Competition):
            signal = signal + self.base / (self.technology.thermal * self.hidden.beta)
        return signal

    def lines(self, state: Float[Array, " N"]) -> dict[str, Float[Array, " lines"]]:
        """Volts on the wires that drivers hold: `v` neurons, `b` bases or column outputs, `p` lines of the cells."""
        units, signal = self.technology.volts, self.signal(state)
        if isinstance(self.hidden, Competition):
            base = self.technology.thermal * self.hidden.beta * signal
        else:
            base = units * self.drive * signal
        return {"v": units * state, "b": base, "p": units * self.drive * self.hidden(signal)}

    def swing(self, state: Float[Array, " N"], *, t1: float = 20.0) -> dict[str, tuple[float, float]]:
        """Lowest and highest volts of every wire of `lines` on the way from `state`, by the chip's equation.

        **Raises:** `ValueError` if the state has another shape.
        """
        if state.shape != self.bias.shape:
            raise ValueError(f"`state` has shape {state.shape}; expected {self.bias.shape}, one value a neuron.")
        # what the equation does not read of the technology must not cost a compilation
        units = Technology(volts=self.technology.volts, temperature=self.technology.temperature)
        swing = _swing(dataclasses.replace(self, technology=units), state, jnp.asarray(t1, state.dtype))
        seen = {name: np.asarray(wires) for name, wires in swing.items()}
        return {
            f"{name}{n}": (float(low), float(high))
            for name, wires in seen.items()
            for n, (low, high) in enumerate(wires.T)
        }

    def circuit(self, state: Float[Array, " N"], *, t1: float = 20.0, metered: bool = False) -> Circuit:
        """The chip as devices: resistors, capacitors, transistors, drivers.

        **Arguments:**

        - `state`: where the visible neurons start `(N,)`; clamped ones stay there.
        - `t1`: time on which the head-room of every driver is checked.
        - `metered`: let drivers draw what they deliver from the supplies, so that `supply_energy` can be read.

        **Returns:** a `Circuit`.

        **Raises:** `ValueError` for a signal that comes within 0.1 V of the rails, with the wire and its range.
        """
        from ._device import draw

        rail, load = self.technology.rail, self.technology.load
        # a base that rises above its collector turns the transistor round
        ceiling = {"b": rail - load + 0.2 if isinstance(self.hidden, Competition) else rail - 0.1}
        for wire, (low, high) in self.swing(state, t1=t1).items():
            top = ceiling.get(wire[0], rail - 0.1)
            if not (low >= 0.1 - rail and high <= top):
                raise ValueError(
                    f"wire {wire} goes from {low:.3g} V to {high:.3g} V, beyond {0.1 - rail:.3g} V to {top:.3g} V; "
                    "lower `volts` or raise `rail` of the technology, or train with `Crossbar.headroom`."
                )
        return draw(self, np.asarray(state, float), metered=metered)


@eqx.filter_jit
def _swing(chip: Chip, state: Float[Array, " N"], t1: Scalar) -> dict[str, Float[Array, "2 lines"]]:
    times = jnp.linspace(0.0, 0.999, 40) ** 2 * t1
    path = solve(chip, state, t0=0.0, t1=t1, times=times, step=t1 / 400)
    lines = jax.vmap(chip.lines)(path.states)
    return {name: jnp.stack([volts.min(axis=0), volts.max(axis=0)]) for name, volts in lines.items()}


def fabricate(crossbar: Crossbar, technology: Technology, key: Key | None = None) -> Chip:
    """Build a crossbar: conductances in the levels there are, each with its own error.

    Patterns that compete are centred in each group first, which changes nothing (only differences compete) and
    spares the drivers most of their swing. Wires and neurons get as much conductance to ground as makes their sum what
    it should be; its error counts like any other.

    **Arguments:**

    - `crossbar`: what is to be built.
    - `technology`: of which parts.
    - `key`: random key of the spread; without it every part is nominal (levels apply all the same).

    **Returns:** a `Chip`. Under `vmap` over keys, as many.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, equinox as eqx, energy_dllm as ed

    memory = ed.circuit.Crossbar(jnp.eye(3, 4), (3,), beta=4.0)
    one = lambda key: ed.circuit.fabricate(memory, ed.circuit.Technology.built(), key)
    chips = eqx.filter_vmap(one)(jax.random.split(jax.random.key(0), 20))
    assert chips.forward.shape == (20, 3, 4)
    ```
    """
    patterns, threshold, bias = crossbar.patterns, crossbar.threshold, crossbar.bias
    backward = patterns
    if isinstance(crossbar.hidden, Competition):
        patterns, mean = crossbar.hidden.centred(patterns)
        threshold = crossbar.hidden.centred(threshold[:, None])[0][:, 0]
        backward, bias = patterns, bias + mean
    tiny = jnp.finfo(patterns.dtype).tiny
    reach = jnp.maximum(jnp.max(jnp.sum(jnp.abs(patterns), axis=1) + jnp.abs(threshold)), tiny)
    drive = jnp.maximum(jnp.max(jnp.sum(jnp.abs(backward), axis=0) + jnp.abs(bias)), tiny)
    m, n = patterns.shape
    forward, threshold = _levels(patterns / reach, technology), _levels(threshold / reach, technology)
    backward, bias = _levels(backward / drive, technology), _levels(bias / drive, technology)
    # where rounding up filled a wire, nothing is left to pad
    pad = jnp.maximum(1.0 - jnp.sum(jnp.abs(forward), axis=1) - jnp.abs(threshold), 0.0)
    leak = jnp.maximum(1.0 - jnp.sum(jnp.abs(backward), axis=0) - jnp.abs(bias), 0.0)
    parts = {"forward": forward, "threshold": threshold, "pad": pad, "backward": backward, "bias": bias, "leak": leak}
    parts["capacity"] = jnp.ones(n, patterns.dtype)
    offset = base = jnp.zeros(m, patterns.dtype)
    if key is not None:
        keys = jax.random.split(key, len(parts) + 2)
        spread = {**dict.fromkeys(parts, technology.conductance), "capacity": technology.capacity}
        # a conductance is not negative, a capacitor not gone
        error = lambda k, a, s: jnp.maximum(1 + s * jax.random.normal(k, a.shape, a.dtype), 0.01)
        parts = {name: a * error(k, a, spread[name]) for k, (name, a) in zip(keys, parts.items(), strict=False)}
        offset = technology.offset * jax.random.normal(keys[-2], (m,), patterns.dtype)
        base = technology.base * jax.random.normal(keys[-1], (m,), patterns.dtype)
    return Chip(
        **parts,
        offset=offset,
        base=base,
        reach=reach,
        drive=drive,
        clamped=crossbar.clamped,
        hidden=crossbar.hidden,
        visible=crossbar.visible,
        technology=technology,
    )


def _levels(share: Float[Array, "*shape"], technology: Technology) -> Float[Array, "*shape"]:
    if not technology.levels:
        return share
    top = jnp.max(jnp.abs(share))
    step = jnp.where(top > 0, top, 1.0) / (technology.levels - 1)
    return jnp.round(share / step) * step
