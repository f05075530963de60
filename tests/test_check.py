"""The health report finds what was broken on purpose, and nothing in what was not."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import energy_dllm as ed
from energy_dllm._cli._check import health


class Turned(ed.energy.AbstractSynapse):
    """A pairwise synapse whose derivative is multiplied by `sign`, as a slip of the pen would have it."""

    pairwise: ed.energy.Pairwise
    sign: jax.Array

    def per_token(self, g, mask=None):
        energy = self.pairwise.per_token(g, mask)
        return self.sign * energy + (1 - self.sign) * jax.lax.stop_gradient(energy)


@pytest.fixture(scope="module")
def sound() -> ed.EnergyDLLM:
    @eqx.filter_jit
    def build(key):
        k1, k2, k3 = jax.random.split(key, 3)
        turned = Turned(ed.energy.Pairwise(16, offsets=2, rank=4, key=k1), jnp.ones(()))
        synapses = {
            "pairwise": turned,
            "memory": ed.energy.DenseMemory(16, memories=8, neurons=ed.energy.Rectifier(), key=k2),
        }
        network = ed.energy.Network(ed.energy.LayerNorm(), synapses, jnp.zeros(16))
        energy = ed.energy.FreeEnergy(network, ed.energy.Vocabulary(4, 16, key=k3), kappa=2.0)
        return ed.EnergyDLLM(ed.data.Characters("ab \n"), energy=energy, steps=8, key=key)

    return build(jax.random.key(0))


def failed(model) -> set[str]:
    report = ed.probe.check(model, length=8)
    assert report.passed == (not report.failed) and len(str(report).splitlines()) == len(report.findings)
    return {finding.name for finding in report.failed}


def test_a_sound_model_passes(sound):
    report = ed.probe.check(sound, "abba \nab", length=8)
    assert report.passed, str(report)
    named = {finding.name: finding for finding in report.findings}
    assert 0 <= named["force of memory"].value < 1e-6 and named["force of memory"].limit == 0.03
    assert [time for time, _ in report.curve] == pytest.approx([4.8, 9.6, 24.0, 48.0])
    assert report.largest_step > sound.step and report.as_dict()["passed"]


def test_a_wrong_sign_is_seen(sound):
    broken = eqx.tree_at(lambda m: m.energy.network.synapses["pairwise"].sign, sound, -jnp.ones(()))
    found = failed(broken)
    assert "force of pairwise" in found and "dissipation balance" in found and "force of memory" not in found


def test_a_collapsed_landscape_is_seen(sound):
    """One field on every token, so strong that all else is negligible."""
    broken = eqx.tree_at(lambda m: m.energy.network.bias, sound, jnp.tile(jnp.array([200.0, -200.0]), 8))
    found = failed(broken)
    assert "spread" in found and not any(name.startswith("force") for name in found)


def test_a_dead_memory_is_seen(sound):
    patterns = lambda m: m.energy.network.synapses["memory"].patterns
    found = failed(eqx.tree_at(patterns, sound, 1e-4 * patterns(sound)))
    assert {"share of memory"} <= found <= {"share of memory", "gradient of memory"}


def test_a_deep_model_is_checked_layer_by_layer(sound):
    """Under masks its motion is one step; a dead term, and a start that decides, are found all the same."""
    tokenizer = sound.tokenizer
    deep = eqx.filter_jit(lambda key: ed.EnergyDLLM(tokenizer, dim=16, steps=4, key=key))(jax.random.key(0))
    report = ed.probe.check(deep, "abba \nab", length=8)
    assert report.passed, str(report)
    names = {finding.name for finding in report.findings}
    assert {"force of attention 1", "share of memory 2", "gradient of blocks"} <= names
    values = lambda m: m.energy.network.synapses["blocks"].blocks[1]["memory"].values
    assert failed(eqx.tree_at(values, deep, 1e-4 * values(deep))) == {"share of memory 2"}
    # a prior that outweighs everything, and messages so strong that there are many rest points
    prior = lambda m: m.energy.vocabulary.prior
    idle = eqx.tree_at(prior, deep, 1e3 * jnp.arange(4.0))
    assert "share of the log-odds from E" in failed(idle)
    patterns = lambda m: m.energy.vocabulary.patterns
    assert "dependence on the start" in failed(eqx.tree_at(patterns, deep, 100.0 * patterns(deep)))


def test_the_command_prints_the_report(sound, capsys):
    assert health(sound, "mine", length=8, seed=0, json=False) == 0
    out, err = capsys.readouterr()
    assert "ok    spread" in out
    # what takes long says what it does, with the seconds so far
    assert len(err.splitlines()) >= 6 and all(" s  " in line for line in err.splitlines()[1:])
    assert "checking mine on a passage of 8 tokens" in err and "relaxing to 10 times the default" in err
    patterns = lambda m: m.energy.network.synapses["memory"].patterns
    assert health(eqx.tree_at(patterns, sound, 1e-4 * patterns(sound)), "mine", length=8, seed=0, json=True) == 1
    said = json.loads(capsys.readouterr().out)
    assert not said["passed"] and said["model"] == "mine" and said["findings"][0]["name"].startswith("force of")


def test_check_names_what_is_wrong(sound, unchecked):
    with pytest.raises(ValueError, match=r"`text` has 2 tokens; expected at least `length` 8"):
        ed.probe.check(sound, "ab", length=8)
    with pytest.raises(ValueError, match=r"`length` is 3; expected at least 4"):
        ed.probe.check(sound, length=3)
    exact = ed.energy.Empirical.of_vectors(jnp.eye(4))
    with pytest.raises(ValueError, match=r"an energy of type Empirical, without a network"):
        ed.probe.check(eqx.tree_at(lambda m: m.energy, sound, exact))
