"""`generate` and `infill`: two kinds of evidence, one sampler."""

from collections.abc import Callable, Sequence

from jax.sharding import Mesh

from .._checks import expected
from .._model import EnergyDLLM
from ..energy import Guidance
from ..flow import AbstractEvidence
from ._blocks import write
from ._motion import FRAMES, Generation, default_sampler
from ._sampler import AbstractSampler
from ._template import before_hole, captioned, given_of, hole, of_template, typed
from ._validate import room


def generate(
    model: EnergyDLLM,
    *,
    length: int | None = None,
    prompt: str = "",
    suffix: str = "",
    samples: int = 1,
    sampler: AbstractSampler | None = None,
    evidence: AbstractEvidence | None = None,
    guidance: Guidance | None = None,
    window: int | None = None,
    stop: str = "",
    mask_unknown: bool = False,
    frames: int = FRAMES,
    seed: int = 0,
    watch: Callable[[Generation], object] | None = None,
    mesh: Mesh | None = None,
) -> Generation:
    """Sample passages under the evidence of a prompt, by the descent of one free energy from noise to text.

    Main arguments:

    - `length`: tokens of a passage `L`, prompt and suffix included; default 64. Pictures have one length.
    - `prompt`, `suffix`: how the passage begins and ends; kept exactly. Of byte pairs a space at the end of a prompt is
      left to the token behind it, which begins with one. Of pictures the prompt is the caption.
    - `samples`: passages `N`, drawn independently; number `n` is the same however many there are.
    - `sampler`: with its budget and its temperature: `sampling.descent(25)`, the default, in which a passage moves from
      noise to text by `flow.AutonomousDescent` (of pictures `sampling.default_sampler(model)`, with their own noise);
      `sampling.Diffusion(steps=24)`, any other flow through noise; `sampling.Unmasking(rounds=24)`, which draws tokens
      that become evidence; `sampling.Blocks(size=1)`, from left to right with keys and values kept.
    - `seed`: of all randomness.

    Other arguments:

    - `evidence`: what else is known of the `L` tokens, any evidence of the room `flow`, added up: `flow.Allowed`,
      `flow.Likelihood`, `flow.Matching` for a regular expression or words to avoid.
    - `guidance`: an energy that is added, any differentiable scalar of the posterior: `3.0 * energy.Guidance(...)`.
      It applies to each window of a longer passage.
    - `window`: tokens that are sampled at once. A longer passage is sampled block by block, half of each window being
      the text before it, as given. Default: all at once up to 128 tokens, windows of 64 beyond.
    - `stop`: a token, such as `"."`: `texts` end with the first one that is drawn. The distribution of the text up to
      there is not changed; blocks after it are not sampled.
    - `mask_unknown`: whether characters of `prompt` and `suffix` outside the alphabet are masked, and so drawn like all
      unknown tokens; by default they are an error.
    - `frames`: at most so many moments (32 by default) are recorded after the start, the end among them; with 0 none,
      which saves the energies of the record: from left to right a third of the time.
    - `watch`: called after every recorded moment with the `Generation` so far. It does not change the result, except
      that a `controller` starts anew at every moment.
    - `mesh`: devices that the passages are split over; every one has all parameters.

    **Returns:** a `Generation`.

    **Raises:** `ValueError` for a model, sampler or guidance that is none, sizes that are not positive, `samples` that
    the devices of `mesh` do not divide, a prompt and suffix that leave no token to write or have characters unknown to
    the model, evidence that contradicts other evidence (both are named), a `stop` that is not one token or would cut
    off given text or a pattern, or a field that does not move `x`; `FloatingPointError` if the motion diverges.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    written = ed.generate(model, length=12, prompt="cab", sampler=ed.sampling.Unmasking(rounds=4))
    assert written.texts[0].startswith("cab") and written.free_energy.shape == (1, 5)
    ```
    """
    expected(model=(model, EnergyDLLM, 'load("shakespeare")'))
    if model.tokenizer.places:
        if suffix or stop or window or length not in (None, model.tokenizer.places):
            raise ValueError(
                f"`suffix`, `stop`, `window` and `length` are of text; `model` makes pictures of "
                f"{model.tokenizer.places} tokens: leave them out."
            )
        length = window = model.tokenizer.places
    length = 64 if length is None else length
    room(length, samples, frames, window)
    begin = (captioned if model.tokenizer.places else typed)(model, prompt, mask_unknown, "prompt")
    begin, end = before_hole(model, begin), typed(model, suffix, mask_unknown, "suffix")
    fixed = begin.ids.size + end.ids.size
    if fixed >= length:
        both = "`prompt`" if not suffix else "`suffix`" if not prompt else "`prompt` and `suffix`"
        have, leave = ("has", "leaves") if " and " not in both else ("have", "leave")
        raise ValueError(
            f"{both} {have} {fixed} tokens and `length` is {length}; expected what {leave} at "
            f"least one token to write, so make `length` at least {fixed + 1}."
        )
    given, opening = given_of(model, begin, hole(length - fixed), end)
    return write(
        model,
        given,
        opening,
        sampler=default_sampler(model) if sampler is None else sampler,
        evidence=evidence,
        guidance=guidance,
        window=window,
        stop=stop,
        samples=samples,
        frames=frames,
        seed=seed,
        watch=watch,
        mesh=mesh,
    )


def infill(
    model: EnergyDLLM,
    template: str,
    *,
    length: int | Sequence[int] | None = None,
    samples: int = 1,
    sampler: AbstractSampler | None = None,
    evidence: AbstractEvidence | None = None,
    guidance: Guidance | None = None,
    window: int | None = None,
    stop: str = "",
    mask_unknown: bool = False,
    frames: int = FRAMES,
    seed: int = 0,
    watch: Callable[[Generation], object] | None = None,
    mesh: Mesh | None = None,
) -> Generation:
    """Fill the holes of a text, conditional on the text before and after them.

    **Arguments:**

    - `template`: the text, with holes such as `[8]`, eight tokens wide (characters, for most models). `[*]` is a hole
      whose width is not known, one at most. A bracket that is meant as such is written `[[`. Of byte pairs a space
      before a hole is left to its first token, which begins with one: `"a [1] dog"` is for a word.
    - `length`: tokens of a passage with `[*]` in it, which takes the room that is left; 64 by default. Of several
      lengths the one is taken under which the given tokens are likeliest: `F` at rest less that of a masked passage is
      least.
    - all others: as in `generate`; evidence is about all tokens, those outside of the holes too.

    **Returns:** a `Generation`, in which everything outside of the holes is kept exactly.

    **Raises:** as `generate`, and `ValueError` for a hole that is malformed, a template without any or with two of
    unknown width, a `length` that leaves no room, or several where one side of the hole has no text.

    **Example:**

    ```python
    import jax, energy_dllm as ed

    model = ed.EnergyDLLM(ed.data.Characters("abc "), dim=16, key=jax.random.key(0))
    text = ed.infill(model, "abc [3] cab", sampler=ed.sampling.Unmasking(rounds=3)).texts[0]
    assert text[:4] == "abc " and text[7:] == " cab"
    ```
    """
    expected(model=(model, EnergyDLLM, 'load("shakespeare")'))
    if model.tokenizer.places:
        raise ValueError(
            "`model` makes pictures, which have no template; use `sampling.inpaint(model, picture, hole)`."
        )
    given, opening = of_template(model, template, length, mask_unknown)
    return write(
        model,
        given,
        opening,
        sampler=default_sampler(model) if sampler is None else sampler,
        evidence=evidence,
        guidance=guidance,
        window=window,
        stop=stop,
        samples=samples,
        frames=frames,
        seed=seed,
        watch=watch,
        mesh=mesh,
    )
