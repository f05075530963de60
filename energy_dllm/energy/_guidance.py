"""Guidance: any differentiable scalar of the posterior, added to a free energy with a weight."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import bicgstab
from jaxtyping import Array, Bool, Float, Int

from .._types import Key, Scalar
from ._dfa import DFA
from ._landscape import AbstractFreeEnergy
from ._padded import AbstractWrapped


STEPS = 48
"""At most, to where guidance and posterior agree."""


class Guidance(eqx.Module):
    """A scalar `E(p)` of the posterior `p (L, V)` that is added to the free energy. `2.0 * one + another` is guidance
    too.

    **Arguments:**

    - `function`: `p (L, V)` to a scalar in nats, differentiable: a count, a distance, any Equinox classifier.
    - `weight`: its strength; negative for the opposite.
    - `name`: under which it appears among the terms; with a number, as `guidance 2`, where a term has that name.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    fewer = ed.energy.Guidance(lambda p: jnp.sum(p[:, 0]), name="as") + 2.0 * ed.energy.Guidance(
        lambda p: -jnp.sum(p[:, 1])
    )
    assert float(fewer(jnp.ones((3, 2)) / 2)) == 1.5 - 3.0
    ```
    """

    function: Callable[[Float[Array, "L V"]], Scalar]
    weight: Scalar
    name: str = eqx.field(static=True)

    def __init__(
        self, function: Callable[[Float[Array, "L V"]], Scalar], weight: Scalar | float = 1.0, name: str = "guidance"
    ):
        # an array, so that another strength is not another program
        self.function, self.weight, self.name = function, jnp.asarray(weight, jnp.result_type(float)), name

    def __call__(self, p: Float[Array, "L V"]) -> Scalar:
        """`weight * E(p)` in nats."""
        return self.weight * self.function(p)

    def on(self, energy: AbstractFreeEnergy) -> AbstractFreeEnergy:
        """The free energy with this added, for every motion and sampler.

        Guidance acts as evidence that depends on the posterior it makes: `b' = b - dE/dp` at `p = p(y, b')`, the
        mean-field equations of `F + E`, and `F' = F(y, b') + E(p) - <p, dE/dp>`. A relaxation lowers `F'`, and at rest
        `dF'/db = -p`. Where `E` is linear in `p` it is evidence, and exact.
        """
        if isinstance(energy, GuidedEnergy):  # one posterior meets all
            return GuidedEnergy(energy.base, (*energy.guidance, self))
        return GuidedEnergy(energy, (self,))

    def __rmul__(self, strength: Scalar | float) -> "Guidance":
        return Guidance(self.function, strength * self.weight, self.name)

    def __mul__(self, strength: Scalar | float) -> "Guidance":
        return strength * self

    def __add__(self, other: "Guidance") -> "Guidance":
        name = self.name if self.name == other.name else f"{self.name} + {other.name}"
        return Guidance(Both(self, other), 1.0, name)


class Both(eqx.Module):
    """The sum of two guidance terms."""

    one: Guidance
    two: Guidance

    def __call__(self, p: Float[Array, "L V"]) -> Scalar:
        """Their sum."""
        return self.one(p) + self.two(p)


class GuidedEnergy(AbstractWrapped):
    """A free energy with guidance added: `Guidance.on`."""

    base: AbstractFreeEnergy
    guidance: tuple[Guidance, ...]

    def __init__(self, base: AbstractFreeEnergy, guidance: tuple[Guidance, ...]):
        self.base, self.guidance = base, guidance

    def accepted(self, dfa: DFA) -> AbstractFreeEnergy:
        """Guidance of the accepted passages of the base."""
        return GuidedEnergy(dfa.on(self.base), self.guidance)

    def terms(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        spring: Float[Array, " L"] | None = None,
        mask: Bool[Array, " L"] | None = None,
    ) -> dict[str, Float[Array, " L"]]:
        """Those of the base under `b'`, and the guidance in equal parts."""
        pulled = self._pulled(y, b)
        p = self.base.posterior(y, pulled)
        here = jnp.ones(b.shape[0], bool) if mask is None else mask
        terms = self.base.terms(y, pulled, spring=spring, mask=mask)
        for guidance in self.guidance:
            cost, pull = jax.value_and_grad(guidance)(p)
            share = (cost - jnp.sum(p * pull)) / jnp.maximum(jnp.sum(here), 1)
            name, number = guidance.name, 1
            while name in terms:
                number += 1
                name = f"{guidance.name} {number}"
            terms = {**terms, name: jnp.where(here, share, 0.0)}
        return terms

    def force(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> Float[Array, "L D"]:
        """That of the base under `b'`."""
        return self.base.force(y, self._pulled(y, b), mask=mask)

    def forces(
        self, y: Float[Array, "L D"], b: Float[Array, "L V"], *, mask: Bool[Array, " L"] | None = None
    ) -> dict[str, Float[Array, "L D"]]:
        """That of the base under `b'`."""
        return self.base.forces(y, self._pulled(y, b), mask=mask)

    def logits(self, y: Float[Array, "L D"], b: Float[Array, "L V"]) -> Float[Array, "L V"]:
        """That of the base under `b'`."""
        return self.base.logits(y, self._pulled(y, b))

    def sample(
        self,
        y: Float[Array, "L D"],
        b: Float[Array, "L V"],
        *,
        tilt: Float[Array, "L V"] | float = 0.0,
        dfa: DFA | None = None,
        key: Key | None,
    ) -> Int[Array, " L"]:
        """That of the base under `b'`."""
        return self.base.sample(y, self._pulled(y, b), tilt=tilt, dfa=dfa, key=key)

    @eqx.filter_jit
    def _pulled(self, y, b):
        """`b'`: the root `u = dE/dp` at `p(y, b - u)`, with its derivative; `u` is `b - b'`."""
        look = lambda u: self.base.posterior(y, b - u)
        cost = lambda p: sum((guidance(p) for guidance in self.guidance), jnp.zeros((), p.dtype))
        residual = lambda u: (jax.grad(cost)(look(u)) - u).astype(b.dtype)
        found = lambda _, u: _self_consistent(look, residual, u)
        invert = lambda linear, right: bicgstab(linear, right, tol=float(jnp.finfo(b.dtype).eps) ** 0.6)[0]
        inverse = lambda linear, right: jax.lax.custom_linear_solve(linear, right, invert, invert)  # has a transpose
        return b - jax.lax.custom_root(residual, jnp.zeros_like(b), found, inverse)


def _self_consistent(look, residual, u):
    """A root of `residual`, a direction of descent: a step goes to where the residual along it vanishes, by the slopes
    at both ends, and is taken unless it goes much farther."""
    least = jnp.finfo(u.dtype).eps ** 0.6

    def go_on(state):
        number, u, _, r, _ = state
        return (number < STEPS) & (jnp.max(jnp.abs(r)) > least * (1.0 + jnp.max(jnp.abs(u))))

    def step(state):
        number, u, p, r, size = state
        ahead = u + size * r
        q, t = look(ahead), residual(ahead)
        # `E - Λ` at fixed `y` falls by the covariance of the tokens times the residual; `p - q` is that times the step
        slope, there = jnp.sum((p - q) * r), jnp.sum((p - q) * t)
        kept = there >= -0.5 * slope
        grown = jnp.where(kept, 4.0, 0.1)
        grown = jnp.where(slope > there, jnp.clip(slope / (slope - there), 0.1, 4.0), grown)
        size = jnp.minimum(size * grown, 1.0).astype(size.dtype)
        u, p, r = jax.tree.map(lambda new, old: jnp.where(kept, new, old), (ahead, q, t), (u, p, r))
        return number + 1, u, p, r, size

    return jax.lax.while_loop(go_on, step, (0, u, look(u), residual(u), jnp.ones((), u.dtype)))[1]
