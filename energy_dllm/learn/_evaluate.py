"""`evaluate`: a bound in bits per character, and cross-entropy against relaxation time, noise and step size."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer

from .._checks import seeded
from .._model import EnergyDLLM
from ..data import AbstractTokenizer, Windows
from ..energy import FreeEnergy
from ..flow import Gaussian, Given, relax
from ._cost import costs
from ._cross_entropy import asked_in_block, block_of, mask_blocks, nll_of
from ._twins import AbstractTwin, Autoregressive


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured, on `characters` characters of held-out text.

    - `masked_nelbo_bits_per_char` and its `standard_error` (over windows), bits: an upper bound of the negative
      log-likelihood per character under random-order unmasking. For the autoregressive twin the exact value.
    - `left_to_right_bits_per_char`, `certain_first_bits_per_char`: the negative log-likelihood itself, bits, of tokens
      read one at a time, each asked given those before it: an order that the text read so far decides is a chain rule.
      Of the first 64 windows; the bound on the very same windows is `bound_bits_per_char`.
    - `one_evaluation_bits_per_char`: minus `FreeEnergy.log_likelihood` of those windows, bits: what the energy of the
      text itself says, not normalised by construction. Its distance from the chain rule is an error of the energy.
    - `relaxation_curve`: pairs of relaxation time (time constants) and cross-entropy of masked tokens (nats), in blocks
      each given the text before, as for the bound.
    - `noise_curve`: pairs of `1/sigma` and cross-entropy of tokens under Gaussian noise (nats).
    - `step_curve`: pairs of the relaxation's step size and cross-entropy of masked tokens (nats), all at the default
      relaxation time: flat for a flow, rising for an unrolled network.
    - `costs`: by way in which the model writes, what each token of a passage takes: `evaluations`, `operations`
      (floating point, as the compiler counts them), `seconds`, `joules`, and whether these were `metered` by the
      processor (RAPL, of all its cores) or are 10 W of a busy core.
    """

    masked_nelbo_bits_per_char: float
    standard_error: float
    characters: int
    bound_bits_per_char: float
    left_to_right_bits_per_char: float | None
    certain_first_bits_per_char: float | None
    one_evaluation_bits_per_char: float | None
    relaxation_curve: list[tuple[float, float]]
    noise_curve: list[tuple[float, float]]
    step_curve: list[tuple[float, float]]
    costs: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return dataclasses.asdict(self)


def evaluate(
    model: EnergyDLLM | AbstractTwin,
    ids: Integer[np.ndarray, " N"],
    *,
    length: int | None = None,
    windows: int = 256,
    seed: int = 0,
    curves: bool = True,
    batch_size: int = 32,
    tokenizer: AbstractTokenizer | None = None,
    block: int | None = None,
    cost: bool = False,
) -> Evaluation:
    """Measure a model on held-out text.

    `NELBO = E_n [L/n sum_(i masked) -log p(token_i | known)]` with the number `n` of masked tokens uniform from 1 to
    `L`, stratified over windows, summed and divided by their characters, whatever the tokens; it does not depend on the
    noise schedule of masked diffusion, and is its `E_r [1/r sum]` over mask rates `r`, with a finite variance. In
    blocks it is the sum of the bounds of all blocks, each given the text before.

    **Arguments:**

    - `model`: an `EnergyDLLM` or a twin.
    - `ids`: held-out tokens `(N,)`.
    - `length`, `windows`: tokens of a window, by default 64 or a whole picture, and at most how many windows, spread
      over the text. Of pictures every token counts as a character.
    - `seed`: of windows and masks; equal seeds give every model the same windows and masks.
    - `curves`: also measure the likelihoods in a deterministic order, and of an energy model the curves and the
      likelihood by one evaluation; None and empty otherwise.
    - `batch_size`: windows computed at once.
    - `block`: read a deep energy in blocks of so many tokens, 0 for the whole window; by default the first of the
      model's `blocks`.
    - `cost`: also measure what it takes to write a passage of that `length`.
    - `tokenizer`: what the ids mean, by default that of the model; of a twin, that each is one character.

    **Returns:** an `Evaluation`.

    **Raises:** `ValueError` if the text is shorter than a window or a number is not positive.

    **Source:** Sahoo et al. 2024 (arXiv 2406.07524); Shi et al. 2024 (arXiv 2406.04329).

    **Example:**

    ```python
    import jax, energy_dllm as ed

    corpus = ed.data.grammar_corpus(characters=5000)
    model = ed.EnergyDLLM(corpus.tokenizer, dim=16, steps=2, key=jax.random.key(0))
    score = ed.evaluate(model, corpus.validation, length=16, windows=4, curves=False)
    assert score.masked_nelbo_bits_per_char > corpus.entropy
    ```
    """
    if windows < 2 or batch_size < 1:
        raise ValueError(f"`windows`={windows} must be at least 2 and `batch_size`={batch_size} positive.")
    seeded(seed)
    tokenizer = getattr(model, "tokenizer", None) if tokenizer is None else tokenizer
    places = 0 if tokenizer is None else tokenizer.places
    length = length or places or 64
    text = jnp.asarray(Windows.disjoint(ids, length, count=windows, seed=seed))
    *_, k3, k4 = jax.random.split(jax.random.key(seed), 4)
    count = text.shape[0]

    if block is None and isinstance(model, EnergyDLLM) and model.blocks[0] and not block_of(model.energy):
        block = model.blocks[0]
    if block is not None:
        if not isinstance(model, EnergyDLLM) or not isinstance(model.energy, FreeEnergy):
            raise ValueError(f"`block` is {block}; expected an energy model to read in blocks, or nothing.")
        model = eqx.tree_at(lambda model: model.energy, model, model.energy.in_blocks(block))
    block = block_of(model.energy) if isinstance(model, EnergyDLLM) else 0
    hidden = mask_blocks((count, length), block or length, k3)
    if isinstance(model, Autoregressive):
        hidden = jnp.ones_like(hidden)
    known, weight = ~hidden, asked_in_block(jnp.ones_like(hidden), block) / asked_in_block(hidden, block)
    ce = _each(_cross_entropy, model, (text, known), batch_size)
    bits = np.asarray(jnp.sum(jnp.where(known, 0.0, weight * ce), axis=-1) / math.log(2), float)
    characters = np.array(
        [length if tokenizer is None or places else tokenizer.characters(row) for row in np.asarray(text)]
    )
    mean = bits.sum() / max(1, characters.sum())
    # of a ratio: windows of several lengths in characters differ in both
    error = (bits - mean * characters).std(ddof=1) / max(1, characters.mean()) / math.sqrt(count)
    relaxation, noise, steps = [], [], []
    few, ordered, once = min(count, 64), [None, None], None
    some = float(max(1, characters[:few].sum()))
    if curves:
        nats = _each(_chain_rule, model, (text[:few],), batch_size)
        ordered = [float(total) / some / math.log(2) for total in jnp.sum(nats, axis=0)]
    if curves and isinstance(model, EnergyDLLM):
        masked = (text[:few], known[:few])
        if isinstance(model.energy, FreeEnergy) and model.energy.one_shot:
            once = -float(jnp.sum(_each(_one_evaluation, model, (text[:few],), batch_size))) / some / math.log(2)
        relaxation = _relaxation_curve(model, *masked, batch_size)
        noise = _noise_curve(model, text[:few], k4, batch_size)
        steps = _step_curve(model, *masked, batch_size)
    return Evaluation(
        masked_nelbo_bits_per_char=float(mean),
        standard_error=float(error),
        characters=int(characters.sum()),
        bound_bits_per_char=float(bits[:few].sum() / some),
        left_to_right_bits_per_char=ordered[0],
        certain_first_bits_per_char=ordered[1],
        one_evaluation_bits_per_char=once,
        relaxation_curve=relaxation,
        noise_curve=noise,
        step_curve=steps,
        costs=costs(model, length) if cost else {},
    )


def _true(log_posterior: Float[Array, "L V"], ids: Int[Array, " L"]) -> Float[Array, " L"]:
    return jnp.take_along_axis(log_posterior, ids[:, None], axis=-1)[:, 0]


@eqx.filter_jit
def _each(function, model, rows, batch_size, *settings):
    """`function(model, *row, *settings)` of every row; compiled once for every shape, not for every model."""
    number = rows[0].shape[0]
    batch = min(number, batch_size)
    # padded, so that no smaller batch is compiled as well
    fill = lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[-1:], -number % batch, axis=0)])
    every = jax.lax.map(lambda row: function(model, *row, *settings), jax.tree.map(fill, rows), batch_size=batch)
    return jax.tree.map(lambda leaf: leaf[:number], every)


def _beside(model, ids):
    """The model as it reads a window of which each block is given the true tokens before it."""
    energy = model.energy if isinstance(model, EnergyDLLM) else None
    if not isinstance(energy, FreeEnergy) or not energy.block:
        return model
    return eqx.tree_at(lambda model: model.energy, model, energy.side_by_side(ids, energy.block))


def _cross_entropy(model, ids, known):
    return -_true(_beside(model, ids).log_posterior(ids, known), ids)


def _chain_rule(model, ids):
    """Minus the log-likelihood of a window in nats, tokens read left to right, and most certain first `(2,)`."""
    size = ids.shape[0]
    block = (block_of(model.energy) if isinstance(model, EnergyDLLM) else 0) or size
    later = 1e3 * (jnp.arange(size) // block)  # a block is read before the next

    def ask(certain, state, place):
        known, nats = state
        log_p = model.log_posterior(ids, known)
        entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
        i = jnp.where(certain, jnp.argmin(jnp.where(known, jnp.inf, entropy + later)), place)
        return (known.at[i].set(True), nats - log_p[i, ids[i]]), None

    def nats(certain):
        start = jnp.zeros(size, bool), jnp.zeros(())
        return jax.lax.scan(lambda state, place: ask(certain, state, place), start, jnp.arange(size))[0][1]

    if isinstance(model, Autoregressive):  # it knows one order only
        log_p = model.log_posterior(ids, jnp.ones(size, bool))
        return jnp.full(2, -jnp.sum(_true(log_p, ids)))
    return jax.lax.map(nats, jnp.array([False, True]))


def _one_evaluation(model, ids):
    return model.energy.log_likelihood(ids)


def _masked_mean(ce: Float[Array, "N L"], known: Bool[Array, "N L"]) -> Float[Array, ""]:
    return jnp.sum(jnp.where(known, 0.0, ce)) / jnp.sum(~known)


def _marks(model):
    """Numbers of steps, from a quarter of the default to thirty times as many."""
    return sorted({max(1, round(f * model.steps)) for f in (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7, 10, 20, 30)})


def _relaxation_curve(model, text, known, batch_size):
    """CE of masked tokens at 0.25 .. 30 times the default relaxation, one trajectory: 10 times the training horizon."""
    marks = _marks(model)
    ce = _each(_relaxed, model, (text, known), batch_size, np.diff([0, *marks]), _exact(model, model.step))
    return [(mark * model.step, float(_masked_mean(ce[:, n], known))) for n, mark in enumerate(marks)]


def _relaxed(model, ids, known, pieces, step):
    """Cross-entropy after every piece of so many steps, one after the other."""
    model = _beside(model, ids)
    b = model.field(Given(ids, known))

    def advance(y, steps):
        y = relax(model.energy, y, b, steps=steps, step=step)
        return y, nll_of(model.energy.logits(y, b), ids)

    return jax.lax.scan(advance, model.energy.neutral(ids.shape[0]), pieces)[1]


def _exact(model, number):
    """As an array of the model's precision, so that another number does not compile another program."""
    return jnp.asarray(number, model.energy.vocabulary.codes.dtype)


def _noise_curve(model, text, key, batch_size):
    """CE of every token under Gaussian noise against `1/sigma`."""
    inverse = (0.3, 0.6, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
    keys = jax.random.split(key, text.shape[0])
    sigmas = 1.0 / jnp.asarray(inverse, model.energy.vocabulary.codes.dtype)
    ce = _each(_noised, model, (text, keys), batch_size, sigmas)
    return [(r, float(jnp.mean(ce[:, n]))) for n, r in enumerate(inverse)]


def _noised(model, ids, key, sigmas):
    codes = model.energy.vocabulary.codes
    noise = jax.random.normal(key, (ids.shape[0], codes.shape[1]), codes.dtype)

    def at(sigma):
        evidence = Gaussian(codes[ids] + sigma * noise, sigma)
        return nll_of(model.energy.logits(model.settle(evidence), model.field(evidence)), ids)

    return jax.lax.map(at, sigmas)


def _step_curve(model, text, known, batch_size):
    """CE of masked tokens at the default relaxation time, for steps ever smaller."""
    curve = []
    for finer in (1, 2, 4, 8):
        step = model.step / finer
        # no steps in all pieces but the first, so that the program of the relaxation curve is reused
        pieces = np.array([model.steps * finer] + [0] * (len(_marks(model)) - 1))
        ce = _each(_relaxed, model, (text, known), batch_size, pieces, _exact(model, step))
        curve.append((step, float(_masked_mean(ce[:, 0], known))))
    return curve
