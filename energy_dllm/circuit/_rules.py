"""How each primitive of jax becomes signals: `RULES`, from the primitive's name to a function.

A rule is `(graph, params, *operands) -> array`, or a list of arrays for a primitive with several results. Operands and
results are numpy object arrays whose entries are floats or nodes of the graph. What only moves entries about is done by
numpy; what is linear goes through `graph.total`; the rest through `graph.apply`, entry by entry.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ._graph import Graph, Node


Rule = Callable[..., Any]


def _elementwise(name: str) -> Rule:
    return lambda graph, params, *operands: graph.each(lambda *e: graph.apply(name, *e), *operands)


def _linear(*weights: float) -> Rule:
    return lambda graph, params, *operands: graph.each(lambda *e: graph.total(zip(weights, e, strict=True)), *operands)


def _compare(graph: Graph, params: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return graph.each(lambda a, b: graph.apply("above", a, b), x, y)


def _not_above(graph: Graph, params: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return graph.each(lambda a, b: graph.total([(-1.0, graph.apply("above", a, b))], 1.0), x, y)


def _equal(graph: Graph, a: Any, b: Any) -> Any:
    """Two voltages are equal for no longer than a moment, unless they are one node, or one is the maximum of several.

    jax compares a maximum with its arguments to find the one that its derivative belongs to.
    """
    if a is b or a == b:
        return 1.0
    for one, other in ((a, b), (b, a)):
        for op in ("max", "min"):
            rest = _without(one, other, op)
            if rest is not None:
                extreme = functools.reduce(lambda x, y, op=op: graph.apply(op, x, y), rest)
                exceeded = graph.apply("above", *((extreme, one) if op == "max" else (one, extreme)))
                return graph.total([(-1.0, exceeded)], 1.0)
    return 0.0


def _without(one: Any, extreme: Any, op: str) -> list | None:
    """The arguments of a maximum (or minimum) of several besides `one`; None if `one` is not among them."""
    if extreme is one or extreme == one:
        return []
    if isinstance(extreme, Node) and extreme.op == op:
        for branch, beside in (extreme.args, extreme.args[::-1]):
            rest = _without(one, branch, op)
            if rest is not None:
                return [beside, *rest]
    return None


def _integer_pow(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    return graph.each(lambda entry: _whole(graph, entry, params["y"]), x)


def _whole(graph: Graph, entry: Any, exponent: int) -> Any:
    result = 1.0
    for _ in range(abs(exponent)):
        result = graph.apply("mul", entry, result)
    return result if exponent >= 0 else graph.apply("div", 1.0, result)


def _pow(graph: Graph, params: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # the simulator's own power is that of the absolute value
    whole = lambda exponent: isinstance(exponent, float) and abs(exponent) <= 64 and exponent.is_integer()
    power = lambda a, b: _whole(graph, a, int(b)) if whole(b) else graph.apply("pow", a, b)
    return graph.each(power, x, y)


def _exp(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    return graph.each(lambda e: graph.apply("exp", e), x)


def _logistic(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    # of the two forms the one that cannot overflow
    half = lambda e: graph.apply("tanh", graph.total([(0.5, e)]))
    return graph.each(lambda e: graph.total([(0.5, half(e))], 0.5), x)


def _log1p(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    return graph.each(lambda e: graph.apply("log", graph.total([(1.0, e)], 1.0)), x)


def _expm1(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    return graph.each(lambda e: graph.total([(1.0, graph.apply("exp", e))], -1.0), x)


def _rsqrt(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    return graph.each(lambda e: graph.apply("div", 1.0, graph.apply("sqrt", e)), x)


def _square(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    return graph.each(lambda e: graph.apply("mul", e, e), x)


def _sign(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    above = lambda a, b: graph.apply("above", a, b)
    return graph.each(lambda e: graph.total([(1.0, above(e, 0.0)), (-1.0, above(0.0, e))]), x)


def _clamp(graph: Graph, params: Any, low: np.ndarray, x: np.ndarray, high: np.ndarray) -> np.ndarray:
    inside = lambda a, e, b: graph.apply("min", graph.apply("max", e, a), b)
    return graph.each(inside, low, x, high)


def _select(graph: Graph, params: Any, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    if len(cases) != 2:
        raise ValueError(f"select_n has {len(cases)} cases; expected two, written as jnp.where.")
    return graph.each(lambda p, no, yes: graph.apply("choose", p, yes, no), which, *cases)


def _reduce(combine: Callable[[Graph, Any, Any], Any]) -> Rule:
    def rule(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
        return _along(params["axes"], x, lambda row: in_pairs(graph, list(row)))

    def in_pairs(graph, left):  # so that no expression gets deep
        while len(left) > 1:
            paired = [combine(graph, a, b) for a, b in zip(left[::2], left[1::2], strict=False)]
            left = paired + left[len(left) - len(left) % 2 :]
        return left[0]

    return rule


def _reduce_sum(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    return _along(params["axes"], x, lambda row: graph.total((1.0, entry) for entry in row))


def _along(axes: tuple, x: np.ndarray, reduce: Callable[[np.ndarray], Any]) -> np.ndarray:
    """One entry for all that differ along `axes` only."""
    kept = [n for n in range(x.ndim) if n not in axes]
    shape = [x.shape[n] for n in kept]
    rows = x.transpose([*kept, *axes]).reshape(int(np.prod(shape)), -1)
    out = np.empty(len(rows), object)
    for n, row in enumerate(rows):
        out[n] = reduce(row)
    return out.reshape(shape)


def _cumsum(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    x = np.moveaxis(x, params["axis"], 0)
    x = x[::-1] if params["reverse"] else x
    out = x.copy()
    for n in range(1, len(x)):
        out[n : n + 1] = graph.each(lambda a, b: graph.total([(1.0, a), (1.0, b)]), out[n - 1 : n], x[n : n + 1])
    return np.moveaxis(out[::-1] if params["reverse"] else out, 0, params["axis"])


def _dot_general(graph: Graph, params: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (cx, cy), (bx, by) = params["dimension_numbers"]
    fx = [n for n in range(x.ndim) if n not in (*cx, *bx)]
    fy = [n for n in range(y.ndim) if n not in (*cy, *by)]
    batch = [x.shape[n] for n in bx]
    shape = [*batch, *(x.shape[n] for n in fx), *(y.shape[n] for n in fy)]
    inner = int(np.prod([x.shape[n] for n in cx]))
    x = x.transpose([*bx, *fx, *cx]).reshape(int(np.prod(batch)), -1, inner)
    y = y.transpose([*by, *fy, *cy]).reshape(int(np.prod(batch)), -1, inner)
    # what is itself a sum of many is summed once, on its own wire, not once for everyone who reads it
    x, y = graph.each(graph.wire, x), graph.each(graph.wire, y)
    out = np.empty((x.shape[0], x.shape[1], y.shape[1]), object)
    for n in range(x.shape[0]):
        for i, row in enumerate(x[n]):
            for j, column in enumerate(y[n]):
                out[n, i, j] = graph.wire(_inner(graph, row, column))
    return out.reshape(shape)


def _inner(graph: Graph, row: np.ndarray, column: np.ndarray) -> Any:
    parts = []
    for a, b in zip(row, column, strict=True):
        if isinstance(a, float):
            parts.append((a, b))
        elif isinstance(b, float):
            parts.append((b, a))
        else:
            parts.append((1.0, graph.apply("mul", a, b)))
    return graph.total(parts)


def _broadcast(graph: Graph, params: Any, x: np.ndarray, *_: Any) -> np.ndarray:
    shape, places = params["shape"], params["broadcast_dimensions"]
    if int(np.prod(shape)) > x.size:  # a sum that many will read gets its own wire
        x = graph.each(graph.wire, x)
    spread = [1] * len(shape)
    for size, place in zip(x.shape, places, strict=True):
        spread[place] = size
    return np.broadcast_to(x.reshape(spread), shape)


def _pad(graph: Graph, params: Any, x: np.ndarray, value: np.ndarray) -> np.ndarray:
    config = params["padding_config"]
    out = np.full([low + high + n + max(n - 1, 0) * mid for n, (low, high, mid) in zip(x.shape, config, strict=True)],
                  value.item(), object)  # fmt: skip
    # negative padding cuts: entries beyond the rim are left out
    places = [low + np.arange(n) * (mid + 1) for n, (low, _, mid) in zip(x.shape, config, strict=True)]
    inside = [(p >= 0) & (p < n) for p, n in zip(places, out.shape, strict=True)]
    out[np.ix_(*(p[i] for p, i in zip(places, inside, strict=True)))] = x[np.ix_(*inside)]
    return out


def _slice(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    strides = params["strides"] or (1,) * x.ndim
    limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return x[tuple(slice(*limit) for limit in limits)]


def _split(graph: Graph, params: Any, x: np.ndarray) -> list[np.ndarray]:
    return np.split(x, np.cumsum(params["sizes"])[:-1], axis=params["axis"])


def _unstack(graph: Graph, params: Any, x: np.ndarray) -> list[np.ndarray]:
    x = np.moveaxis(x, params["axis"], 0)
    return [x[n : n + 1].reshape(x.shape[1:]) for n in range(len(x))]


def _all_true(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    # voltages are finite; what is infinite by then is a constant
    return graph.each(lambda e: float(np.isfinite(e)) if isinstance(e, float) else 1.0, x)


def _or(graph: Graph, x: Any, y: Any) -> Any:
    return graph.apply("max", x, y)


def _and(graph: Graph, x: Any, y: Any) -> Any:
    return graph.apply("min", x, y)


def _binary(combine: Callable[[Graph, Any, Any], Any]) -> Rule:
    return lambda graph, params, x, y: graph.each(lambda a, b: combine(graph, a, b), x, y)


def _not(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    return graph.each(lambda e: graph.total([(-1.0, e)], 1.0), x)


def _convert(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    if np.issubdtype(params["new_dtype"], np.floating):
        return x
    if not all(isinstance(e, float) or _is_truth(e) for e in x.reshape(-1)):
        raise ValueError(f"`field` turns a signal into {params['new_dtype']}; expected fields without rounding.")
    return graph.each(lambda e: float(int(e)) if isinstance(e, float) else e, x)


def _is_truth(entry: Any) -> bool:
    """Whether an entry is made of answers, 0 or 1, alone."""
    if isinstance(entry, float):
        return True
    return entry.op == "above" or (entry.op in ("sum", "wire", "min", "max") and all(map(_is_truth, entry.args)))


def _same(graph: Graph, params: Any, x: np.ndarray) -> np.ndarray:
    return x


RULES: dict[str, Rule] = {
    "add": _linear(1.0, 1.0),
    "add_any": _linear(1.0, 1.0),
    "sub": _linear(1.0, -1.0),
    "neg": _linear(-1.0),
    "mul": _elementwise("mul"),
    "div": _elementwise("div"),
    "exp": _exp,
    "exp2": lambda graph, params, x: _exp(graph, params, _linear(float(np.log(2)))(graph, params, x)),
    "log": _elementwise("log"),
    "log1p": _log1p,
    "expm1": _expm1,
    "tanh": _elementwise("tanh"),
    "logistic": _logistic,
    "sqrt": _elementwise("sqrt"),
    "rsqrt": _rsqrt,
    "square": _square,
    "integer_pow": _integer_pow,
    "pow": _pow,
    "sin": _elementwise("sin"),
    "cos": _elementwise("cos"),
    "abs": _elementwise("abs"),
    "sign": _sign,
    "max": _elementwise("max"),
    "min": _elementwise("min"),
    "clamp": _clamp,
    "gt": _compare,
    "lt": lambda graph, params, x, y: _compare(graph, params, y, x),
    "le": _not_above,
    "ge": lambda graph, params, x, y: _not_above(graph, params, y, x),
    "eq": _binary(_equal),
    "ne": lambda graph, params, x, y: _not(graph, params, _binary(_equal)(graph, params, x, y)),
    "and": _binary(_and),
    "or": _binary(_or),
    "not": _not,
    "is_finite": _all_true,
    "select_n": _select,
    "reduce_sum": _reduce_sum,
    "reduce_max": _reduce(lambda graph, a, b: graph.apply("max", a, b)),
    "reduce_min": _reduce(lambda graph, a, b: graph.apply("min", a, b)),
    "reduce_or": _reduce(_or),
    "reduce_and": _reduce(_and),
    "cumsum": _cumsum,
    "dot_general": _dot_general,
    "broadcast_in_dim": _broadcast,
    "reshape": lambda graph, params, x, *_: x.reshape(params["new_sizes"]),
    "transpose": lambda graph, params, x: x.transpose(params["permutation"]),
    "squeeze": lambda graph, params, x: np.squeeze(x, params["dimensions"]),
    "expand_dims": lambda graph, params, x: np.expand_dims(x, params["dimensions"]),
    "concatenate": lambda graph, params, *xs: np.concatenate(xs, axis=params["dimension"]),
    "stack": lambda graph, params, *xs: np.stack(xs, axis=params["axis"]),
    "unstack": _unstack,
    "split": _split,
    "slice": _slice,
    "pad": _pad,
    "rev": lambda graph, params, x: np.flip(x, params["dimensions"]),
    "copy": _same,
    "stop_gradient": _same,
    "optimization_barrier": lambda graph, params, *xs: list(xs),
    "convert_element_type": _convert,
    "reduce_precision": _same,
}
"""The rules of `lower` by the name of the primitive; `lower(rules=)` adds others."""
