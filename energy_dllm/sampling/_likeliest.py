"""More computing, better text: of several passages the likeliest, by one evaluation of the energy each."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Integer

from .._checks import on_device
from .._model import EnergyDLLM
from ..energy import FreeEnergy
from ..flow import Given
from ._motion import Generation


def likeliest(model: EnergyDLLM, made: Generation, *, of: int) -> Generation:
    """Of every `of` passages the one of the highest `FreeEnergy.log_likelihood`, one evaluation of the energy each.

    Texts that end at a `stop` are compared by `log P` of the text divided by its tokens: what was drawn behind the stop
    does not count.

    For a model that also reads in blocks of one (`EnergyDLLM(blocks=(0, 1))`) that is the chain rule, exact. For any
    other deep energy it is an estimate, and ranks passages well only after training with
    `learn.Denoising(likelihood=)`.

    **Arguments:**

    - `model`: that wrote them.
    - `made`: of `generate` or `infill`, with `N` passages.
    - `of`: how many passages each is chosen from; a divisor of `N`.

    **Returns:** a `Generation` of `N / of` passages, whose `force_evaluations` are those of all.

    **Raises:** `ValueError` if `of` does not divide the number of passages, or the energy has no likelihood in one
    evaluation (`FreeEnergy.one_shot`).

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    made = ed.generate(model, length=12, samples=8, sampler=ed.sampling.descent(6))
    best = ed.sampling.likeliest(model, made, of=4)
    assert len(best.texts) == 2 and best.texts[0] in made.texts[:4] and best.force_evaluations[0] == 4 * 6
    ```
    """
    count = len(made.texts)
    if of < 1 or count % of:
        raise ValueError(f"`of` is {of} and there are {count} passages; expected a divisor, such as {count}.")
    energy = model.energy
    if not isinstance(energy, FreeEnergy) or not energy.one_shot:
        raise ValueError(
            "`model` has an energy without a likelihood in one evaluation; expected a deep one, `EnergyDLLM(depth=2)`."
        )
    energy = energy.in_blocks(1) if 1 in model.blocks else energy
    here = np.arange(made.ids.shape[1]) < _ends(model, made)[:, None]
    log_p = np.asarray(_log_likelihoods(energy, on_device(made.ids), on_device(here))) / here.sum(-1)
    groups = np.arange(count).reshape(-1, of)
    kept = groups[np.arange(len(groups)), log_p[groups].argmax(-1)]
    rows = lambda value: value[kept]
    changes = {name: rows(getattr(made, name)) for name in ("ids", "confidence", "known", "free_energy", "frames")}
    changes |= {name: rows(getattr(made, name)) for name in ("entropy", "accepted", "rejected")}
    return dataclasses.replace(
        made,
        **changes,
        texts=[made.texts[n] for n in kept],
        terms={name: rows(term) for name, term in made.terms.items()},
        force_evaluations=made.force_evaluations[groups].sum(-1),
        pictures=rows(made.pictures) if len(made.pictures) else made.pictures,
    )


def _ends(model: EnergyDLLM, made: Generation) -> Integer[np.ndarray, " N"]:
    """Tokens of each text: all of the passage, or those up to its `stop`."""
    decode, length = model.tokenizer.decode, made.ids.shape[1]
    whole = lambda ids, text: model.tokenizer.places or decode(ids) == text
    upto = lambda ids, text: next((n for n in range(1, length) if decode(ids[:n]) == text), length)
    return np.array([length if whole(*each) else upto(*each) for each in zip(made.ids, made.texts, strict=True)])


@eqx.filter_jit
def _log_likelihoods(energy, ids, here):
    """`log P` of the tokens that are `here`, at the beginning of each passage; nothing is known of the others."""

    def one(ids, here):
        if energy.block == 1:
            return jnp.sum(energy.in_order(ids), where=here)
        known, y = Given(ids, here).field(energy.vocabulary.codes), energy.neutral(ids.shape[0])
        return energy(y, jnp.zeros_like(known)) - energy(y, known)

    return jax.vmap(one)(ids, here)
