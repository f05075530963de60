"""The graph a vector field is traced into: scalar signals, sums of them, and functions of them.

A sum of signals with fixed weights will be currents that meet on a wire; everything else one source with an expression.
Equal signals are one node, whatever road led to them.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Node:
    """One scalar signal: `op` of `args`; a `sum` also has `weights` and a `constant`."""

    __slots__ = ("args", "constant", "index", "op", "positive", "weights")

    def __init__(self, index: int, op: str, args: tuple, weights: tuple[float, ...] = (), constant: float = 0.0):
        self.index, self.op, self.args, self.weights, self.constant = index, op, args, weights, constant
        # known to be above 0 whatever the state: spares the circuit questions whose answer is known
        self.positive = op == "exp" or (
            op in ("mul", "div", "sqrt", "wire", "sum") and constant >= 0 and all(map(positive, (*args, *weights)))
        )


def positive(entry: Any) -> bool:
    """Whether an entry is known to be above 0."""
    return entry.positive if isinstance(entry, Node) else entry > 0


class Function(NamedTuple):
    """A scalar function: how the simulator writes it, how it is computed here, and what needs no part of its own.

    `simpler(graph, *entries)` is an equal but simpler signal, or `None`.
    """

    text: str
    value: Callable[..., Any]
    simpler: Callable[..., Any] | None = None


def _value(function):
    """As numpy has it: what is not finite is a number too, and refused where it is read."""

    def value(*entries):
        with np.errstate(all="ignore"):
            return float(function(*entries))

    return value


def _product(graph, x, y):
    for one, other in ((x, y), (y, x)):
        if not isinstance(one, Node):
            return 0.0 if one == 0 else graph.total([(one, other)])
    (a, x), (b, y) = _scaled(x), _scaled(y)
    return graph.total([(a * b, graph.node("mul", (x, y) if x.index <= y.index else (y, x)))])


def _quotient(graph, x, y):
    if not isinstance(y, Node):
        if y == 0 or math.isnan(y):
            return None
        return graph.total([(1 / y, x)]) if math.isfinite(y) else 0.0
    b, y = _scaled(y)
    if not isinstance(x, Node):
        return 0.0 if x == 0 else graph.total([(x / b, graph.node("div", (1.0, y)))])
    a, x = _scaled(x)
    return graph.total([(a / b, graph.node("div", (x, y)))])


def _extreme(limit):
    def simpler(graph, x, y):
        for one, other in ((x, y), (y, x)):
            if not isinstance(one, Node) and one == limit:
                return other
        return x if x is y else None

    return simpler


def _above(graph, x, y):
    for answer, (low, high) in ((0.0, (x, y)), (1.0, (y, x))):
        if not isinstance(low, Node) and low <= 0 and positive(high):
            return answer
    return None


def _choice(graph, p, x, y):
    if not isinstance(p, Node):
        return x if p > 0.5 else y
    return x if x is y else None


def _scaled(node: Node) -> tuple[float, Node]:
    """A signal without its factor, and the factor."""
    if node.op == "sum" and len(node.args) == 1 and node.constant == 0:
        return node.weights[0], node.args[0]
    return 1.0, node


FUNCTIONS: Mapping[str, Function] = {
    "mul": Function("{}*{}", lambda x, y: x * y, _product),
    "div": Function("{}/{}", _value(np.divide), _quotient),
    "exp": Function("exp({})", _value(np.exp)),
    "log": Function("ln({})", _value(np.log)),
    "sqrt": Function("sqrt({})", _value(np.sqrt)),
    "tanh": Function("tanh({})", math.tanh),
    "sin": Function("sin({})", _value(np.sin)),
    "cos": Function("cos({})", _value(np.cos)),
    "abs": Function("abs({})", abs, lambda graph, x: x if positive(x) else None),
    "max": Function("max({},{})", max, _extreme(-math.inf)),
    "min": Function("min({},{})", min, _extreme(math.inf)),
    "pow": Function("pow({},{})", _value(np.power)),
    # 1 or 0; the simulator's step is 1/2 where its argument is 0, this one is not
    "above": Function("({}>{}?1:0)", lambda x, y: float(x > y), _above),
    "choose": Function("({}>0.5?{}:{})", lambda p, x, y: x if p > 0.5 else y, _choice),
    # a sum that is not to be merged into other sums: it has a wire of its own
    "wire": Function("{}", lambda x: x),
}
"""The functions a signal can be of."""

Entry = Any  # a float, or a Node


class Graph:
    """Signals by what they are made of; equal ones are made once.

    A rule of `lower` gets the graph and makes its signals here: `total` for what is linear, `apply` for the functions
    of `FUNCTIONS`. Entries are floats (known now) or nodes (known when the circuit runs).
    """

    def __init__(self):
        self.nodes: list[Node] = []
        self._known: dict[tuple, Node] = {}

    def state(self, place: int) -> Node:
        """The component of the state at `place` of the flattened state."""
        return self.node("state", (place,))

    def time(self) -> Node:
        """The time."""
        return self.node("time", ())

    def total(self, parts: Iterable[tuple[float, Entry]], constant: float = 0.0) -> Entry:
        """`constant + sum weight * entry`; sums inside are merged, a sum without signals is a float."""
        weights: dict[int, float] = {}
        for weight, entry in parts:
            if not isinstance(entry, Node):
                # 0 * inf is a weight that is not there, not NaN
                constant += weight * entry if weight != 0 else 0.0
            elif entry.op == "sum":
                constant += weight * entry.constant
                for inner, w in zip(entry.args, entry.weights, strict=True):
                    weights[inner.index] = weights.get(inner.index, 0.0) + weight * w
            else:
                weights[entry.index] = weights.get(entry.index, 0.0) + weight
        constant = float(constant)
        if not math.isfinite(constant):
            return constant
        terms = sorted((index, weight) for index, weight in weights.items() if weight != 0)
        if not terms:
            return constant
        if constant == 0 and len(terms) == 1 and terms[0][1] == 1:
            return self.nodes[terms[0][0]]
        args = tuple(self.nodes[index] for index, _ in terms)
        return self.node("sum", args, tuple(float(weight) for _, weight in terms), constant)

    def apply(self, name: str, *entries: Entry) -> Entry:
        """A function of `FUNCTIONS`; of floats alone, its value."""
        function = FUNCTIONS[name]
        if not any(isinstance(entry, Node) for entry in entries):
            return function.value(*entries)
        simpler = function.simpler(self, *entries) if function.simpler else None
        return self.node(name, entries) if simpler is None else simpler

    def each(self, function: Callable[..., Entry], *operands: Any) -> np.ndarray:
        """`function(*entries)` entry by entry, over arrays of one shape, or single entries."""
        shape = np.broadcast_shapes(*(np.shape(operand) for operand in operands))
        out = np.empty(shape, object)
        flat = [np.broadcast_to(np.asarray(operand, object), shape).reshape(-1) for operand in operands]
        for n, entries in enumerate(zip(*flat, strict=True)):
            out.reshape(-1)[n] = function(*entries)
        return out

    def wire(self, entry: Entry) -> Entry:
        """`entry` itself, kept from being merged into other sums where it is a sum of several signals."""
        if isinstance(entry, Node) and entry.op == "sum" and len(entry.args) > 1:
            return self.node("wire", (entry,))
        return entry

    def values(self, state: np.ndarray, time: float = 0.0) -> list[float]:
        """Every signal's value at a flattened state."""
        values: list[float] = []
        read = lambda entry: values[entry.index] if isinstance(entry, Node) else entry
        for node in self.nodes:
            if node.op == "state":
                value = float(state[node.args[0]])
            elif node.op == "time":
                value = time
            elif node.op == "sum":
                terms = zip(node.args, node.weights, strict=True)
                value = node.constant + math.fsum(w * values[arg.index] for arg, w in terms)
            else:
                value = FUNCTIONS[node.op].value(*map(read, node.args))
            values.append(float(value))
        return values

    def node(self, op: str, args: tuple, weights: tuple[float, ...] = (), constant: float = 0.0) -> Node:
        """The signal `op` of `args`, as it is; made once."""
        key = (op, tuple(a.index if isinstance(a, Node) else ("is", a) for a in args), weights, constant)
        node = self._known.get(key)
        if node is None:
            node = self._known[key] = Node(len(self.nodes), op, tuple(args), weights, constant)
            self.nodes.append(node)
        return node
