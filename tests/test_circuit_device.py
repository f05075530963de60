"""Laws of the chips: one set of arrays, two descriptions that agree; devices that compute what they should."""

import os
import re
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm import circuit


ngspice = pytest.mark.skipif(
    shutil.which(os.environ.get("ENERGY_DLLM_NGSPICE") or "ngspice") is None,
    reason="ngspice is not installed (apt install ngspice); all else of circuit is tested without it",
)
N, M = 16, 5
SPREAD = circuit.Technology(conductance=0.1, capacity=0.1, offset=1e-3, base=2e-3)


def softmax(getkey, **settings) -> circuit.Crossbar:
    return circuit.Crossbar(jnp.sign(jax.random.normal(getkey(), (M, N))), (M,), beta=0.8, **settings)


def several(getkey) -> circuit.Crossbar:
    """Two groups, thresholds, a bias, a neuron that is held."""
    return circuit.Crossbar(
        jax.random.normal(getkey(), (M, N)),
        (2, 3),
        beta=0.6,
        threshold=jax.random.normal(getkey(), (M,)),
        bias=0.3 * jax.random.normal(getkey(), (N,)),
        clamped=jnp.arange(N) == 3,
    )


def rectified(getkey) -> circuit.Crossbar:
    return circuit.Crossbar(
        0.3 * jax.random.normal(getkey(), (M, N)),
        None,
        slope=1.2,
        threshold=0.1 * jax.random.normal(getkey(), (M,)),
        bias=0.1 * jax.random.normal(getkey(), (N,)),
    )


KINDS = {"softmax": softmax, "several": several, "rectified": rectified}


@pytest.mark.parametrize("kind", KINDS)
def test_a_nominal_chip_is_its_crossbar(kind, getkey):
    crossbar, v = KINDS[kind](getkey), jax.random.normal(getkey(), (N,))
    chip = circuit.fabricate(crossbar, circuit.Technology.bipolar())
    assert jnp.allclose(chip(0.0, v), crossbar(0.0, v), rtol=1e-12, atol=1e-12)
    assert not jnp.allclose(circuit.fabricate(crossbar, SPREAD, getkey())(0.0, v), crossbar(0.0, v), atol=1e-2)
    # every wire and neuron carries a conductance of 1/R in all
    assert jnp.allclose(jnp.abs(chip.forward).sum(1) + jnp.abs(chip.threshold) + chip.pad, 1.0)
    assert jnp.allclose(jnp.abs(chip.backward).sum(0) + jnp.abs(chip.bias) + chip.leak, 1.0)


def test_a_crossbar_is_the_relaxation_it_is_made_of(getkey):
    for neurons, memory in (
        (ed.energy.Identity(), ed.energy.DenseMemory(8, memories=5, neurons=ed.energy.Softmax(beta=1.3), key=getkey())),
        (ed.energy.Tanh(beta=1.4), ed.energy.DenseMemory(8, memories=5, neurons=ed.energy.Rectifier(), key=getkey())),
    ):
        network = ed.energy.Network(neurons, {"memory": memory}, 0.3 * jax.random.normal(getkey(), (8,)))
        energy = ed.energy.FreeEnergy(network, ed.energy.Vocabulary(3, 8, key=getkey()), kappa=2.0)
        field, y = ed.flow.Relaxation(energy, ed.flow.Masked(2)), jax.random.normal(getkey(), (2, 8))
        crossbar = circuit.Crossbar.of(field, length=2)
        both = eqx.filter_jit(lambda crossbar, field, y: (crossbar(0.0, y.reshape(-1)), field(0.0, y).reshape(-1)))
        one, other = both(crossbar, field, y)
        assert jnp.allclose(one, other, rtol=1e-10, atol=1e-12)
    network = eqx.tree_at(lambda n: n.synapses, network, {})
    with pytest.raises(ValueError, match=r"synapses \[\]; expected one DenseMemory"):
        circuit.Crossbar.of(eqx.tree_at(lambda f: f.energy.network, field, network))


def test_attention_to_a_clamped_context_is_a_crossbar(getkey):
    attention = ed.energy.Attention(8, heads=2, head_dim=4, reach=2, key=getkey())
    context, place = jax.random.normal(getkey(), (6, 8)), 2
    crossbar = circuit.Crossbar.attending(attention, context, place)
    # the token's own energy as a query; its keys do not move
    own = lambda g: attention.per_token(context.at[place].set(g))[place]
    g = jax.random.normal(getkey(), (8,))
    pull, slope = jax.jit(lambda g: (crossbar(0.0, g) + g, -jax.grad(own)(g)))(g)
    assert jnp.allclose(pull, slope, rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="`place` is 6 in a context of 6"):
        circuit.Crossbar.attending(attention, context, 6)
    with pytest.raises(ValueError, match="rotary"):
        circuit.Crossbar.attending(ed.energy.Attention(8, heads=1, head_dim=4, rotary=True, key=getkey()), context, 1)


def test_chips_batch_and_differentiate(getkey):
    crossbar, v = softmax(getkey), jax.random.normal(getkey(), (N,))
    keys = jax.random.split(getkey(), 3)
    build = lambda key: circuit.fabricate(crossbar, SPREAD, key)(0.0, v)
    together = jax.jit(jax.vmap(build))(keys)
    assert jnp.allclose(together[1], jax.jit(build)(keys[1]), rtol=1e-12)

    def loss(patterns):
        built = circuit.fabricate(eqx.tree_at(lambda c: c.patterns, crossbar, patterns), SPREAD, keys[0])
        return jnp.sum(built(0.0, v) ** 2) + crossbar.headroom(v, limit=1.0)

    slope = jax.jit(jax.grad(loss))(crossbar.patterns)
    assert jnp.isfinite(slope).all() and (slope != 0).all()


def test_levels_are_as_many_as_there_are(getkey):
    crossbar = rectified(getkey)
    for levels in (2, 5):
        chip = circuit.fabricate(crossbar, circuit.Technology(levels=levels))
        assert len(np.unique(np.abs(chip.forward).round(12))) <= levels
    fine = circuit.fabricate(crossbar, circuit.Technology(levels=100_000))
    exact = circuit.fabricate(crossbar, circuit.Technology())
    assert jnp.allclose(fine.forward, exact.forward, atol=1e-5)


def test_head_room_is_refused_with_the_wire_and_its_range(getkey):
    crossbar, v = softmax(getkey), jnp.ones(N)
    hot = circuit.Technology(volts=0.5)
    with pytest.raises(ValueError, match=r"wire [vp]\d+ goes from .* V to .* V, beyond .*; lower `volts` or raise"):
        circuit.fabricate(crossbar, hot).circuit(4 * v)
    steep = eqx.tree_at(lambda c: c.patterns, crossbar, 12 * crossbar.patterns)
    with pytest.raises(ValueError, match=r"wire [bp]\d+ goes from"):
        circuit.fabricate(steep, circuit.Technology()).circuit(v)
    # the penalty sees what the rails will
    assert steep.headroom(v, limit=20.0) > 0 == crossbar.headroom(v, limit=60.0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: circuit.Technology(rail=0.0), "`rail` is 0.0; expected a positive"),
        (lambda: circuit.Technology(conductance=-0.1), "`conductance` is -0.1"),
        (lambda: circuit.Technology(levels=1), "`levels` is 1"),
        (lambda: circuit.Technology(levels=2.5), "`levels` is 2.5"),  # pyright: ignore[reportArgumentType]
        (lambda: circuit.Technology(conductance=float("nan")), "`conductance` is nan"),
        (lambda: circuit.Technology(rail=float("inf")), "`rail` is inf"),
        (lambda: circuit.Crossbar(jnp.ones((2, 3)), (2, 0)), "expected positive numbers"),
        (lambda: circuit.Crossbar(jnp.ones((2, 3)), (2,), slope=0.0), "`slope` is 0.0"),
        (lambda: circuit.Crossbar(jnp.ones((2, 3)), (3,)), "they must add up"),
        (lambda: circuit.Crossbar(jnp.ones((2, 3)), None, bias=jnp.ones(2)), "have shapes"),
    ],
)
def test_parts_name_what_is_wrong(make, sentence, unchecked):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_weights_can_be_read_back_from_the_text(getkey):
    """The conductances in the netlist are those of the chip's equation, to the last digit."""
    chip = circuit.fabricate(several(getkey), SPREAD, getkey())
    deck = chip.circuit(jnp.zeros(N)).deck(t1=1.0)
    found = np.zeros((M, N))
    for cell, sign, neuron, ohms in re.findall(r"^r\d+ u(\d+) g([pm])(\d+) (\S+)$", deck, re.M):
        found[int(cell), int(neuron)] = {"p": 1, "m": -1}[sign] * SPREAD.resistance / float(ohms)
    assert np.allclose(found, chip.forward, rtol=1e-12)
    found = np.zeros((M, N))
    for neuron, sign, cell, ohms in re.findall(r"^r\d+ v(\d+) p([pm])(\d+) (\S+)$", deck, re.M):
        found[int(cell), int(neuron)] = {"p": 1, "m": -1}[sign] * SPREAD.resistance / float(ohms)
    assert np.allclose(found, np.where(chip.clamped, 0.0, chip.backward), rtol=1e-12)


@ngspice
@pytest.mark.parametrize(
    ("kind", "technology", "step", "path", "end"),
    [
        ("softmax", circuit.Technology(), 0.003, 1e-5, 2e-6),
        ("softmax", circuit.Technology.bipolar(), 0.02, 5e-3, 5e-5),
        ("several", circuit.Technology(), 0.01, 2e-4, 1e-5),
        ("rectified", circuit.Technology(), 0.01, 3e-3, 1e-3),
        ("rectified", circuit.Technology.bipolar(), 0.02, 2e-2, 1e-2),
    ],
)
def test_devices_follow_the_equation(kind, technology, step, path, end, getkey):
    crossbar, v = KINDS[kind](getkey), jax.random.normal(getkey(), (N,))
    if kind == "softmax":
        v = crossbar.patterns[0].at[:5].multiply(-1.0)
    made = circuit.fabricate(crossbar, technology).circuit(v)
    waves = circuit.simulate(made, t1=10.0, max_step=step)
    apart = circuit.Comparison(crossbar, v, waves)
    assert apart.largest <= path and apart.end <= end
    assert np.abs(waves.final - v).max() > 0.3


@ngspice
def test_a_chip_with_all_its_faults_follows_its_own_equation(getkey):
    crossbar, v = several(getkey), jax.random.normal(getkey(), (N,))
    chip = circuit.fabricate(crossbar, SPREAD, getkey())
    waves = circuit.simulate(chip.circuit(v), t1=10.0, max_step=0.02)
    own, other = circuit.Comparison(chip, v, waves), circuit.Comparison(crossbar, v, waves)
    assert own.largest < 1e-3 and own.end < 1e-5 < 1e-2 < other.end


@ngspice
def test_supplies_pay_for_what_a_driver_delivers(getkey):
    crossbar, v = softmax(getkey), jax.random.normal(getkey(), (N,))
    technology = circuit.Technology.built()
    made = circuit.fabricate(crossbar, technology).circuit(v, metered=True)
    waves = circuit.simulate(made, t1=10.0)
    report = circuit.EnergyReport(made, waves, crossbar, evaluations=20)
    (plus, _), (minus, _) = made.supplies
    # at rest: the tail, the drivers' own current, and what they deliver into the conductances
    quiet = float(re.findall(r"^i\d+ vdd vss (\S+)$", made.deck(t1=1.0), re.M)[0])
    for name, sign in ((plus, 1), (minus, -1)):
        assert sign * waves.currents[name][-1] > quiet + technology.tail
    power = technology.rail * (waves.currents[plus] - waves.currents[minus])
    least = 2 * technology.rail * (quiet + technology.tail) * report.settled * technology.seconds
    assert least < report.joules < 2 * least and 2 < report.settled < 10
    assert np.isclose(report.joules, np.mean(power) * report.settled * technology.seconds, rtol=0.2)
    assert report.operations == 4 * N * M + 5 * M + 3 * N
    assert np.isclose(report.digital(report.break_even), report.joules)
    words = str(report)
    assert "not counted: converters" in words and "10 pJ" in words and "GBW" in words
    with pytest.raises(ValueError, match="has no meters"):
        circuit.EnergyReport(circuit.fabricate(crossbar, technology).circuit(v), waves, crossbar, evaluations=1)


@ngspice
def test_supply_of_a_resistor():
    """The bill of one conductance is `V^2 / R t`: a single cell at rest, less its tail."""
    crossbar = circuit.Crossbar(jnp.zeros((1, 1)), None, bias=jnp.ones(1))
    technology = circuit.Technology(volts=0.5)
    made = circuit.fabricate(crossbar, technology).circuit(jnp.ones(1), metered=True)
    waves = circuit.simulate(made, t1=10.0)
    (plus, volts), _ = made.supplies
    # the reference of the bias holds the neuron at its own voltage: no current, no bill
    assert np.abs(waves.currents[plus]).max() < 1e-9
    made = circuit.fabricate(crossbar, technology).circuit(jnp.zeros(1), metered=True)
    waves = circuit.simulate(made, t1=10.0, max_step=0.01)
    charge = np.trapezoid(waves.currents[plus], waves.times * made.seconds)
    assert np.isclose(charge, technology.capacitance * technology.volts, rtol=0.01) and volts == 1.5


@ngspice
def test_noise_moves_the_circuit_as_it_moves_the_equation(getkey):
    """An Ornstein-Uhlenbeck process along the very path of its noise, by exact integration in numpy."""
    technology = circuit.Technology(volts=0.02)
    crossbar = circuit.Crossbar(jnp.zeros((1, 2)), None)
    key, step, temperature = getkey(), 0.25, 0.04
    still = circuit.fabricate(crossbar, technology).circuit(jnp.zeros(2))
    made = circuit.thermal_noise(still, key, temperature=temperature, t1=200.0, step=step)
    waves = circuit.simulate(made, t1=200.0, max_step=0.02)
    drawn = np.asarray(jax.random.normal(key, (2, 802))) * (2 * temperature / step) ** 0.5
    v, seen = np.zeros(2), []
    for n in range(800):
        a, slope = drawn[:, n], (drawn[:, n + 1] - drawn[:, n]) / step
        # dv/dt = -v + a + slope t
        v = (v - a + slope) * np.exp(-step) + a + slope * (step - 1)
        seen.append(v)
    times = step * np.arange(1, 801)
    found = np.stack([np.interp(times, waves.times, waves.states[:, n]) for n in range(2)], axis=1)
    assert np.allclose(found, seen, atol=2e-3) and np.abs(seen).max() > 0.3
    # and its variance is the temperature, within the error of 2 x 200 correlated samples
    assert abs(np.var(found[40:]) / temperature - 1) < 0.5
    assert np.isclose(technology.noise, 1.380649e-23 * 300.15 / 1e-12 / 0.02**2)


def test_shake_names_what_is_wrong():
    made = circuit.lower(lambda t, y: -y, jnp.zeros(1))
    with pytest.raises(ValueError, match="`temperature` is 0.0; expected a positive"):
        circuit.thermal_noise(made, jax.random.key(0), temperature=0.0, t1=1.0)
