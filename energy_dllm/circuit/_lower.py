"""`lower`: a vector field, traced by jax, as a netlist of ideal parts."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree

from ._circuit import Circuit
from ._graph import Graph, Node
from ._rules import RULES, Rule
from ._write import write


_INNER = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "custom_jvp_call", "custom_vjp_call")


def lower(
    field: Callable[[Any, PyTree[Array]], PyTree[Array]],
    state: PyTree[Array],
    *,
    t0: float = 0.0,
    rules: Mapping[str, Rule] | None = None,
    title: str = "a vector field",
) -> Circuit:
    """A behavioural circuit with the voltages `d state / d time = field(time, state)`.

    Every component of the state is a capacitor of 1 F, one volt a unit of the state and one second a unit of time, so
    that weights appear in the netlist unchanged. Linear parts become controlled currents that meet on a wire, one for
    each weight: a crossbar. Every other scalar is one source with an expression. The equations are those of the model;
    no claim about hardware is made (for that see `Chip`).

    **Arguments:**

    - `field`: any function `(time, state) -> d state / d time` of primitives with a rule, such as `flow.Relaxation`.
    - `state`: where it starts; a PyTree of arrays.
    - `t0`: the time it starts at.
    - `rules`: rules of your own by primitive, `rule(graph, params, *operands)` to an array of signals:
      `graph.total([(weight, signal), ...])` is a sum, `graph.apply(name, *signals)` a function such as `"mul"` or
      `"tanh"`, and `graph.each(function, *operands)` maps a function of signals over arrays of them.
    - `title`: first line of the netlist.

    **Returns:** a `Circuit`.

    **Raises:** `ValueError` for a primitive without a rule, or a field that is not finite at `state`.

    **Example:**

    ```python
    import jax.numpy as jnp, energy_dllm as ed

    circuit = ed.circuit.lower(lambda t, y: jnp.tanh(y[::-1]) - y, jnp.array([0.5, -1.0]))
    assert "tanh(v(y_1))" in circuit.deck(t1=5.0)
    ```
    """
    leaves, structure = jax.tree.flatten(state)
    leaves = [np.asarray(leaf, float) for leaf in leaves]
    start = np.concatenate([leaf.reshape(-1) for leaf in leaves]) if leaves else np.zeros(0)
    if not start.size:
        raise ValueError("`state` is empty; expected at least one number that moves.")
    if not np.isfinite(start).all():
        raise ValueError("`state` is not finite; expected finite numbers to start from.")
    nodes = _names(state)
    closed, shape = jax.make_jaxpr(lambda t, y: field(t, y), return_shape=True)(t0, state)
    if jax.tree.structure(shape) != structure or [a.shape for a in jax.tree.leaves(shape)] != [a.shape for a in leaves]:
        raise ValueError("`field` returns another structure than `state`; expected d state / d time, alike in shape.")
    graph, rules = Graph(), RULES | dict(rules or {})
    places = iter(range(start.size))
    signals = [graph.each(lambda _: graph.state(next(places)), leaf) for leaf in leaves]
    now = np.array(graph.time(), object)
    speeds = _trace(graph, rules, closed.jaxpr, closed.consts, [now, *signals])
    speeds = [entry for speed in speeds for entry in speed.reshape(-1)]
    return Circuit(write(graph, nodes, speeds, start, t0, title), nodes, state)


def _names(state: PyTree[Array]) -> tuple[str, ...]:
    """A node for every component: `y` and its place in the tree and the array, or its number where two are alike."""
    names = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        words = ["y", *(jax.tree_util.keystr((key,), simple=True) for key in path)]
        names += ["_".join([*words, *map(str, place)]) for place in np.ndindex(np.shape(leaf))]
    return tuple(names if len(set(names)) == len(names) else (f"y_{n}" for n in range(len(names))))


def _trace(graph: Graph, rules: Mapping[str, Rule], jaxpr: Any, consts: Any, inputs: list) -> list[np.ndarray]:
    known: dict[Any, Any] = {}
    read = lambda v: known[v] if not hasattr(v, "val") else _entries(v.val)
    known.update(zip(jaxpr.constvars, map(_entries, consts), strict=True))
    known.update(zip(jaxpr.invars, inputs, strict=True))
    for eqn in jaxpr.eqns:
        operands = [read(v) for v in eqn.invars]
        name = eqn.primitive.name
        fixed = not any(_moves(x) for x in operands)
        if name in _INNER:
            inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr", eqn.params.get("fun_jaxpr")))
            body, held = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
            results = _trace(graph, rules, body, held, operands)
        elif name == "scan" and not fixed:
            results = _unrolled(graph, rules, eqn.params, operands)
        elif name in ("gather", "dynamic_slice") and not fixed and not any(map(_moves, operands[1:])):
            results = [_picked(eqn, operands)]
        elif fixed and (name not in rules or any(v.aval.dtype.kind in "iub" for v in eqn.invars)):
            results = _computed(eqn, operands)  # whole numbers have arithmetic of their own
        elif name in rules:
            results = rules[name](graph, eqn.params, *operands)
            results = results if isinstance(results, list) else [results]
        else:
            raise ValueError(
                f"`field` uses the primitive {name!r}, which has no rule; rewrite that part of the model, or pass "
                f"rules={{{name!r}: rule}} with rule(graph, params, *operands) -> array of signals."
            )
        # numpy gives a bare entry where an array of no axes was meant
        results = [r if isinstance(r, np.ndarray) or not _entry(r) else np.asarray(r, object) for r in results]
        known.update(zip(eqn.outvars, results, strict=True))
    return [np.broadcast_to(read(v), v.aval.shape) for v in jaxpr.outvars]


def _unrolled(graph: Graph, rules: Mapping[str, Rule], params: Any, operands: list) -> list[np.ndarray]:
    """A loop of fixed length, one copy of its body after the other."""
    constants, carried = params["num_consts"], params["num_carry"]
    held, carry, rows = np.split(np.arange(len(operands)), [constants, constants + carried])
    carry, made = [operands[n] for n in carry], []
    order = range(params["length"])
    for n in reversed(order) if params["reverse"] else order:
        inputs = [
            *(operands[i] for i in held),
            *carry,
            *(operands[i][n : n + 1].reshape(operands[i].shape[1:]) for i in rows),
        ]
        results = _trace(graph, rules, params["jaxpr"].jaxpr, params["jaxpr"].consts, inputs)
        carry = results[:carried]
        made.append(results[carried:])
    made = made[::-1] if params["reverse"] else made
    return [*carry, *(np.stack(each) for each in zip(*made, strict=True))]


def _entries(value: Any) -> Any:
    """A constant as an array of Python floats; what has no number (a random key) stays what it is."""
    try:
        return np.asarray(np.asarray(value).astype(float), object)
    except (TypeError, ValueError):
        return value


def _entry(x: Any) -> bool:
    return isinstance(x, Node | float)


def _moves(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype == object and any(isinstance(e, Node) for e in x.reshape(-1))


def _bind(eqn: Any, operands: list) -> list:
    with np.errstate(invalid="ignore"):  # an integer that was never made may be NaN here
        typed = [
            np.asarray(x.astype(float), v.aval.dtype) if isinstance(x, np.ndarray) and x.dtype == object else x
            for x, v in zip(operands, eqn.invars, strict=True)
        ]
    out = eqn.primitive.bind(*typed, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


def _computed(eqn: Any, operands: list) -> list:
    """A primitive none of whose operands moves: its value, by jax."""
    return [_entries(x) for x in _bind(eqn, operands)]


def _picked(eqn: Any, operands: list) -> np.ndarray:
    """A primitive that picks entries of its first operand: done with their places instead."""
    x = operands[0]
    places = np.arange(x.size).reshape(x.shape)
    indices = [np.asarray(o.astype(float), v.aval.dtype) for o, v in zip(operands[1:], eqn.invars[1:], strict=True)]
    params = eqn.primitive.get_bind_params(eqn.params)
    return x.reshape(-1)[np.asarray(eqn.primitive.bind(jax.numpy.asarray(places), *indices, **params))]
