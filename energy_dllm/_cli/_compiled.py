"""Compiled programs outlive the process: a command of the same shape starts at once the second time."""

import os
import sys
from importlib.metadata import version
from pathlib import Path


def remember() -> None:
    """Let the next run of a command of the same shape skip compiling; where jax is already at work, change nothing."""
    if "jax" in sys.modules:
        return
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "energy_dllm"
        home.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home folder, or not writable
        return
    if os.access(home, os.W_OK):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(home))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
        # programs that may raise from within are never cached; ours check the numbers they return instead
        os.environ.setdefault("EQX_ON_ERROR", "nan")


def quickly() -> None:
    """Of a command that runs every program a few times only: compile fast rather than well, where jax is not yet at
    work."""
    if "jax" in sys.modules:
        return
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    # the emitter of before compiles twice as fast; a jaxlib that does not know a flag would end the process
    if version("jaxlib").startswith("0.10."):
        flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        os.environ["XLA_FLAGS"] = f"{flags} {os.environ.get('XLA_FLAGS', '')}".strip()
