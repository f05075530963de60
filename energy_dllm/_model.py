"""`EnergyDLLM`: tokenizer, landscape and noise schedule in one PyTree, one method per stage of the sentence
text -> evidence -> rest -> posterior -> text."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from ._checks import expected, finite, on_device, sizes
from ._types import Key
from .data import AbstractTokenizer
from .energy import (
    AbstractFreeEnergy,
    Attention,
    ConvolutionalMemory,
    DeepStack,
    FreeEnergy,
    HMMVocabulary,
    LayerNorm,
    MeanFieldVocabulary,
    Network,
    Pairwise,
    Silent,
    Vocabulary,
)
from .flow import AbstractEvidence, AbstractSchedule, Given, InformationUniform, relax


MOST_BYTES = 8e9
"""What the parameters of a model may take."""


class EnergyDLLM(eqx.Module):
    """A diffusion language model that is one explicit energy.

    By default `F = spring + 1/kappa [sum_i <y_i, g_i> - Λ_b(y) + E(g) - sum_i <a, g_i>]`, `g = grad Λ_b(y)`: the
    `MeanFieldVocabulary` under evidence, and the correlation energy `E` of a `DeepStack`. With `depth=1` it is one
    layer as in the literature, neurons of layer norm with pairwise, attention and memory synapses beside a hidden
    Markov model of the tokens.

    **Arguments:**

    - `tokenizer`: strings to ids and back.
    - `dim`: hidden width `D`, the one dial; the sizes below follow from it.
    - `depth`: untied blocks `N` of the energy; 1 for the one-layer energy transformer.
    - `heads`: of every attention, default `dim / 32`, or the next smaller divisor of `dim / 2`.
    - `memories`: stored pairs of every memory, default `2 dim`.
    - `reach`: neighbours on each side that the convolution reads, with `depth=1` the cues of the memory.
    - `blocks`: how a deep energy reads a passage: in blocks of so many tokens, of which a token reads its own and all
      before it, or (0, the default) as a whole. Of several, `(0, 4)`, `fit` trains all, one masked window after the
      other, and the first is the default. The parameters then know the passage as a whole, for infilling and the
      descent, and block by block, for `sampling.Blocks` and, with 1 among them, an exact likelihood in one evaluation.
    - `shift`: whether a deep energy compares a token with what is read at the one before it (`DeepStack`), so that
      reading from left to right costs one row of work a token in place of two; `blocks` are then 0 and 1.
    - `rotary`: whether queries and keys have rotary phases beside the relative bias.
    - `offsets`, `rank`, `head_dim`, `states`, `counts`: of `depth=1` only: neighbours of the pairwise synapse, rank of
      it and of the memory's cues (`dim / 8`), width of a head (16), states of the `HMMVocabulary` (`4 dim`; 0 for a
      `Vocabulary`), and how often each token was seen `(V,)`, for a share in the states.
    - `steps`, `step`: the default relaxation, number and size of its Euler steps in time constants; one full step of
      a deep energy, for which it is trained and after which masks are at rest.
    - `schedule`: noise levels; default equal steps of information for this vocabulary.
    - `energy`: a landscape of your own in place of the default one; `dim` to `reach`, `shift` and `rotary` are then not
      used.
    - `key`: random key.

    **Raises:** `ValueError` if a size is not positive, `states` is given at `depth > 1` or `shift` at `depth=1`, or
    `energy` has another vocabulary than `tokenizer`.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=32, key=jax.random.key(0))
    p = model.posterior(ed.flow.Masked(10))
    assert p.shape == (10, 4)
    ```
    """

    tokenizer: AbstractTokenizer = eqx.field(static=True)
    energy: AbstractFreeEnergy
    schedule: AbstractSchedule
    steps: int = eqx.field(static=True)
    step: float = eqx.field(static=True)
    blocks: tuple[int, ...] = eqx.field(static=True, default=(0,))

    def __init__(
        self,
        tokenizer: AbstractTokenizer,
        *,
        dim: int = 128,
        depth: int = 2,
        offsets: int = 2,
        rank: int | None = None,
        states: int | None = None,
        counts: Integer[np.ndarray, " V"] | None = None,
        heads: int | None = None,
        head_dim: int = 16,
        memories: int | None = None,
        reach: int = 4,
        rotary: bool = False,
        blocks: Sequence[int] = (0,),
        shift: bool = False,
        steps: int | None = None,
        step: float | None = None,
        schedule: AbstractSchedule | None = None,
        energy: AbstractFreeEnergy | None = None,
        key: Key,
    ):
        for name, value in (("dim", dim), ("depth", depth)):
            if value < 1:
                raise ValueError(f"`{name}`={value} must be positive.")
        if energy is None and depth > 1 and states:
            raise ValueError(f"`states`={states} at `depth`={depth}; a hidden Markov model goes with `depth=1` only.")
        deep = depth > 1 if energy is None else isinstance(energy, FreeEnergy) and energy.one_shot
        if shift and not deep:
            raise ValueError("`shift` is True at `depth=1`; one layer has no read-out to shift: leave one of them out.")
        expected(key=(key, (jax.Array, np.ndarray), "jax.random.key(0)"))
        given = dict(heads=heads, memories=memories, rank=rank)
        sizes(**{name: value for name, value in given.items() if value is not None})
        if energy is None:
            size, memories = tokenizer.size, 2 * dim if memories is None else memories
            states = (0 if deep else 4 * dim) if states is None else states
            need = 4 * (states * (states + size) + size * (dim + min(size, 512)) + dim * (memories + dim) * depth)
            if need > MOST_BYTES:
                raise ValueError(
                    f"`dim`={dim:,}, `depth`={depth:,}, `states`={states:,} and `memories`={memories:,} with a "
                    f"`tokenizer` of {size:,} tokens need {need / 1e9:,.0f} GB for the parameters alone; expected at "
                    f"most {MOST_BYTES / 1e9:.0f} GB, so make them smaller."
                )
            if deep:
                k1, k2 = jax.random.split(key)
                heads = heads or max(n for n in range(1, max(1, dim // 32) + 1) if dim // 2 % n == 0)
                shape = dict(depth=depth, heads=heads, memories=memories, convolution=reach)
                stack = DeepStack(dim, **shape, rotary=rotary, grids=tokenizer.grids, shift=shift, key=k1)
                network = Network(Silent(), {"blocks": stack}, jnp.zeros(dim))
                own: dict[str, Any] = {}
                if tokenizer.grids:  # patches of pictures have pixels for codes, and places of their own
                    patches: Any = tokenizer
                    codes = np.asarray(patches.codes, jnp.result_type(float))
                    own = {"codes": on_device(codes), "allowed": on_device(patches.allowed)}
                vocabulary = MeanFieldVocabulary(size, dim, **own, key=k2)
                energy = FreeEnergy(network, vocabulary, kappa=1.0)
            else:
                k1, k2, k3, k4 = jax.random.split(key, 4)
                rank = rank or max(1, dim // 8)
                heads = heads or max(1, dim // 32)
                synapses = {
                    "pairwise": Pairwise(dim, offsets=offsets, rank=rank, key=k1),
                    "attention": Attention(dim, heads=heads, head_dim=head_dim, rotary=rotary, key=k2),
                    "memory": ConvolutionalMemory(dim, memories=memories, reach=reach, rank=rank, key=k3),
                }
                network = Network(LayerNorm(epsilon=16.0), synapses, jnp.zeros(dim))
                make = partial(HMMVocabulary, states=states, counts=counts) if states else Vocabulary
                energy = FreeEnergy(network, make(size, dim, key=k4), kappa=dim / 16)
        self.tokenizer = tokenizer
        self.energy = energy
        self.schedule = InformationUniform.context_free(tokenizer.size) if schedule is None else schedule
        self.blocks = tuple(blocks)
        self.steps = (1 if deep else 12) if steps is None else steps
        self.step = (1.0 if deep else 0.6) if step is None else step

    def __check_init__(self):
        if not self.blocks or min(self.blocks) < 0:
            raise ValueError(f"`blocks` is {self.blocks}; expected tokens of a block each, or 0 for the whole passage.")
        if any(self.blocks):
            if not isinstance(self.energy, FreeEnergy):
                raise ValueError(f"`blocks` is {self.blocks}; expected a deep energy, `EnergyDLLM(depth=2)`.")
            self.energy.in_blocks(max(self.blocks))
        if self.steps < 1 or not 0 < self.step < np.inf:
            raise ValueError(f"`steps`={self.steps} and `step`={self.step} must be positive.")
        if self.energy.size != self.tokenizer.size:
            raise ValueError(
                f"`energy` has a vocabulary of {self.energy.size}, `tokenizer` of {self.tokenizer.size}; build both "
                "from one."
            )

    @property
    def size(self) -> int:
        """Vocabulary size `V`."""
        return self.energy.size

    def encode(self, text: str) -> Int[Array, " L"]:
        """Text to token ids `(L,)`; `ValueError` if a character is not in the alphabet."""
        return on_device(self.tokenizer.encode(text))

    def decode(self, ids: Integer[Array | np.ndarray, " L"]) -> str:
        """Token ids `(L,)` to text."""
        return self.tokenizer.decode(np.asarray(ids))

    def field(self, evidence: AbstractEvidence) -> Float[Array, "L V"]:
        """The evidence as log-likelihoods of this vocabulary, `b (L, V)`; `ValueError` if it is known to have a NaN."""
        if not isinstance(evidence, AbstractEvidence):
            raise ValueError(f"`evidence` is a {type(evidence).__name__}; expected one, such as `flow.Masked(64)`.")
        b = evidence.field(jax.lax.stop_gradient(self.energy.vocabulary.codes))
        if not finite(b):
            raise ValueError(
                f"`evidence`, a {type(evidence).__name__}, has a NaN or an infinity; expected finite numbers."
            )
        return b

    def settle(
        self, evidence: AbstractEvidence, *, steps: int | None = None, step: float | None = None
    ) -> Float[Array, "L D"]:
        """The hidden state `y (L, D)` after the default relaxation (or `steps` of `step`) from neutral."""
        b = self.field(evidence)
        y = self.energy.neutral(b.shape[0])
        return relax(
            self.energy, y, b, steps=self.steps if steps is None else steps, step=self.step if step is None else step
        )

    def terms(self, evidence: AbstractEvidence, y: Float[Array, "L D"]) -> dict[str, Float[Array, " L"]]:
        """Every term of `F` by name, token by token, at the hidden state `y`."""
        return self.energy.terms(y, self.field(evidence), spring=evidence.spring())

    def free_energy(self, evidence: AbstractEvidence, y: Float[Array, "L D"]) -> Float[Array, ""]:
        """`F(x, y; sigma)` in nats, the sum of `terms`."""
        return self.energy(y, self.field(evidence), spring=evidence.spring())

    def posterior(self, evidence: AbstractEvidence) -> Float[Array, "L V"]:
        """`p (L, V)` after the default relaxation."""
        return self.energy.posterior(self.settle(evidence), self.field(evidence))

    def denoised(self, evidence: AbstractEvidence) -> Float[Array, "L C"]:
        """`x_hat (L, C)` after the default relaxation."""
        return self.posterior(evidence) @ self.energy.vocabulary.codes

    def log_posterior(self, ids: Int[Array, " L"], known: Bool[Array, " L"]) -> Float[Array, "L V"]:
        """`log p(token_i = w | known tokens) (L, V)` at rest: after one full step where masks are at rest then
        (`FreeEnergy.one_shot`), else after the default relaxation."""
        evidence = Given(ids, known)
        once = isinstance(self.energy, FreeEnergy) and self.energy.one_shot
        y = self.settle(evidence, steps=1, step=1.0) if once else self.settle(evidence)
        return jax.nn.log_softmax(self.energy.logits(y, self.field(evidence)), axis=-1)
