"""Passages of any length, window after window, each conditional on the text before it."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Integer

from .._checks import expected, on_device, seeded
from .._model import EnergyDLLM
from ..energy import DFA, AbstractFreeEnergy, Guidance
from ..flow import AbstractEvidence, Conditioning, Given, Likelihood, Matching
from ._blockwise import Blocks
from ._motion import Generation, Moments, finite, follow, pictures_of
from ._sampler import AbstractSampler
from ._template import typed
from ._validate import WINDOW, ahead, conditioning_on, field, room


def write(
    model: EnergyDLLM,
    given: Given,
    opening: AbstractEvidence | None = None,
    *,
    sampler: AbstractSampler,
    evidence: AbstractEvidence | None,
    guidance: Guidance | None,
    window: int | None,
    stop: str,
    samples: int,
    frames: int,
    seed: int,
    watch: Callable[[Generation], object] | None,
    mesh: Mesh | None = None,
) -> Generation:
    expected(
        sampler=(sampler, AbstractSampler, "sampling.descent(25)"),
        guidance=(guidance, Guidance, "energy.Guidance(lambda p: p[0, 0])"),
    )
    room(given.length, samples, frames, window)
    seeded(seed)
    split = _split(mesh, samples)
    conditioning, matching = conditioning_on(model, given, evidence, opening)
    end = _ending(model, stop, conditioning) if stop != "" else -1
    energy = model.energy if guidance is None else guidance.on(model.energy)
    # a window in which everything is given is skipped
    # blocks keep what is before them: a passage of any length is one window
    spans = [(0, conditioning.length)] if isinstance(sampler, Blocks) else _spans(conditioning.length, window)
    spans = [span for span in spans if not np.asarray(given.known)[slice(*span)].all()] or spans[-1:]
    # of several windows a power of two each, so that few numbers of windows are other programs
    each = frames if len(spans) == 1 or not frames else 2 ** (max(1, frames // len(spans)).bit_length() - 1)
    blocks = _Blocks(model, sampler, energy, conditioning, matching, spans, samples, each, seed, watch, end, split)
    return blocks.all()


def _split(mesh: Mesh | None, samples: int) -> NamedSharding | None:
    """The first axis over all devices; `ValueError` unless they divide it."""
    if mesh is None:
        return None
    if samples % mesh.size:
        raise ValueError(f"`samples` is {samples} and `mesh` has {mesh.size} devices; expected a multiple of these.")
    free = Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names))
    return NamedSharding(free, PartitionSpec(mesh.axis_names))


def _ending(model: EnergyDLLM, stop: str, conditioning: Conditioning) -> int:
    """The token that ends a text; `ValueError` if it is not one, or if text is given after it."""
    token = typed(model, stop, False, "stop").ids
    if token.size != 1:
        raise ValueError(f"`stop` is {stop!r}, {token.size} tokens; expected one, such as '.' or a newline.")
    if conditioning.given.known[-1] or conditioning.dfa is not None:
        what = (
            "the text given at the end"
            if conditioning.given.known[-1]
            else "the pattern, which is about all of the passage"
        )
        raise ValueError(f"`stop` would cut off {what}; leave out one of them.")
    return int(token[0])


@functools.partial(jax.jit, static_argnums=(2,))
def _keys(seed: Integer[Array, ""] | np.uint32, window: Int[Array, ""] | int, samples: int) -> Array:
    """Two keys for every sample, the same however many there are."""
    key = jax.random.key(seed)
    key = jax.lax.cond(window > 0, lambda: jax.random.fold_in(jax.random.fold_in(key, 2**31 - 1), window), lambda: key)
    return jax.vmap(lambda n: jax.random.split(jax.random.fold_in(key, n)))(jnp.arange(samples))


def _spans(length: int, window: int | None) -> list[tuple[int, int]]:
    """Starts and ends of the windows: the first is all new, the others in their second half at most, alike."""
    if length <= (2 * WINDOW if window is None else window):
        return [(0, length)]
    window = WINDOW if window is None else window
    more = math.ceil((length - window) / max(1, window // 2))
    ends = [window + (length - window) * n // more for n in range(more + 1)]
    return [(end - window, end) for end in ends]


class _Blocks:
    """All windows of all samples, and what is recorded of them so far."""

    def __init__(
        self,
        model,
        sampler,
        energy: AbstractFreeEnergy,
        conditioning: Conditioning,
        matching: Matching | None,
        spans,
        samples,
        frames,
        seed,
        watch,
        stop,
        split: NamedSharding | None,
    ):
        self.model, self.sampler, self.energy, self.conditioning = model, sampler, energy, conditioning
        self.spans, self.frames, self.seed, self.watch = spans, frames, seed, watch
        self.done, self.stop, self.split = 0, stop, split
        self.fixed, self.known = np.array(conditioning.given.known), np.array(conditioning.given.known)
        self.ids = np.tile(np.asarray(conditioning.given.ids), (samples, 1))
        self.b = None if conditioning.others is None else field(model, conditioning.others)
        self.confidence = np.full(self.ids.shape, np.nan)
        # the state of the automaton before every token
        self.states = np.zeros((samples, conditioning.length + 1), np.int32)
        # a window that is the whole passage needs nothing of an empty one, and nothing follows it
        self.blank, self.ahead = (0, 0.0), None
        self.whole = spans == [(0, conditioning.length)]
        if not self.whole:
            log_p = _blank(model, spans[0][1] - spans[0][0])
            self.blank = int(log_p.argmax()), -float(np.sum(np.exp(log_p) * log_p))
            if matching is not None:
                plain = Conditioning(conditioning.given, conditioning.others)
                self.ahead = ahead(matching, field(model, plain) + log_p)
        self.past: list[tuple[tuple[int, int], Integer[np.ndarray, "N L"], Bool[np.ndarray, " L"], Moments]] = []

    def all(self) -> Generation:
        samples = len(self.ids)
        for number, (begin, end) in enumerate(self.spans):
            here = slice(begin, end)
            keys = _keys(np.uint32(self.seed), number, samples)
            # skipped windows were all given
            self._advance(self.done, begin)
            given = Given(on_device(self.ids[0, here]), on_device(self.known[here]))
            conditioning = Conditioning(given, self._others(begin, end), self._language(end))
            # the state of every sample before this window
            before = self.ids.copy(), self.known.copy()
            observe_moments = None
            if self.watch is not None:
                observe_moments = lambda so_far, s=(begin, end), b=before: self.watch(
                    self._sum([*self.past, (s, *b, so_far)])
                )
            moments = follow(
                self.sampler,
                self.model,
                self.energy,
                conditioning,
                self.ids[:, here],
                self.states[:, begin],
                keys,
                self.frames,
                observe_moments,
                self.split,
            )
            self.past.append(((begin, end), *before, moments))
            self.ids[:, here] = moments.recorded["ids"][:, -1].astype(self.ids.dtype)
            self.confidence = self._confidence(here, moments)
            self.known[here] = True
            self._advance(begin, end)
            self.done = end
            if (self._ends(self.ids[:, :end]) <= end).all():
                break
        made = self._sum(self.past, self._ends(self.ids))
        early = "; every text has ended" if self.done < self.conditioning.length else ""
        return dataclasses.replace(made, reason=made.reason + early)

    def _ends(self, ids: Integer[np.ndarray, "N L"]) -> Integer[np.ndarray, " N"]:
        """Length of each text up to the first generated token that ends it; longer than the passage without one."""
        written = ids.shape[1]
        found = (ids == self.stop) & ~self.fixed[:written]
        return np.where(found.any(axis=1), found.argmax(axis=1) + 1, written + 1)

    def _confidence(self, here: slice, moments: Moments) -> Float[np.ndarray, "N L"]:
        """With that of a window, where there is none yet."""
        confidence = self.confidence.copy()
        part = confidence[:, here]
        confidence[:, here] = np.where(np.isnan(part), moments.recorded["confidence"][:, -1], part)
        return confidence

    def _others(self, begin: int, end: int) -> AbstractEvidence | None:
        if self.whole:
            return self.conditioning.others
        return None if self.b is None else Likelihood(on_device(self.b[begin:end]))

    def _language(self, end: int) -> DFA | None:
        """The automaton of a window, after which the rest, of independent tokens, is accepted as often as it is."""
        dfa = self.conditioning.dfa
        return dfa if dfa is None or self.ahead is None else dfa.begins(self.ahead[end])

    def _advance(self, begin: int, end: int) -> None:
        """Advance the automaton over a generated window."""
        if self.conditioning.dfa is not None:
            table = np.asarray(self.conditioning.dfa.next)
            for i in range(begin, end):
                self.states[:, i + 1] = table[self.states[:, i], self.ids[:, i]]

    def _sum(self, past, ends: Integer[np.ndarray, " N"] | None = None) -> Generation:
        """The passages so far, up to their ends, with every moment of every window."""
        samples, length = self.ids.shape
        ends = np.full(samples, length) if ends is None else ends
        known, frames, entropy = [], [], []
        for (begin, end), ids, fixed_before, moments in past:
            read = moments.recorded
            count = read["ids"].shape[1]
            whole = np.where(fixed_before, ids, self.blank[0])[:, None].repeat(count, axis=1)
            entropies = np.tile(np.where(fixed_before, 0.0, self.blank[1]), (samples, count, 1))
            whole[:, :, begin:end], entropies[:, :, begin:end] = read["ids"].astype(int), read["entropy"]
            frames.append(whole)
            entropy.append(entropies)
            outside = fixed_before.sum() - fixed_before[begin:end].sum()
            known.append((read["known"] * (end - begin) + outside) / length)
        names = past[0][3].recorded["terms"]
        terms = {name: np.concatenate([m.recorded["terms"][name] for *_, m in past], axis=1) for name in names}
        frames = np.concatenate(frames, axis=1)
        confidence = self._confidence(slice(*past[-1][0]), past[-1][3])
        ids = frames[:, -1]
        # without a record nothing is known of the energy, and of the moments only the last, which is the text
        moments = slice(None) if self.frames else slice(0)
        free_energy = np.sum(list(terms.values()), axis=0) if self.frames else np.zeros((samples, 0))
        last = free_energy[:, -1] if self.frames else past[-1][3].recorded["confidence"][:, -1]
        finite(last, "use more steps, or smaller ones")
        # equal passages are decoded once
        texts: dict[bytes, str] = {}
        for row, end in zip(ids, ends, strict=True):
            if (passage := row.tobytes()) not in texts:
                texts[passage] = self.model.tokenizer.decode(row[:end])
        return Generation(
            texts=[texts[row.tobytes()] for row in ids],
            ids=ids,
            # given tokens are certain
            confidence=np.nan_to_num(confidence, nan=1.0),
            times=np.concatenate([m.clock for *_, m in past])[moments],
            sigma=np.concatenate([m.sigma for *_, m in past])[moments],
            known=np.concatenate(known, axis=1)[:, moments],
            free_energy=free_energy,
            terms=terms,
            frames=frames[:, moments],
            entropy=np.concatenate(entropy, axis=1)[:, moments],
            force_evaluations=np.sum([m.forces for *_, m in past], axis=0),
            accepted=np.sum([m.accepted for *_, m in past], axis=0),
            rejected=np.sum([m.rejected for *_, m in past], axis=0),
            reason="; ".join(dict.fromkeys(reason for *_, m in past for reason in m.reasons)),
            seed=self.seed,
            pictures=pictures_of(self.model, ids),
        )


def _blank(model: EnergyDLLM, length: int) -> Float[np.ndarray, " V"]:
    """`log p` of the tokens of a fully masked window."""
    b = jnp.zeros((length, model.size), model.energy.vocabulary.codes.dtype)
    return np.asarray(jax.nn.log_softmax(model.energy.logits(model.energy.neutral(length), b), axis=-1))[0]
