"""Float64, one thread a process, shapes checked at run time, seeds that can be read off a failure."""

import gc
import itertools
import os
import time
import zlib
from importlib.metadata import version
from pathlib import Path


# Read when jax starts, hence before it is imported: `-n 2` processes of one thread each, not two of many.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
# The emitter of before compiles twice as fast: the new one sets up MLIR afresh for every kernel. A program that is not
# split for threads there are none of takes 40 % fewer memory maps. Weights that a test closes over are not computed
# with by the compiler, which is slow at it. A jaxlib that does not know a flag any more would end here, hence not for
# those to come.
if version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] += " --xla_disable_hlo_passes=constant_folding"
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import jaxtyping  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402


# Must precede the first import of the package; users never pay for these checks.
jaxtyping.install_import_hook("energy_dllm", "typechecker.typechecker")

jax.config.update("jax_enable_x64", True)
# The tests compile much and compute little: few optimisations, and nothing twice.
jax.config.update("jax_disable_most_optimizations", True)

hypothesis.settings.register_profile("laws", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("laws")

TESTS = itertools.count()
MAPS = Path("/proc/self/maps")


def pytest_configure(config: pytest.Config):
    """What is compiled is kept for the other process and for the next run; `pytest --cache-clear` forgets it."""
    cache = getattr(config, "cache", None)  # there is none under `-p no:cacheprovider`
    if cache is None:
        return
    kept = cache.mkdir("compiled")
    if not hasattr(config, "workerinput"):
        for file in kept.iterdir():
            if time.time() - file.stat().st_mtime > 7 * 86_400:
                file.unlink()
    jax.config.update("jax_compilation_cache_dir", str(kept))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_collection_finish(session: pytest.Session):
    """What is loaded stays: nobody looks through it for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


class GetKey:
    """`getkey()` is a fresh random key at every call; a failing test's report shows the seed."""

    def __init__(self, seed: int):
        self.seed = seed
        self.calls = 0

    def __call__(self) -> jax.Array:
        self.calls += 1
        return jax.random.fold_in(jax.random.key(self.seed), self.calls)

    def normal(self, shape: tuple[int, ...]) -> jax.Array:
        """Normal numbers, drawn without anything to compile."""
        self.calls += 1
        return jax.device_put(np.random.default_rng((self.seed, self.calls)).normal(size=shape))

    def __repr__(self) -> str:
        return f"getkey(seed={self.seed})"


@pytest.fixture(autouse=True)
def elbow_room():
    """Linux gives a process 65,530 memory maps. Compiled programs use them up, and one too many ends it unasked."""
    yield
    # a test uses hundreds, and to count them takes milliseconds
    if next(TESTS) % 4 == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > 50_000:
        jax.clear_caches()


@pytest.fixture
def getkey(request: pytest.FixtureRequest) -> GetKey:
    """Seeded by the test's own name; `SEED=7 pytest` draws other numbers."""
    return GetKey(zlib.crc32(f"{os.environ.get('SEED', '')}{request.node.nodeid}".encode()) % 2**31)


@pytest.fixture
def optimised():
    """Compiled as for a user: where a test computes for longer than it compiles."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def unchecked():
    """As a user runs it: without the shape checks of the tests, which would speak before our own messages."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def programs():
    """How many were asked of the compiler since the last look."""
    count = 0

    def counted(event: str, *_, **__) -> None:
        nonlocal count
        count += event == "/jax/core/compile/backend_compile_duration"

    def since() -> int:
        nonlocal count
        count, before = 0, count
        return before

    jax.monitoring.register_event_duration_secs_listener(counted)
    yield since
    jax.monitoring.clear_event_listeners()
