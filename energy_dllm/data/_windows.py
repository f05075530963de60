from collections.abc import Iterator

import numpy as np
from jaxtyping import Integer


class Windows(Iterator[np.ndarray]):
    """An endless stream of batches of windows cut at random places of a text.

    Batch `n` is a function of `(seed, n)` alone (a counter-based generator, Philox), so the whole state is
    one number and a stopped training resumes exactly.

    **Arguments:**

    - `ids (N,)`: the text; may be memory-mapped, only the requested windows are read.
    - `length`: tokens of a window `L`.
    - `batch`: windows of a batch.
    - `seed`: which stream.
    - `whole`: windows begin at multiples of `length` only, as those of pictures do, which stand one after another.

    **Returns:** an iterator of int32 arrays `(batch, length)`.

    **Raises:** `ValueError` if the text is shorter than one window, or a size is not positive.

    **Example:**
    ```python
    import numpy as np
    from energy_dllm.data import Windows

    windows = Windows(np.arange(100), length=8, batch=4)
    state = windows.get_state()
    assert next(windows).shape == (4, 8) and state["step"] == 0
    ```
    """

    def __init__(self, ids: Integer[np.ndarray, " N"], *, length: int, batch: int, seed: int = 0, whole: bool = False):
        _check(ids, length)
        if not isinstance(batch, int | np.integer) or batch < 1:
            raise ValueError(f"`batch` must be an integer of at least 1, got {batch!r}.")
        check_seed(seed)
        self.ids = ids
        self.length = int(length)
        self.batch = int(batch)
        self.seed = int(seed)
        self.whole = whole
        self._step = 0

    def __next__(self) -> Integer[np.ndarray, "batch length"]:
        windows = self.at(self._step)
        self._step += 1
        return windows

    def at(self, step: int, rows: Integer[np.ndarray, "*rows"] | None = None) -> Integer[np.ndarray, "*rows length"]:
        """Batch number `step` of the stream, without moving it; only these `rows` of it, by number, are read."""
        # Raw draws, because their meaning is fixed across numpy versions; the bias of % is below N / 2^64.
        raw = np.random.Philox(key=self.seed, counter=step << 64).random_raw(self.batch)
        places = len(self.ids) // self.length if self.whole else len(self.ids) - self.length + 1
        starts = (raw % np.uint64(places)).astype(np.int64) * (self.length if self.whole else 1)
        starts = starts if rows is None else starts[rows]
        return np.asarray(self.ids[starts[..., None] + np.arange(self.length)], np.int32)

    def get_state(self) -> dict[str, int]:
        """The position of the stream: a few integers, ready for JSON."""
        return {"step": self._step, **self._identity()}

    def set_state(self, state: dict[str, int]) -> None:
        """Continue from a state of `get_state`.

        **Raises:** `ValueError` if the state is of a stream with another text, seed or shape.
        """
        step = state.get("step") if isinstance(state, dict) else None
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise ValueError(f"`state` must be a dictionary made by `get_state`, got {state!r}.")
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(
                    f"`state` has {name} {state.get(name)}, but this stream has {value}; "
                    "resume with the text, seed and sizes of the stopped run."
                )
        self._step = step

    def _identity(self) -> dict[str, int]:
        return {"seed": self.seed, "length": self.length, "batch": self.batch, "tokens": len(self.ids)}

    @staticmethod
    def disjoint(
        ids: Integer[np.ndarray, " N"], length: int, *, count: int | None = None, seed: int = 0
    ) -> Integer[np.ndarray, "n length"]:
        """Windows side by side, each token at most once: what an evaluation reads.

        **Arguments:**

        - `ids (N,)`: the text; a tail shorter than a window is left out.
        - `length`: tokens of a window `L`.
        - `count`: at most this many windows, drawn without repeats and kept in the order of the text; `None` for
          all.
        - `seed`: which draw.

        **Returns:** int32 array `(min(count, N // length), length)`.

        **Raises:** `ValueError` if the text is shorter than one window, or a size is not positive.

        **Example:**
        ```python
        import numpy as np
        from energy_dllm.data import Windows

        assert Windows.disjoint(np.arange(7), 3).tolist() == [[0, 1, 2], [3, 4, 5]]
        ```
        """
        _check(ids, length)
        check_seed(seed)
        available = len(ids) // length
        if count is None:
            chosen = np.arange(available)
        else:
            if not isinstance(count, int | np.integer) or count < 1:
                raise ValueError(f"`count` must be an integer of at least 1, or None for all, got {count!r}.")
            raw = np.random.Philox(key=seed).random_raw(available)
            chosen = np.sort(np.argsort(raw, kind="stable")[:count])
        return np.asarray(ids[chosen[:, None] * length + np.arange(length)], np.int32)


def check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"`seed` is {seed!r}; expected an integer of at least 0 and below 2**32.")


def _check(ids: np.ndarray, length: int) -> None:
    if not isinstance(length, int | np.integer) or length < 1:
        raise ValueError(f"`length` must be an integer of at least 1, got {length!r}.")
    if np.ndim(ids) != 1 or np.asarray(ids).dtype.kind not in "iu":
        raise ValueError(
            f"`ids` must be a one-dimensional array of integers, "
            f"got {np.asarray(ids).dtype} of shape {np.shape(ids)}; `tokenizer.encode(text)` makes one."
        )
    if len(ids) < length:
        raise ValueError(
            f"`ids` holds {len(ids)} tokens, fewer than one window of {length}; "
            "give a longer text or a smaller `length`."
        )
