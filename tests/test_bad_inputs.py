"""Bad input, of the library and of the command line: one sentence that names what was wrong, before any work."""

# pyright: reportArgumentType=false, reportOperatorIssue=false
import functools
import math
import time
import tracemalloc
from pathlib import Path

import diffrax
import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm import _files
from energy_dllm._cli import main
from energy_dllm._cli._corpus import built_in, corpus_of


ABC = ed.data.Characters("abc ")
NAN, INF = math.nan, math.inf
BIG = 10**13
NOTHING = ed.energy.DFA(jnp.array([[1, 2], [2, 2]]), jnp.array([False, True]))
EXACT = ed.energy.Empirical(np.array([[0, 1], [2, 3]]), size=4)


class Broken(ed.flow.Masked):
    """Evidence of one's own, with a fault in it."""

    def field(self, codes):
        return jnp.full((self.length, codes.shape[0]), jnp.nan)


@pytest.fixture(scope="module")
def model():
    return families.small_model("abc ", steps=2)


@pytest.fixture(scope="module")
def memory():
    return ed.TextMemory(["abc cab", "bbc"], tokenizer=ABC)


def quick(**options):
    return ed.sampling.Unmasking(**{"rounds": 2, "steps": 2, **options})


def write(model, **options):
    return ed.generate(model, **{"length": 8, "sampler": quick(), "frames": 1, **options})


def descend(state=(0.5, 0.5), **options):
    memory = ed.memory.GaussianMemory(jnp.eye(2), beta=2.0)
    return ed.solve(ed.memory.Descent(memory), jnp.asarray(state), **{"t0": 0.0, "t1": 1.0, **options})


def given(*ids):
    return ed.flow.Given(jnp.asarray(ids))


LIBRARY = {
    # ------------------------------------------------------------------------------------- evidence
    "an id outside": (lambda m, t: m.posterior(given(0, 9)), "`ids` has a token outside the vocabulary of 4"),
    "a negative id": (lambda m, t: m.posterior(given(0, -1)), "`ids` has a token outside the vocabulary of 4"),
    "ids of floats": (lambda m, t: given(0.5), "`ids` is float"),
    "an id outside, generating": (lambda m, t: write(m, length=2, evidence=given(0, 9)), "`ids` has a token outside"),
    "NaN likelihood": (lambda m, t: ed.flow.Likelihood(jnp.full((2, 4), jnp.nan)), "`b` must be finite"),
    "infinite likelihood": (lambda m, t: ed.flow.Likelihood(jnp.full((2, 4), -jnp.inf)), "`b` must be finite"),
    "NaN evidence of one's own": (lambda m, t: m.posterior(Broken(2)), "`evidence`, a Broken, has a NaN"),
    "NaN evidence, generating": (lambda m, t: write(m, evidence=Broken(8)), "`evidence`, a Broken, has a NaN"),
    "NaN observation": (lambda m, t: ed.flow.Gaussian(jnp.full((2, 4), jnp.nan), 0.5), "`x` has a NaN"),
    "NaN noise": (lambda m, t: ed.flow.Gaussian(jnp.zeros((2, 4)), NAN), "`sigma` must be positive"),
    "nothing allowed": (lambda m, t: ed.flow.Allowed(jnp.zeros((2, 4), bool)), "`sets` allows no token"),
    "everything forbidden": (lambda m, t: m.posterior(given(0, 1) + given(0, 2)), "contradict each other at token 1"),
    "everything forbidden, generating": (
        lambda m, t: write(m, length=2, evidence=given(0, 1) + given(0, 2)),
        "contradict each other at token 1",
    ),
    "evidence of another length": (lambda m, t: write(m, evidence=ed.flow.Masked(9)), "is about 9 tokens"),
    "evidence that is none": (lambda m, t: m.posterior(None), "`evidence` is a NoneType"),
    "evidence that is a text": (lambda m, t: write(m, evidence="ab"), "`evidence` is a str"),
    "a rate of NaN": (lambda m, t: ed.flow.Typo(jnp.zeros(2, int), NAN), "`rate` is nan"),
    "a length of 0": (lambda m, t: ed.flow.Masked(0), "`length` is 0"),
    "half a mask": (lambda m, t: ed.flow.Given(jnp.zeros(2, int), jnp.array([0.5, 1.0])), "`known` is float"),
    "a mask of counts": (lambda m, t: m.log_posterior(jnp.zeros(2, int), jnp.array([2, 0])), "`known` is int"),
    "a mask of counts in a list": (lambda m, t: ed.flow.Typo(jnp.zeros(2, int), 0.1, [2, 0]), "`known` is int"),
    "ids for sets": (lambda m, t: ed.flow.Allowed(jnp.array([[2, 3]])), "`sets` is int"),
    "sets of one row": (lambda m, t: ed.flow.Allowed([True, False]), "`sets` has shape (2,)"),
    "likelihoods of one row": (lambda m, t: ed.flow.Likelihood([0.0, 1.0]), "`b` has shape (2,)"),
    "half a token of nothing": (lambda m, t: ed.flow.Masked(2.5), "`length` is 2.5"),
    "a length in letters": (lambda m, t: ed.flow.Masked("a"), "`length` is a; expected a positive integer"),
    "evidence and none": (lambda m, t: ed.flow.Masked(3) + None, "`evidence` is a NoneType"),
    "a certain rate of numpy": (lambda m, t: ed.flow.Typo(jnp.zeros(2, int), np.float32(1.0)), "`rate` is 1.0"),
    "a rate in words": (lambda m, t: ed.flow.Typo(jnp.zeros(2, int), "a"), "`rate` is 'a'"),
    "a temperature of 0": (lambda m, t: ed.flow.Gaussian(jnp.eye(4), 1.0, temperature=jnp.zeros(())), "`temperature`"),
    "patterns of two lengths": (
        lambda m, t: ed.flow.Matching("a*", ABC, length=3) & ed.flow.Matching("a*", ABC, length=4),
        "`length` is 3 of one and 4 of the other",
    ),
    # ---------------------------------------------------------------------------------------- solve
    "a state of NaN": (lambda m, t: descend((NAN, 0.0)), "`state` has a NaN"),
    "an infinite state": (lambda m, t: descend((INF, 0.0)), "`state` has a NaN or an infinity"),
    "a solver by name": (lambda m, t: descend(solver="tsit5"), "`solver` is 'tsit5'; expected an object such as"),
    "a solver's class": (lambda m, t: descend(solver=diffrax.Tsit5), "`solver` is <class"),
    "a controller by name": (lambda m, t: descend(controller="pid"), "`controller` is 'pid'"),
    "an adjoint by name": (lambda m, t: descend(adjoint="forward"), "`adjoint` is 'forward'"),
    "a stop by name": (lambda m, t: descend(stop="rest"), "`stop` is 'rest'"),
    "time that runs backwards": (lambda m, t: descend(t1=-1.0), "`t1`=-1.0 is not after `t0`=0.0"),
    "no time": (lambda m, t: descend(t1=0.0), "`t1`=0.0 is not after"),
    "time of NaN": (lambda m, t: descend(t1=NAN), "`t1`=nan is not after"),
    "a negative step": (lambda m, t: descend(step=-0.1), "`step` is -0.1"),
    "a step of NaN": (lambda m, t: descend(step=NAN), "`step` is nan"),
    "no steps": (lambda m, t: descend(max_steps=0), "`max_steps` is 0"),
    "a field that is none": (lambda m, t: ed.solve(None, jnp.ones(2), t0=0.0, t1=1.0), "`field` is None"),
    "a stop of NaN": (lambda m, t: descend(stop=NAN), "`stop` is nan"),
    "time that runs backwards in jax": (lambda m, t: descend(t1=jnp.array(-1.0)), "`t1`=-1.0 is not after `t0`=0.0"),
    "time of NaN in numpy": (lambda m, t: descend(t0=np.float32(NAN)), "is not after `t0`=nan"),
    "time in words": (lambda m, t: descend(t1="1"), "`t1` is '1'"),
    "a negative step of numpy": (lambda m, t: descend(step=np.float32(-0.5)), "`step` is -0.5"),
    "a negative stop of jax": (lambda m, t: descend(stop=jnp.array(-1.0)), "`stop` is -1.0"),
    "levels of NaN": (lambda m, t: descend(levels=jnp.array([0.0, NAN, 1.0])), "`levels` must increase"),
    "levels that stop early": (lambda m, t: descend(levels=[0.0, 0.5]), "`levels` must increase from exactly"),
    "times outside": (lambda m, t: descend(times=jnp.array([0.5, 2.0])), "`times` must increase within"),
    "times that run backwards": (lambda m, t: descend(times=jnp.array([0.5, 0.2])), "`times` must increase within"),
    "times of NaN": (lambda m, t: descend(times=jnp.array([0.5, NAN])), "`times` must increase within"),
    "times in a square": (lambda m, t: descend(times=jnp.zeros((2, 2))), "`times` has shape (2, 2)"),
    "no times": (lambda m, t: descend(times=jnp.zeros(0)), "`times` has shape (0,)"),
    "a probe that is a number": (lambda m, t: descend(probes={"F": 3}), "`probes` has 3 as 'F'"),
    "probes without names": (lambda m, t: descend(probes=[3]), "`probes` is [3]"),
    "a seed for a key": (lambda m, t: descend(key=0), "`key` is 0"),
    # ------------------------------------------------------------------------------------- sampling
    "no prompt": (lambda m, t: write(m, prompt=None), "`prompt` is None; expected a text"),
    "a prompt of bytes": (lambda m, t: write(m, prompt=b"ab"), "`prompt` is b'ab'"),
    "a suffix that is a number": (lambda m, t: write(m, suffix=3), "`suffix` is 3"),
    "a prompt of other characters": (lambda m, t: write(m, prompt="xyz"), "outside the alphabet"),
    "unknown characters by name": (lambda m, t: write(m, mask_unknown="skip"), "`mask_unknown` is 'skip'"),
    "a prompt that is too long": (lambda m, t: write(m, prompt="abcabcab"), "make `length` at least 9"),
    "a negative length": (lambda m, t: write(m, length=-1), "`length` is -1"),
    "half a token": (lambda m, t: write(m, length=8.5), "`length` is 8.5"),
    "a length in words": (lambda m, t: write(m, length="8"), "`length` is 8; expected a positive integer"),
    "a length beyond memory": (lambda m, t: write(m, length=BIG), "GB; expected at most 8 GB"),
    "samples beyond memory": (lambda m, t: write(m, samples=10**9), "GB; expected at most 8 GB"),
    "a window beyond memory": (lambda m, t: write(m, length=10**6, window=10**6), "GB; expected at most 8 GB"),
    "no samples": (lambda m, t: write(m, samples=0), "`samples` is 0"),
    "fewer frames than none": (lambda m, t: write(m, frames=-1), "`frames` is -1"),
    "a window of one": (lambda m, t: write(m, window=1), "`window` is 1"),
    "a window of two and a half": (lambda m, t: write(m, window=2.5), "`window` is 2.5"),
    "no stop": (lambda m, t: write(m, stop=None), "`stop` is None"),
    "a long stop": (lambda m, t: write(m, stop="ab"), "`stop` is 'ab', 2 tokens"),
    "a negative seed": (lambda m, t: write(m, seed=-1), "`seed` is -1"),
    "a seed beyond 32 bits": (lambda m, t: write(m, seed=2**32), "`seed` is 4294967296"),
    "a seed of half": (lambda m, t: write(m, seed=0.5), "`seed` is 0.5"),
    "a temperature below 0": (lambda m, t: quick(temperature=-1.0), "`temperature` is -1.0"),
    "a temperature of NaN": (lambda m, t: quick(temperature=NAN), "`temperature` is nan"),
    "an infinite temperature": (lambda m, t: quick(temperature=INF), "`temperature` is inf"),
    "no rounds": (lambda m, t: quick(rounds=0), "`rounds` is 0"),
    "half a round": (lambda m, t: quick(rounds=1.5), "`rounds` is 1.5"),
    "a relaxation of NaN": (lambda m, t: quick(step=NAN), "`step` is nan"),
    "an infinite relaxation": (lambda m, t: quick(step=INF), "`step` is inf"),
    "corrections below 0": (lambda m, t: quick(remask_rounds=-1), "`remask_rounds` is -1"),
    "half a correction": (lambda m, t: quick(remask_rounds=0.5), "`remask_rounds` is 0.5"),
    "a share of NaN": (lambda m, t: quick(remask_fraction=NAN), "`remask_fraction` is nan"),
    "churn of NaN": (lambda m, t: ed.sampling.Diffusion(churn=NAN), "`churn` is nan"),
    "infinite churn": (lambda m, t: ed.sampling.Diffusion(churn=INF), "`churn` is inf"),
    "a front of NaN": (lambda m, t: ed.sampling.Diffusion(front=NAN), "`front` is nan"),
    "until NaN": (lambda m, t: ed.sampling.Diffusion(until=NAN), "`until` is nan"),
    "a front in words": (lambda m, t: ed.sampling.Diffusion(front="a"), "`front` is 'a'"),
    "a field in place of its maker": (
        lambda m, t: ed.sampling.Diffusion(field=ed.flow.AutonomousDescent(m.energy)),
        "`field` is a AutonomousDescent; expected what makes one",
    ),
    "a field by name": (lambda m, t: ed.sampling.Diffusion(field="descent"), "`field` is a str"),
    "a model for a landscape": (lambda m, t: ed.flow.Relaxation(m, ed.flow.Masked(4)), "`energy` is a EnergyDLLM"),
    "a model for the landscape of a flow": (lambda m, t: ed.flow.JointFlow(m), "`energy` is a EnergyDLLM"),
    "ids for evidence": (lambda m, t: ed.flow.Relaxation(m.energy, m.encode("ab")), "`given` is a ArrayImpl"),
    "text for evidence": (lambda m, t: ed.flow.AutonomousDescent(m.energy, "ab"), "`given` is 'ab'"),
    "a relaxation inside of half a step": (lambda m, t: ed.flow.ProbabilityFlow(m.energy, steps=1.5), "`steps` is 1.5"),
    "an infinite step inside": (lambda m, t: ed.flow.ProbabilityFlow(m.energy, step=INF), "`step` is inf"),
    "an infinite rate": (lambda m, t: ed.flow.JointFlow(m.energy, rate=INF), "`rate` is inf"),
    "a rate by name": (lambda m, t: ed.flow.AutonomousDescent(m.energy, rate="fast"), "`rate` is 'fast'"),
    "a descent by half steps": (lambda m, t: ed.flow.AutonomousDescent(m.energy, steps=1.5), "`steps` is 1.5"),
    "a noise level of 0": (
        lambda m, t: ed.flow.AutonomousDescent(m.energy).initial(jnp.eye(4), m.energy.neutral(4), 0.0),
        "`sigma` is 0.0; expected a positive noise level",
    ),
    "noise levels where there is one": (
        lambda m, t: ed.flow.AutonomousDescent(m.energy).initial(jnp.eye(4), m.energy.neutral(4), jnp.ones(4)),
        "`sigma` has shape (4,); expected (), or `by_token=True`",
    ),
    "half a step": (lambda m, t: ed.sampling.Diffusion(steps=2.5), "`steps` is 2.5"),
    "no template": (lambda m, t: ed.infill(m, None), "`template` is None"),
    "a template without a hole": (lambda m, t: ed.infill(m, "abc"), "has no hole"),
    "a hole beyond memory": (lambda m, t: ed.infill(m, f"a[{BIG}]b"), "`template` is 10,000,000,000,002 tokens"),
    "a passage beyond memory": (lambda m, t: ed.infill(m, "a[*]b", length=BIG), "GB; expected at most 8 GB"),
    "a length that is half": (lambda m, t: ed.infill(m, "a[*]b", length=8.5), "`length` is 8.5"),
    "no text to repair": (lambda m, t: ed.repair(m, None), "`text` is None"),
    "an empty text": (lambda m, t: ed.repair(m, ""), "`text` is empty"),
    "a text beyond memory": (lambda m, t: ed.repair(m, "a" * 20_000), "`text` is 20,000 tokens"),
    "shifts below 0": (lambda m, t: ed.repair(m, "ab", shifts=-1), "`shifts` is -1"),
    "a repair that never rests": (lambda m, t: ed.repair(m, "ab", stop=0.0), "`stop` is 0.0"),
    "half a shift": (lambda m, t: ed.repair(m, "ab", shifts=0.5), "`shifts` is 0.5"),
    "a time of NaN": (lambda m, t: ed.repair(m, "ab", time=NAN), "`time` is nan"),
    "no end of time": (lambda m, t: ed.repair(m, "ab", time=INF), "`time` is inf"),
    "a certain rate": (lambda m, t: ed.repair(m, "ab", rate=1.0), "`rate` is 1.0"),
    "a certain rate of numpy, repaired": (lambda m, t: ed.repair(m, "ab", rate=np.float32(3.5)), "`rate` is 3.5"),
    "a descent without noise": (lambda m, t: ed.sampling.descent(temperature=0.0), "`temperature` is 0.0"),
    "a model by name": (lambda m, t: ed.generate("shakespeare"), "`model` is 'shakespeare'"),
    "a model by name, filled in": (lambda m, t: ed.infill("shakespeare", "a[2]"), "`model` is 'shakespeare'"),
    "a model by name, repairing": (lambda m, t: ed.repair("shakespeare", "ab"), "`model` is 'shakespeare'"),
    "a sampler by name": (lambda m, t: write(m, sampler="diffusion"), "`sampler` is 'diffusion'"),
    "a sampler's class": (lambda m, t: write(m, sampler=ed.sampling.Unmasking), "`sampler` is <class"),
    "guidance by a function": (lambda m, t: write(m, guidance=jnp.sum), "`guidance` is <"),
    "guidance by a function, repairing": (lambda m, t: ed.repair(m, "ab", guidance=jnp.sum), "`guidance` is <"),
    "an order by name": (lambda m, t: quick(order="left_to_right"), "`order` is 'left_to_right'"),
    "an order of corrections by name": (lambda m, t: quick(remask_order="least"), "`remask_order` is 'least'"),
    # --------------------------------------------------------------------------------------- recall
    "no cue": (lambda m, t: t.recall(None), "`cue` is None"),
    "an empty cue": (lambda m, t: t.recall(""), "`cue` is empty"),
    "a cue of NaN": (lambda m, t: t.recall(ed.flow.Likelihood(jnp.full((2, 4), jnp.nan))), "`b` must be finite"),
    "a long cue": (lambda m, t: t.recall("a" * 99), "`cue` has 99 tokens"),
    "a threshold of NaN": (lambda m, t: t.recall("a", threshold=NAN), "`threshold` is nan"),
    "half a sieve": (lambda m, t: t.recall("a", sieve=1), "`sieve` is 1"),
    "no lines": (lambda m, t: ed.TextMemory([]), "`lines` is empty"),
    "a line that is none": (lambda m, t: ed.TextMemory(["ab", None]), "`lines` has None"),
    "weights of NaN": (lambda m, t: ed.TextMemory(["ab"], weights=[NAN]), "`weights`"),
    "a line never stored": (lambda m, t: t.remove("cc"), "`line` 'cc' is not stored"),
    "a typo by name": (lambda m, t: t.recall("a", typo="a"), "`typo` is 'a'"),
    "a line that is a number": (lambda m, t: t.add(5), "`lines` is 5"),
    "lines that are numbers": (lambda m, t: t.add([5]), "`lines` has 5"),
    # ------------------------------------------------------------------------------ patterns, models
    "a pattern that is not closed": (lambda m, t: ed.flow.Matching("(a", ABC, length=4), "not closed"),
    "a pattern of 500 brackets": (
        lambda m, t: ed.flow.Matching("(" * 500 + "a" + ")" * 500, ABC, length=4),
        "groups within more than 50 groups",
    ),
    "a pattern that is long": (lambda m, t: ed.flow.Matching(".{100000}", ABC, length=4), "a count of more than"),
    "a pattern of no passage": (lambda m, t: ed.flow.Matching("a{3}", ABC, length=4), "matches nothing of 4 tokens"),
    "a model without width": (lambda m, t: ed.EnergyDLLM(ABC, dim=0, key=jax.random.key(0)), "`dim`=0"),
    "a model beyond memory": (lambda m, t: ed.EnergyDLLM(ABC, dim=10**6, key=jax.random.key(0)), "GB for the param"),
    "a vocabulary beyond memory": (
        lambda m, t: ed.energy.Vocabulary(10**9, 8, key=jax.random.key(0)),
        "`size` is 1,000,000,000 tokens, whose codes alone need 1,024 GB; expected at most 8 GB",
    ),
    "patterns of NaN": (lambda m, t: ed.memory.GaussianMemory(jnp.full((2, 2), jnp.nan), beta=1.0), "`patterns`"),
    # ----------------------------------------------------------------------------- energies, probes
    "memories of NaN": (lambda m, t: ed.memory.LogSumExpMemory(jnp.full((2, 2), jnp.nan), beta=1.0), "`patterns`"),
    "a kappa of 0": (lambda m, t: ed.energy.FreeEnergy(m.energy.network, m.energy.vocabulary, kappa=0.0), "`kappa` is"),
    "a depth of 0": (lambda m, t: ed.EnergyDLLM(ABC, depth=0, key=jax.random.key(0)), "`depth`=0"),
    "a feedback below 0": (
        lambda m, t: ed.energy.MeanFieldVocabulary(3, 16, feedback=-1.0, key=jax.random.key(0)),
        "`feedback` is -1.0; expected 0",
    ),
    "an odd width": (lambda m, t: ed.energy.DeepStack(7, key=jax.random.key(0)), "`dim` is 7; expected an even number"),
    "heads that do not divide": (
        lambda m, t: ed.energy.DeepStack(16, heads=3, key=jax.random.key(0)),
        "`heads` is 3, which does not divide",
    ),
    "a step of the model of NaN": (
        lambda m, t: ed.EnergyDLLM(ABC, dim=8, step=NAN, key=jax.random.key(0)),
        "`step`=nan must be positive",
    ),
    "momentum of 1": (lambda m, t: relax(m, momentum=1.0), "`momentum` is 1.0"),
    "momentum of NaN": (lambda m, t: relax(m, momentum=NAN), "`momentum` is nan"),
    "a state of another width": (
        lambda m, t: m.energy(jnp.zeros((8, 3)), jnp.zeros((8, 4))),
        "`y` has shape (8, 3)",
    ),
    "evidence of another vocabulary": (
        lambda m, t: m.energy(m.energy.neutral(8), jnp.zeros((8, 5))),
        "`b` has shape (8, 5)",
    ),
    "a check of a short text": (lambda m, t: ed.probe.check(m, "ab", length=8), "`text` has 2 tokens"),
    "a check of too few tokens": (lambda m, t: ed.probe.check(m, length=3), "`length` is 3; expected at least 4"),
    "no rates": (
        lambda m, t: ed.probe.relaxation_rates(
            m.energy, m.energy.neutral(2), jnp.zeros((2, 4)), key=jax.random.key(0), count=0
        ),
        "`count` is 0",
    ),
    "a rest point of no steps": (
        lambda m, t: ed.probe.rest_point(lambda x: -x, jnp.ones(2), steps=0),
        "`steps`=0 must be positive",
    ),
    "a force of another shape": (
        lambda m, t: ed.probe.rest_point(lambda x: x[:1], jnp.ones(2)),
        "`force` gives the shape (1,)",
    ),
    "a barrier of two images": (
        lambda m, t: ed.probe.Barrier(jnp.sum, jnp.ones(2), jnp.zeros(2), images=2),
        "`images`=2 must be 3 or more",
    ),
    "a spring of another length": (lambda m, t: at_rest(m.energy, spring=jnp.zeros(1)), "`spring` has shape (1,)"),
    "a mask of another length": (lambda m, t: at_rest(m.energy, mask=jnp.ones(1, bool)), "`mask` has shape (1,)"),
    "a mask of a column": (
        lambda m, t: m.energy.force(m.energy.neutral(8), jnp.zeros((8, 4)), mask=jnp.ones((8, 1), bool)),
        "`mask` has shape (8, 1); expected (8,)",
    ),
    "a spring of a product": (lambda m, t: at_rest(2.0 * m.energy, spring=jnp.zeros(())), "`spring` has shape ()"),
    "a mask of a product": (lambda m, t: at_rest(2.0 * m.energy, mask=jnp.ones(1, bool)), "`mask` has shape (1,)"),
    "a spring of a data set": (lambda m, t: at_rest(EXACT, 2, spring=jnp.zeros(1)), "`spring` has shape (1,)"),
    "a mask of a data set": (lambda m, t: at_rest(EXACT, 2, mask=jnp.ones(1, bool)), "`mask` has shape (1,)"),
    "a density of another length": (lambda m, t: EXACT.log_density(jnp.zeros((1, 4)), 1.0), "`x` has shape (1, 4)"),
    "a density without noise": (lambda m, t: EXACT.log_density(jnp.zeros((2, 4)), 0.0), "`sigma` is 0.0"),
    "a beta of numpy": (lambda m, t: ed.energy.Softmax(beta=np.float32(-1.0)), "`beta` is -1.0"),
    "a beta of jax": (lambda m, t: ed.energy.Tanh(beta=jnp.array(0.0)), "`beta` is 0.0"),
    "an infinite epsilon": (lambda m, t: ed.energy.LayerNorm(epsilon=INF), "`epsilon` is inf"),
    "an infinite beta": (lambda m, t: ed.memory.LogSumExpMemory(jnp.eye(2), beta=INF), "`beta` is inf"),
    "an infinite kappa": (
        lambda m, t: ed.energy.FreeEnergy(m.energy.network, m.energy.vocabulary, kappa=INF),
        "`kappa` is inf",
    ),
    "no heads": (lambda m, t: ed.EnergyDLLM(ABC, dim=16, heads=0, key=jax.random.key(0)), "`heads` is 0"),
    "no memories": (lambda m, t: ed.EnergyDLLM(ABC, dim=16, memories=0, key=jax.random.key(0)), "`memories` is 0"),
    "no rank": (lambda m, t: ed.EnergyDLLM(ABC, dim=16, depth=1, rank=0, key=jax.random.key(0)), "`rank` is 0"),
    "a seed of a model": (lambda m, t: ed.EnergyDLLM(ABC, dim=16, key=0), "`key` is 0"),
    "momentum of numpy": (lambda m, t: relax(m, momentum=np.float32(1.0)), "`momentum` is 1.0"),
    "steps below 0": (lambda m, t: relax(m, steps=-1), "`steps` is -1"),
    "half a step of a relaxation": (lambda m, t: relax(m, steps=0.5), "`steps` is 0.5"),
    "a relaxation by NaN": (lambda m, t: relax(m, step=NAN), "`step` is nan"),
    "samples of NaN": (lambda m, t: ed.memory.Memorisation(np.full((2, 2), NAN), np.eye(2)), "`samples` has a NaN"),
    "a training set of NaN": (lambda m, t: ed.memory.Memorisation(np.eye(2), np.full((2, 2), NAN)), "`training` has a"),
    "a negative id of a likelihood": (lambda m, t: likelihood(m, [0, -1]), "`ids` has a token outside the vocab"),
    "an id outside of a likelihood": (lambda m, t: likelihood(m, jnp.array([0, 4])), "`ids` has a token outside the"),
    "no directions": (lambda m, t: likelihood(m, [0, 1], directions=0), "`directions` is 0"),
    "a negative id of a prior": (lambda m, t: m.energy.vocabulary.nll(jnp.array([0, -1])), "`ids` has a token outside"),
    "an id outside of a hidden Markov model": (
        lambda m, t: ed.energy.HMMVocabulary(4, 8, states=4, key=jax.random.key(0)).nll(jnp.array([0, 4])),
        "`ids` has a token outside the vocabulary of 4",
    ),
    "a negative id of a line": (lambda m, t: lines([[0, -1]]), "`ids` has a token outside the vocabulary of 3"),
    "an id outside of a line": (lambda m, t: lines([[0, 4]]), "`ids` has a token outside the vocabulary of 3"),
    "a state that is none": (lambda m, t: automaton(next=[[0, 3]]), "`next` has what is no state"),
    "a negative state": (lambda m, t: automaton(next=[[0, -1]]), "`next` has what is no state"),
    "half a state": (lambda m, t: automaton(next=[[0, 0.5]]), "`next` has what is no state"),
    "a start that is none": (lambda m, t: automaton(start=1), "`start` is 1"),
    "a negative start": (lambda m, t: automaton(start=jnp.array(-1)), "`start` is -1"),
    "half an end": (lambda m, t: automaton(accept=[0.5]), "`accept` is float"),
    "no string to draw": (lambda m, t: NOTHING.sample(jnp.zeros((2, 2)), key=jax.random.key(0)), "`b` is about 2"),
    "no string to choose": (lambda m, t: NOTHING.best(jnp.zeros((2, 2))), "`b` is about 2 tokens"),
    "no string to weigh": (lambda m, t: NOTHING.posterior(jnp.zeros((2, 2))), "`b` is about 2 tokens"),
    "churn of NaN of a flow": (
        lambda m, t: ed.flow.ReverseDiffusion(ed.flow.ProbabilityFlow(m.energy), churn=NAN),
        "`churn` is nan",
    ),
    "infinite noise": (lambda m, t: ed.flow.LogLinear(sigma_max=INF), "`sigma_max`=inf"),
    "noise times without end": (
        lambda m, t: ed.flow.InformationUniform(np.array([0.0, INF]), np.array([1.0, 0.5])),
        "`noise_times` has a NaN or an infinity",
    ),
    "a curve without end": (
        lambda m, t: ed.flow.InformationUniform(np.array([0.0, 1.0]), np.array([INF, 0.5])),
        "`cross_entropy` has a NaN or an infinity",
    ),
    "rates of NaN": (lambda m, t: ed.memory.capacity([1.0, 2.0], [1.0, NAN]), "`rates` must be finite"),
    "no loads": (lambda m, t: ed.memory.capacity([], []), "`loads` (0,)"),
    "flips at NaN": (
        lambda m, t: ed.memory.glauber(jnp.sum, jnp.ones(2), sweeps=1, temperature=NAN, key=jax.random.key(0)),
        "`temperature` is nan",
    ),
    "a motion without end": (lambda m, t: ed.memory.Langevin(jnp.sum, temperature=INF), "`temperature` is inf"),
    "a pattern between two": (lambda m, t: ed.memory.GaussianMemory(jnp.eye(2)).remove(0.7), "`indices` has 0.7"),
    "a simplex twice": (
        lambda m, t: ed.memory.SimplicialMemory(jnp.ones((1, 4)), triples=np.array([[0, 1, 2], [2, 1, 0]])),
        "`triples` has a simplex twice",
    ),
    "half a degree": (lambda m, t: ed.memory.PolynomialMemory(jnp.eye(2), degree=2.5), "`degree` is 2.5"),
    "no path to save to": (lambda m, t: ed.save(m, "model.safetensors"), "`path` is a EnergyDLLM"),
    # ------------------------------------------------------------------------------------- learning
    "a learning rate of infinity": (lambda m, t: ed.learn.default_optimizer(INF, 9), "`learning_rate` is inf"),
    "a learning rate of NaN": (lambda m, t: ed.learn.default_optimizer(NAN, 9), "`learning_rate` is nan"),
    "a decay of NaN": (lambda m, t: ed.learn.default_optimizer(0.1, 9, decay=NAN), "`decay` is nan"),
    "a seed of fit": (lambda m, t: fit(m, seed=2**40), "`seed` is 1099511627776"),
    "no steps of fit": (lambda m, t: fit(m, steps=0), "`steps` is 0"),
    "an average of NaN": (lambda m, t: fit(m, average=NAN), "`average` is nan"),
    "a seed of evaluate": (lambda m, t: ed.evaluate(m, np.zeros(99, int), seed=-1), "`seed` is -1"),
    "a seed of a check": (lambda m, t: ed.probe.check(m, seed=2**32), "`seed` is 4294967296"),
    "a seed of windows": (lambda m, t: ed.data.Windows(np.arange(9), length=2, batch=1, seed=2**32), "`seed` is 4294"),
    "a seed of a grammar": (lambda m, t: ed.data.grammar_corpus(characters=99, seed=2**32), "`seed` is 4294967296"),
}  # fmt: skip


def relax(model, **options):
    return ed.flow.relax(
        model.energy, model.energy.neutral(8), jnp.zeros((8, 4)), **{"steps": 2, "step": 0.5, **options}
    )


def likelihood(model, ids, **options):
    flow = ed.flow.ProbabilityFlow(model.energy, steps=1)
    return ed.flow.FlowLikelihood(flow, ids, model.schedule, key=jax.random.key(0), steps=2, **options)


def lines(ids):
    return ed.energy.PairHMMMixture(jnp.array(ids), jnp.zeros(2), ed.energy.NGram(jnp.ones((3, 3))))


def automaton(**changed):
    return ed.energy.DFA(**{"next": [[0, 1]], "accept": [True], **changed})


def at_rest(energy, length=8, **options):
    return energy(energy.neutral(length), jnp.zeros((length, 4)), **options)


def fit(model, **options):
    corpus = ed.data.Corpus("made up", ABC, *[np.arange(300, dtype=np.int32) % 4] * 3)
    return ed.fit(model, corpus, ed.learn.Denoising(), **{"steps": 2, "length": 8, "batch_size": 2, **options})


@pytest.mark.parametrize("name", LIBRARY)
def test_the_library_names_the_argument(name, model, memory, unchecked):
    make, words = LIBRARY[name]
    start = time.process_time()
    with pytest.raises(ValueError) as error:
        make(model, memory)
    said = str(error.value)
    assert words in said and "\n" not in said and "`" in said
    assert time.process_time() - start < 3  # seconds: before any work, at most a program for the evidence


@pytest.fixture(scope="module")
def file(tmp_path_factory, model) -> str:
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    ed.save(path, model)
    return str(path)


COMMANDS = {
    "serve FILE --port 70000": "`--port` is 70000",
    "serve FILE --lengths 0": "`--lengths` is [0]",
    "serve FILE --timeout nan": "`--timeout` is nan",
    "serve FILE FILE": "each of another name",
    "serve FILE --memory none.txt": "`--memory` none.txt is not a file",
    "generate FILE --length 10000000000000": "GB; expected at most 8 GB",
    "generate FILE --samples 1000000000": "GB; expected at most 8 GB",
    "generate FILE --temperature nan": "`--temperature` is nan",
    "generate FILE --temperature inf": "`--temperature` is inf",
    "generate FILE --churn nan": "`--churn` is nan",
    "generate FILE --front nan": "`--front` is nan",
    "generate FILE --until nan": "`--until` is nan",
    "generate FILE --seed 4294967296": "`--seed` is 4294967296",
    "generate FILE --match .{100000}": "a count of more than",
    f"generate FILE --match {'(' * 500}a": "groups within more than 50 groups",
    "generate FILE --match a(?=b)": "a lookahead",
    "generate FILE --prompt xyz": "outside the alphabet",
    "generate FILE --stop abc": "`--stop` is 'abc'",
    "infill a[10000000000000]b FILE": "GB; expected at most 8 GB",
    "infill a[*]b FILE --length 10000000000000": "GB; expected at most 8 GB",
    "infill a[2]b FILE --seed -1": "`--seed` is -1",
    "infill x[2]b FILE": "outside the alphabet",
    "repair abc FILE --rate nan": "`--rate` is nan",
    "repair abc FILE --seed 4294967296": "`--seed` is 4294967296",
    "repair abx FILE --unknown error": "outside the alphabet",
    "repair abc FILE --shifts -1": "`--shifts` is -1",
    "info --seed 4294967296": "`--seed` is 4294967296",
    "evaluate FILE grammar --seed 4294967296": "`--seed` is 4294967296",
    "train grammar --out m --seed 4294967296": "`--seed` is 4294967296",
    "train grammar --out m --steps 2 --learning-rate inf": "`--learning-rate` is inf",
    "train grammar --out m --steps 2 --learning-rate nan": "`--learning-rate` is nan",
    "export FILE -o m.cir --seed -1": "`--seed` is -1",
    "export FILE -o m.cir --length 0": "`--length` is 0",
    "export FILE -o m.cir --max-step 0": "`--max-step` is 0",
    "export FILE -o m.cir --max-step -1": "`--max-step` is -1",
    "export FILE -o m.cir --max-step 99": "`--max-step` is 99.0, longer than all",
    "export FILE -o m.cir --duration inf": "`--duration` is inf",
    "export FILE -o m.safetensors": "`--out` m.safetensors has the name of a model; expected one such as memory.cir",
    "export FILE -o m.safetensors --int8 --duration 2": "without `--prompt`, `--length`, `--duration`",
    "export FILE -o m.safetensors --int8 --limit 2": "`--limit` and `--run`, which are for a circuit",
    "train grammar --out a/b/m --length 0": "`--length` is 0",
    "train grammar --out a/b/m --batch-size 0": "`--batch-size` is 0",
    "train nowhere --out a/b/m --directory c/d": "does not exist",
    "train grammar --out m --directory m": "`--out` m is where `--directory` m has the training",
    "train grammar --out m --directory m/runs": "`--out` m is where `--directory` m/runs has the training",
    "tokenize nowhere -o a/b": "`TEXT` names 'nowhere', which is not a file",
    "generate FILE -o a/b/c.txt --length 0": "`--length` is 0",
    "generate FILE --prompt-file nowhere": "`--prompt-file` nowhere is not a file",
    "generate FILE --unmask --rounds -1": "`--rounds` is -1",
    "generate FILE --unmask --remask-rounds -1": "`--remask-rounds` is -1",
    "generate FILE --samples -3": "`--samples` is -3",
    "generate FILE --match [": "not closed",
    "inspect FILE --check --length 3": "`--length` is 3",
    "inspect FILE": "`--out` is missing",
    "evaluate FILE grammar --length 0": "outside the alphabet of 4",
    "train grammar --out m --init FILE --dim 8": "`--dim` cannot be used with `--init`",
    "train grammar --out m --depth 0": "`--depth`=0",
    "train grammar --out m --validate-every -1": "`--validate-every` is -1",
    "train nowhere --out m --tokenizer bytes": "does not exist",
    "train nowhere --out m --tokenizer characters": "does not exist",
}


def test_there_are_enough_of_them():
    assert len(LIBRARY) + len(COMMANDS) >= 150


@pytest.mark.parametrize("argv", COMMANDS)
def test_the_command_line_exits_with_2_and_one_sentence(argv, file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    code = main([file if word == "FILE" else word for word in argv.split()])
    out, err = capsys.readouterr()
    assert time.process_time() - start < 3
    assert (code, out) == (2, "") and COMMANDS[argv] in err
    assert err.startswith("energy-dllm: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_characters_outside_the_alphabet_on_the_command_line(file, capsys):
    assert main(["repair", "ab*c", file]) == 0 and "'*' to" in capsys.readouterr().err
    assert main(["generate", file, "--prompt", "a*c", "--unknown", "mask", "--length", "8", "--steps", "2"]) == 0


@pytest.mark.parametrize(
    "kind", [ed.energy.Vocabulary, ed.energy.MeanFieldVocabulary, functools.partial(ed.energy.HMMVocabulary, states=4)]
)
def test_codes_of_many_tokens_are_no_identity_matrix(kind):
    vocabulary = kind(5_000, 16, key=jax.random.key(0))
    assert vocabulary.codes.nbytes < 20 * vocabulary.patterns.nbytes
    assert np.allclose(np.linalg.norm(vocabulary.codes, axis=-1), 1.0)


def test_a_deep_model_of_many_tokens_is_made_in_the_memory_of_its_tables(unchecked):
    """20,000 tokens: codes narrower than the vocabulary, and a schedule that is measured level by level."""
    size = 20_000
    tokenizer = ed.data.Characters("".join(map(chr, range(0x10000, 0x10000 + size))))
    tracemalloc.start()
    model = ed.EnergyDLLM(tokenizer, dim=16, key=jax.random.key(0))
    assert tracemalloc.get_traced_memory()[1] < 0.3e9  # of numpy; all levels at once took 10 GB
    tracemalloc.stop()
    assert model.energy.vocabulary.codes.nbytes < 64 * model.energy.vocabulary.patterns.nbytes


def test_no_command_replaces_what_it_reads_or_a_file_that_is_no_model(file, tmp_path, capsys):
    text, model = tmp_path / "text.txt", tmp_path / "model.safetensors"
    text.write_text("abc" * 500)
    model.write_bytes(Path(file).read_bytes())
    before = {path: path.read_bytes() for path in (text, model)}
    notes = tmp_path / "notes.md"
    notes.write_text("mine")
    for command, part in {
        f"train {text} --out {text} --steps 1": "is what is read",
        f"train {text} --out {notes} --steps 1": "no model",
        f"generate {model} -o {model}": "is what is read",
        f"generate {model} --prompt-file {text} -o {text}": "is what is read",
        f"export {model} -o {model} --int8": "is what is read",
    }.items():
        assert main(command.split()) == 2 and part in capsys.readouterr().err, command
    assert {path: path.read_bytes() for path in before} == before and notes.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "notes.md", "text.txt"]


def test_a_netlist_replaces_netlists_alone(file, tmp_path, capsys):
    notes = tmp_path / "notes.md"
    notes.write_text("mine")
    assert main(["export", file, "-o", str(notes)]) == 2 and "no netlist" in capsys.readouterr().err
    assert notes.read_text() == "mine"


def test_a_training_replaces_and_removes_its_own_files_alone(file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs, mine = tmp_path / "runs", tmp_path / "m.training"
    runs.mkdir()
    mine.mkdir()
    (runs / "log.jsonl").write_text("abc cab " * 64)
    sizes = "--steps 1 --length 4 --batch-size 2 --validate-every 0".split()
    argv = ["train", "runs/log.jsonl", "--init", file, "--out", "m", *sizes]
    assert main([*argv, "--directory", "runs"]) == 2
    assert "`--directory` runs has `SOURCE` runs/log.jsonl, which would be lost" in capsys.readouterr().err
    assert (runs / "log.jsonl").read_text() == "abc cab " * 64
    assert main([*argv]) == 2 and "`SOURCE` runs/log.jsonl holds records" in capsys.readouterr().err
    assert mine.is_dir()  # empty, and not ours
    (mine / "notes.md").write_text("mine")
    (runs / "log.jsonl").rename("text.txt")
    argv[1] = "text.txt"
    with _files.alone(mine):
        assert main(argv) == 2 and "is in use by another training" in capsys.readouterr().err
    assert main(argv) == 0
    assert (tmp_path / "m").is_file() and [path.name for path in mine.iterdir()] == ["notes.md"]


def test_a_text_of_the_package_goes_before_files_of_its_name(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "grammar").write_text("abc " * 99)
    assert built_in("docs") and built_in("grammar") and not built_in("./grammar")
    assert corpus_of("grammar").entropy and "./grammar is the file of that name" in capsys.readouterr().err
    assert corpus_of("./grammar").tokenizer.size == 4
    ed.data.tokenize(["./grammar"], "docs")
    assert not built_in("docs") and corpus_of("docs").tokenizer.size == 4


def test_an_unknown_character_is_named_with_the_argument_it_is_in():
    model = ed.EnergyDLLM(ed.data.Characters("abc"), dim=16, key=jax.random.key(0))
    for arguments in ({"prompt": "aéb"}, {"suffix": "é"}, {"stop": "é"}):
        with pytest.raises(ValueError, match=rf"`{next(iter(arguments))}` holds 1 characters .*mask_unknown"):
            ed.generate(model, length=8, **arguments)


def test_a_prompt_of_a_closed_input_is_said(file, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert main(["generate", file, "--prompt", "-"]) == 2
    assert "`--prompt -` is standard input, which is closed" in capsys.readouterr().err


def test_an_empty_text_makes_no_tokens(tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(ValueError, match="holds no tokens"):
        ed.data.tokenize([tmp_path / "empty.txt"], tmp_path / "tokens", tokenizer=ed.data.Bytes())
