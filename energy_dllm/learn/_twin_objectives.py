"""Objectives of one pass: masked diffusion and the next token for the twins, the text for a vocabulary."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from .._model import EnergyDLLM
from .._types import Key, Scalar
from ._cross_entropy import cross_entropy, first_parameter, mask
from ._objective import AbstractObjective


class AbstractOnePass(AbstractObjective):
    """An objective without a relaxation."""

    def diagnose(self, model: Any, ids: Int[Array, "B L"], key: Key, progress: Scalar) -> str:
        """The parameter that stopped being finite first."""
        return first_parameter(model)


class Masking(AbstractOnePass):
    """Cross-entropy of masked tokens at a uniformly drawn rate, for the masked twins: from the same key the same masks
    as `Denoising`."""

    def __call__(self, model: Any, ids: Int[Array, "B L"], key: Key, progress: Scalar) -> Scalar:
        """Cross-entropy of the masked tokens, each of `n` in a window by the weight `1/sqrt(n)`, nats per token."""
        hidden, _ = mask(ids, jax.random.fold_in(key, 0))
        return cross_entropy(jax.vmap(model.log_posterior)(ids, ~hidden), ids, hidden)


class NextToken(AbstractOnePass):
    """Cross-entropy of every token given those before it, for the autoregressive twin."""

    def __call__(self, model: Any, ids: Int[Array, "B L"], key: Key, progress: Scalar) -> Scalar:
        """Mean cross-entropy over all tokens, nats per token."""
        everything = jnp.ones(ids.shape, bool)
        return cross_entropy(jax.vmap(model.log_posterior)(ids, everything), ids, everything)


class MaximumLikelihood(AbstractOnePass):
    """The negative log-likelihood of a text under the vocabulary alone, `-log P(w_1 .. w_L) / L`: exact and cheap.

    Pretraining of an `HMMVocabulary`; neurons and synapses stay as they are.

    **Example:**

    ```python
    import jax, jax.numpy as jnp, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("ab "), dim=16, key=jax.random.key(0))
    assert ed.learn.MaximumLikelihood()(model, jnp.zeros((4, 8), int), jax.random.key(1), jnp.array(1.0)) > 0
    ```
    """

    def __call__(self, model: EnergyDLLM, ids: Int[Array, "B L"], key: Key, progress: Scalar) -> Scalar:
        """Mean over the tokens, nats."""
        return jnp.mean(jax.vmap(model.energy.vocabulary.nll)(ids))
