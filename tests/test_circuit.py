"""Laws of the circuits: the text computes the field, the simulator follows diffrax, and what cannot be is refused."""

import os
import re
import shutil
import stat

import equinox as eqx
import families
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energy_dllm as ed
from energy_dllm import circuit
from energy_dllm.circuit._netlist import Netlist, escape


ngspice = pytest.mark.skipif(
    shutil.which(os.environ.get("ENERGY_DLLM_NGSPICE") or "ngspice") is None,
    reason="ngspice is not installed (apt install ngspice); all else of circuit is tested without it",
)
# how the simulator's functions are called here
TONGUE = {"exp": np.exp, "ln": np.log, "tanh": np.tanh, "sqrt": np.sqrt, "abs": abs, "max": max, "min": min}
TONGUE |= {"pow": lambda x, y: pow(abs(x), y), "sin": np.sin, "cos": np.cos}


def speeds(text: str, voltages: dict[str, float], time: float = 0.0) -> dict[str, float]:
    """What a behavioural netlist does to its capacitors, read off the text itself: currents into each, over 1 F."""
    known, currents, wires = {"0": 0.0, **voltages}, {}, {}
    for line in text.splitlines():
        word = line.split()
        if not word or word[0][0] not in "rcgbi":
            continue
        kind, a, b = word[0][0], word[1], word[2]
        if kind == "r":
            assert (b, word[3]) == ("0", "1.0")
            wires[a] = True
        elif kind == "c":
            assert (b, word[3]) == ("0", "1.0")
        elif kind == "g":
            given = level(word[3], known, currents, wires) - level(word[4], known, currents, wires)
            currents[b] = currents.get(b, 0.0) + float(word[5]) * given
        elif kind == "i":
            currents[b] = currents.get(b, 0.0) + float(word[3])
        else:
            what, _, expression = line.split(maxsplit=3)[3].partition("=")
            value = computed(expression, known, currents, wires, time)
            if what == "v":
                known[a] = value
            else:
                currents[b] = currents.get(b, 0.0) + value
    return {node: currents.get(node, 0.0) for node in voltages}


def level(node, known, currents, wires) -> float:
    assert node in known or wires[node], f"{node} is read before it is there"
    return known[node] if node in known else currents[node]


def computed(expression, known, currents, wires, time):
    python = re.sub(r"\bv\((\w+)\)", lambda m: repr(float(level(m[1], known, currents, wires))), expression)
    while "?" in python:
        python = chosen(python)
    return eval(python, {"__builtins__": {}}, {**TONGUE, "time": time})


def chosen(text):
    """The last `(p?a:b)`, in which there is no other, as Python writes it."""
    start, depth, cuts = text.rindex("?"), 0, []
    while depth <= 0:
        start -= 1
        depth += {"(": 1, ")": -1}.get(text[start], 0)
    depth = 0
    for n in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[n], 0)
        if depth == 1 and text[n] in "?:":
            cuts.append(n)
        if depth == 0:
            ask, yes, no = text[start + 1 : cuts[0]], text[cuts[0] + 1 : cuts[1]], text[cuts[1] + 1 : n]
            return f"{text[:start]}(({yes}) if ({ask}) else ({no})){text[n + 1 :]}"
    raise AssertionError(text)


def relaxation(neurons: str, synapses: tuple[str, ...], getkey, length: int = 3):
    energy, _ = families.make_energy(getkey(), neurons=neurons, synapses=synapses)
    evidence = ed.flow.Given(jnp.arange(length) % 5, jnp.arange(length) == 1)
    return ed.flow.Relaxation(energy, evidence), 0.7 * jax.random.normal(getkey(), (length, 8))


def softmax_memory(getkey, n=16, m=5, beta=0.8):
    """A dense memory and a pattern of it with five of its signs turned."""
    memory = ed.energy.DenseMemory(n, memories=m, neurons=ed.energy.Softmax(beta=beta), key=getkey())
    memory = eqx.tree_at(lambda memory: memory.patterns, memory, jnp.sign(memory.patterns))
    network = ed.energy.Network(ed.energy.Identity(), {"memory": memory}, jnp.zeros(n))
    energy = ed.energy.FreeEnergy(network, ed.energy.Vocabulary(2, n, key=getkey()), kappa=1.0)
    start = memory.patterns[:1].at[0, :5].multiply(-1.0)
    return ed.flow.Relaxation(energy, ed.flow.Masked(1)), start


@pytest.mark.parametrize("neurons", families.NEURONS)
def test_the_text_computes_the_field(neurons, getkey):
    """All synapses at once, and of the stacks, of which a network has one, each in turn."""
    stacks = ["deep", "deep rotary", "deep in blocks", "deep shifted", "deep shifted in order"]
    others = (name for name in families.SYNAPSES if name not in stacks)
    stack = stacks[list(families.NEURONS).index(neurons) % len(stacks)]
    field, y = relaxation(neurons, (*others, stack), getkey)
    made = circuit.lower(field, y)
    force = jax.jit(lambda y: field(0.0, y))
    for state in (y, -0.4 * y[::-1]):
        wanted = np.asarray(force(state)).reshape(-1)
        found = speeds(made.deck(t1=1.0), dict(zip(made.nodes, np.asarray(state).reshape(-1), strict=True)))
        assert np.allclose([found[node] for node in made.nodes], wanted, rtol=1e-10, atol=1e-10)


FUNCTIONS = {
    "softmax": jax.nn.softmax,
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "leaky": jax.nn.leaky_relu,
    "clip": lambda y: jnp.clip(y, -0.3, 0.4),
    "cumsum": lambda y: jnp.cumsum(y) - jnp.cumsum(y[::-1])[::-1],
    "norm": lambda y: y / jnp.sqrt(jnp.sum(y**2) + 0.1),
    "powers": lambda y: y**3 + 1 / (2 + y**2) + jnp.sign(y) * jnp.expm1(0.1 * y),
    "counts": lambda y: y * jnp.sum(y > 0.1) + (jnp.arange(5) // 2),
    "moves": lambda y: jnp.roll(y, 1) + jnp.pad(y[1:], (0, 1)) + y[jnp.array([2, 0, 1, 1, 3])],
    "waves": lambda y: jnp.sin(y) * jnp.cos(2 * y) + jnp.abs(y) ** 1.5,
    "where": lambda y: jnp.where(y[::-1] >= y, jnp.minimum(y, 0.2), -y),
    "barrier": lambda y: y[::-1] * jax.lax.optimization_barrier((y, 2 * y))[1],
    "powers of a signed base": lambda y: y ** jnp.array(3.0) + (y - 2.0) ** jnp.array(-1.0),
    "force of a bound": jax.grad(lambda y: jnp.sum(jnp.clip(y, -0.3, 0.4) ** 2 + jnp.maximum(y, y[::-1]) ** 3)),
    "force of extremes": jax.grad(lambda y: jnp.max(y**2) - jnp.min(y) ** 3 + jnp.max(jnp.stack([y, 2 * y]))),
    "sorted out": lambda y: jnp.max(y) - jnp.min(y) + jnp.mean(y) * y,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_rule_computes_what_jax_does(name, getkey):
    function = FUNCTIONS[name]
    y = jax.random.normal(getkey(), (5,))
    made = circuit.lower(lambda t, y: function(y) - 0.5 * t * y, y, t0=0.25)
    for state in (y, -y):
        found = speeds(made.deck(t1=1.0), dict(zip(made.nodes, np.asarray(state), strict=True)), 2.0)
        assert np.allclose(list(found.values()), function(state) - 0.5 * 2.25 * state, rtol=1e-12, atol=1e-12), name


def test_equal_signals_are_made_once_and_what_cancels_is_not_made(getkey):
    field, y = softmax_memory(getkey)
    made = circuit.lower(field, y)
    # two crossbars and a leak are all that is linear; nobody knows anything, so the vocabulary does not pull
    weights = len(re.findall(r"^g\d", made.deck(t1=1.0), re.M))
    assert weights <= 2 * 16 * 5 + 16 + 2 * 5 + 16 and made.elements < 260
    assert circuit.lower(field, y).deck(t1=1.0) == made.deck(t1=1.0)


def test_states_may_be_trees_with_strange_names():
    start = {"V+": jnp.ones(2), "v+": (jnp.zeros(()), jnp.full((1, 2), 2.0))}
    made = circuit.lower(lambda t, s: jax.tree.map(lambda leaf: 1.0 - leaf, s), start, title="été\n.end")
    deck = made.deck(t1=1.0)
    names = [escape(node) for node in made.nodes]
    assert len(set(names)) == 5 and all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)
    assert deck.startswith("* t  .end\n") and deck.count(".end\n") == 2 and deck.isascii()
    waves = made.unflatten(np.arange(10.0).reshape(2, 5))
    assert jax.tree.structure(waves) == jax.tree.structure(start) and waves["v+"][1].shape == (2, 1, 2)
    # of two components on one node each would charge the capacitor of the other
    alike = circuit.lower(lambda t, s: s, {"a": jnp.ones(2), "a_0": jnp.zeros(())})
    assert len(set(alike.nodes)) == 3


@hypothesis.given(st.text(min_size=1), st.text(min_size=1))
def test_different_names_stay_different(one, other):
    assert (escape(one) == escape(other)) == (one == other)
    assert re.fullmatch(r"0|[a-z_][a-z0-9_]*", escape(one))


def test_a_primitive_without_a_rule_is_named_and_a_rule_can_be_added():
    field = lambda t, y: jax.lax.erf(y) - y
    with pytest.raises(ValueError, match=r"primitive 'erf', which has no rule; .*rules=\{'erf'"):
        circuit.lower(field, jnp.ones(2))

    def erf(graph, params, x):  # a well-known approximation
        bent = lambda e: graph.total([(1.128, e), (0.1009, graph.apply("mul", e, graph.apply("mul", e, e)))])
        return graph.each(lambda e: graph.apply("tanh", bent(e)), x)

    made = circuit.lower(field, jnp.ones(2), rules={"erf": erf})
    found = speeds(made.deck(t1=1.0), {"y_0": 0.3, "y_1": -0.8})
    assert np.allclose(list(found.values()), jax.lax.erf(jnp.array([0.3, -0.8])) - jnp.array([0.3, -0.8]), atol=1e-3)


@pytest.mark.parametrize(
    ("field", "state", "sentence"),
    [
        (lambda t, y: y, jnp.zeros(0), r"`state` is empty"),
        (lambda t, y: y, jnp.array([jnp.nan]), r"`state` is not finite"),
        (lambda t, y: y[:1], jnp.ones(2), r"`field` returns another structure"),
        (lambda t, y: jnp.log(y), jnp.zeros(2), r"`field` is not finite at `state`: log gives -inf"),
        (lambda t, y: y / 0.0, jnp.ones(2), r"`field` is not finite at `state`: div gives inf"),
        (lambda t, y: y**2.5, -jnp.ones(2), r"`field` is not finite at `state`: pow gives nan"),
        (lambda t, y: jnp.sqrt(y), -jnp.ones(2), r"`field` is not finite at `state`: sqrt gives nan"),
        (lambda t, y: y.astype(int) - y, jnp.ones(2), r"`field` turns a signal into int64"),
    ],
)
def test_lower_names_what_is_wrong(field, state, sentence):
    with pytest.raises(ValueError, match=sentence):
        circuit.lower(field, state)


def test_netlist_names_what_is_wrong():
    netlist = Netlist("wrong")
    with pytest.raises(ValueError, match=r"`ohms` is 0.0 between 'a' and '0'"):
        netlist.resistor("a", "0", 0.0)
    with pytest.raises(ValueError, match="finite numbers"):
        netlist.follows("0", "a", "b", "0", np.float64("nan"))
    with pytest.raises(ValueError, match="`name` is empty"):
        netlist.current("", "0", 1.0)
    # numpy's own floats must not write their type into the text
    netlist = Netlist("right")
    netlist.current("a", "0", np.float64(0.1))
    assert "i1 a 0 0.1\n" in netlist.text()
    made = circuit.lower(lambda t, y: -y, jnp.ones(1))
    with pytest.raises(ValueError, match=r"`max_step` is 0; expected a positive number"):
        made.deck(t1=1.0, max_step=0)
    with pytest.raises(ValueError, match=r"`max_step`=2.0 is longer than `t1`=1.0"):
        made.deck(t1=1.0, max_step=2.0)
    with pytest.raises(ValueError, match=r"`max_step` is 0; expected a positive number"):
        made.expected_seconds(t1=1.0, max_step=0)
    with pytest.raises(ValueError, match=r"`t1` is inf"):
        made.deck(t1=float("inf"))


def test_a_netlist_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    made = circuit.lower(lambda t, y: -y, jnp.ones(1))
    path = made.save(tmp_path / "a.cir", t1=1.0)
    before = path.read_text()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="cannot be written .No space left on device.; what was there is kept"):
        made.save(path, t1=2.0)
    assert path.read_text() == before and [each.name for each in tmp_path.iterdir()] == ["a.cir"]


def impostor(tmp_path, monkeypatch, body: str, version: str = "ngspice-39") -> None:
    """A program that says it is ngspice."""
    program = tmp_path / "spice"
    program.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "** {version}"; exit 0; fi\n{body}\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("ENERGY_DLLM_NGSPICE", str(program))


HEAD = r"printf 'Flags: real\nNo. Variables: 2\nNo. Points: 1\nVariables:\n\t0\ttime\ttime\n\t1\tv(y_0)\tvoltage\n"


@pytest.mark.parametrize(
    ("body", "error", "sentence"),
    [
        ("echo 'singular matrix: check nodes' >&2; exit 1", OSError, "exit code 1.*singular matrix"),
        ("echo nothing to say", OSError, "failed .*nothing to say"),
        ("echo stop > out.raw", OSError, "wrote no waveforms"),
        (HEAD + r"Binary:\n' > out.raw", OSError, "wrote 0 bytes of 1 points"),
        (HEAD + r"Binary:\n0123456701234567' > out.raw", OSError, "stopped at time"),
        ("sleep 9", TimeoutError, r"did not finish 2 elements within `patience`=0.5 s"),
    ],
)
def test_a_simulator_that_fails_is_quoted(body, error, sentence, tmp_path, monkeypatch):
    impostor(tmp_path, monkeypatch, body)
    made = circuit.lower(lambda t, y: -y, jnp.ones(1))
    with pytest.raises(error, match=sentence):
        circuit.simulate(made, t1=1.0, patience=0.5)


def test_a_simulator_that_is_missing_or_old_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("ENERGY_DLLM_NGSPICE", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"apt install ngspice.*brew install ngspice.*conda-forge ngspice"):
        circuit.find_ngspice()
    monkeypatch.setenv("ENERGY_DLLM_NGSPICE", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match=r"ENERGY_DLLM_NGSPICE=.*none is not a program"):
        circuit.find_ngspice()
    impostor(tmp_path, monkeypatch, "", version="ngspice-31")
    with pytest.raises(OSError, match="is ngspice 31; expected 36 or newer"):
        circuit.find_ngspice()


@ngspice
def test_dense_memory_follows_diffrax_with_order_two(getkey):
    field, y = softmax_memory(getkey)
    made = circuit.lower(field, y)
    runs = [circuit.simulate(made, t1=8.0, max_step=step) for step in (0.008, 0.004, 0.001)]
    rough, half, fine = (circuit.Comparison(field, y, run) for run in runs)
    assert rough.largest / half.largest > 3
    assert fine.largest <= 1e-6 and fine.end < 1e-8
    # what was compared moved: the answer is the stored pattern, the start was not
    assert jnp.abs(y - runs[-1].final).max() > 1.5


@ngspice
def test_energy_transformer_follows_diffrax(getkey):
    synapses = {
        "attention": ed.energy.Attention(8, heads=2, head_dim=4, key=getkey()),
        "memory": ed.energy.DenseMemory(8, memories=16, neurons=ed.energy.Rectifier(), key=getkey()),
    }
    network = ed.energy.Network(ed.energy.LayerNorm(), synapses, 0.1 * jax.random.normal(getkey(), (8,)))
    energy = ed.energy.FreeEnergy(network, ed.energy.Vocabulary(5, 8, key=getkey()), kappa=4.0)
    field, y = ed.flow.Relaxation(energy, ed.flow.Masked(8)), jax.random.normal(getkey(), (8, 8))
    path = circuit.simulate(circuit.lower(field, y), t1=3.0, max_step=0.02)
    assert circuit.Comparison(field, y, path).relative <= 1e-4
    assert path.states.shape == (len(path.times), 8, 8)


@ngspice
def test_simulator_agrees_on_every_function(getkey):
    y = 0.4 * jax.random.normal(getkey(), (5,))
    # all but those that jump: where they do, a step is as good as its length
    smooth = [function for name, function in FUNCTIONS.items() if not name.startswith(("counts", "force"))]
    field = lambda t, y: 0.2 * sum(f(y) for f in smooth) - 2.0 * y + jnp.sin(t)
    path = circuit.simulate(circuit.lower(field, y, t0=0.5), t1=0.5, max_step=0.002)
    # reference by Heun's method in small steps: nothing of flow is needed for a field without an energy
    step = jax.jit(lambda t, y: y + 5e-4 * (field(t, y) + field(t + 1e-3, y + 1e-3 * field(t, y))))
    for n in range(500):
        y = step(0.5 + 1e-3 * n, y)
    assert np.allclose(path.final, y, atol=2e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_loop_of_fixed_length_is_unrolled(reverse):
    def field(t, y):
        last, path = jax.lax.scan(lambda c, x: (jnp.tanh(c + x), c * x), y[0], y, reverse=reverse)
        return path - y + last

    y = jnp.array([0.5, -1.0, 0.3])

    def loop(t, y):
        carry, path = y[0], [0.0] * 3
        for n in (2, 1, 0) if reverse else (0, 1, 2):
            path[n], carry = carry * y[n], jnp.tanh(carry + y[n])
        return jnp.stack(path) - y + carry

    assert ed.circuit.lower(field, y).deck(t1=1.0) == ed.circuit.lower(loop, y).deck(t1=1.0)
