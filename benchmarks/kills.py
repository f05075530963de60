"""Trainings that are ended at random moments, and gone on with: is the result the same, to the bit?

    python benchmarks/kills.py --count 50

A toy is trained by `energy-dllm train` once undisturbed, and once while SIGKILL, SIGTERM and SIGINT end it at random
moments of every stage: importing, counting, compiling, both trainings, the evaluation. What is counted: signals that
ended it, how many of those that can be caught saved what was learned and said how to go on, results that differ, and
files that were left behind.

    python benchmarks/kills.py --count 50 --saves

A process that does nothing but save, one file and sharded over eight devices in turn, is ended by SIGKILL at random
moments. What is counted: saves that it had reported as done and that are lost, and folders that cannot be read.
"""

import argparse
import collections
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import safetensors.numpy


KINDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def command(folder: Path) -> list[str]:
    words = [sys.executable, "-m", "energy_dllm", "train", str(folder.parent / "text.txt"), "--out"]
    sizes = "--depth 1 --steps 80 --pretraining 40 --dim 16 --length 8 --batch-size 2 --fit-split-merge".split()
    return [*words, str(folder / "model.safetensors"), *sizes]


def digest(path: Path) -> str:
    """Of the arrays: the notes say how many seconds it took."""
    arrays = safetensors.numpy.load_file(path)
    return hashlib.sha256(b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


SAVER = """
import sys
from pathlib import Path
import jax, numpy as np
from energy_dllm.learn._file import FORMAT, write
from energy_dllm.learn._steps import Steps

folder, first, sharded = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "sharded"
where = jax.NamedSharding(jax.make_mesh((8,), ("fsdp",)), jax.P("fsdp"))
steps = Steps(folder, 2) if sharded else None
for step in range(first, first + 100000):
    made = {f"{n}": np.full((64, 1000), step, np.float32) for n in range(20)}
    if steps is None:
        write(folder / "checkpoint.safetensors", made, {"format": FORMAT, "step": step})
    else:
        steps.save(step, jax.device_put(made, where), {"step": step})
        if step % 2:  # every other one while the next begins
            continue
        steps.manager.wait_until_finished()
    print(step, flush=True)
"""


def saves(count: int, rng: np.random.Generator) -> None:
    """Ends a process that saves, and reads what is there."""
    from energy_dllm.learn._file import read
    from energy_dllm.learn._steps import read_steps

    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    for kind in ("plain", "sharded"):
        folder, first, counts = Path(tempfile.mkdtemp()), 1, collections.Counter({"lost": 0, "unreadable": 0})
        for _ in range(count):
            words = [sys.executable, "-c", SAVER, str(folder), str(first), kind]
            process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            assert process.stdout is not None
            done = int(process.stdout.readline())  # it has begun
            time.sleep(float(rng.uniform(0, 0.5)))
            process.send_signal(signal.SIGKILL)
            done = max([done, *map(int, process.communicate()[0].split())])
            counts["kills"] += 1
            try:
                arrays, header = read_steps(folder) if kind == "sharded" else read(folder / "checkpoint.safetensors")
                counts["lost"] += header["step"] < done
                counts["unreadable"] += not all((array == header["step"]).all() for array in arrays.values())
                first = header["step"] + 1
            except (OSError, ValueError) as error:
                counts["unreadable"] += 1
                print(error, file=sys.stderr)
            counts["saves"] = first
        print(json.dumps({"kind": kind, **counts}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--saves", action="store_true", help="end saves, not trainings")
    asked = parser.parse_args()
    if asked.saves:
        saves(asked.count, np.random.default_rng(asked.seed))
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so do theirs
    rng, home = np.random.default_rng(asked.seed), Path(tempfile.mkdtemp())
    (home / "text.txt").write_text("the cat sat on the mat. a dog saw the cat.\n" * 200)
    env = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XDG_CACHE_HOME": str(home)}
    for folder in ("whole", "again"):  # the second finds all programs compiled, and its time is that of a run
        (home / folder).mkdir()
        start = time.monotonic()
        subprocess.run(command(home / folder), check=True, env=env, capture_output=True)
        seconds = time.monotonic() - start
    whole = digest(home / "whole" / "model.safetensors")
    counts = collections.Counter({"runs": 0, "ended": 0, "different": 0, "stray files": 0, "unexplained": 0})
    counts["different"] += digest(home / "again" / "model.safetensors") != whole
    number = 0
    while counts["ended"] < asked.count:
        folder = home / f"run{counts['runs']}"
        folder.mkdir()
        counts["runs"] += 1
        patience = 0
        while True:  # until the same command comes to its end
            start = time.monotonic()
            process = subprocess.Popen(
                command(folder), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            if patience < 4 and counts["ended"] < asked.count:  # then it may finish
                kind = KINDS[number % len(KINDS)]
                try:
                    process.wait(float(rng.uniform(0, 1.1 * seconds)))
                except subprocess.TimeoutExpired:
                    process.send_signal(kind)
                    number, patience = number + 1, patience + 1
                    _, said = process.communicate()
                    counts["ended"] += 1
                    counts[kind.name] += 1
                    print(counts["ended"], kind.name, process.returncode, said.strip()[-100:], file=sys.stderr)
                    counts["said how to go on"] += "run the same again" in said
                    # what came before Python looked at signals, or after the work, need not be explained
                    fine = process.returncode in (0, -kind, 128 + kind) or "KeyboardInterrupt" in said
                    if process.returncode == -signal.SIGSEGV and not said:  # of jaxlib, whose import it came into
                        fine, counts["during import of jaxlib"] = True, counts["during import of jaxlib"] + 1
                    counts["unexplained"] += not fine
                    if not fine:
                        print(kind.name, process.returncode, said[-2000:])
                    continue
            _, said = process.communicate()
            if not patience:  # the machine may be faster than it was
                seconds = time.monotonic() - start
            if process.returncode:
                sys.exit(f"did not go on: {said}")
            break
        counts["different"] += digest(folder / "model.safetensors") != whole
        stray = sorted(path.name for path in folder.rglob("*") if path.name != "model.safetensors")
        counts["stray files"] += len(stray)
        if stray:
            print(stray)
    print(json.dumps(dict(counts)))


if __name__ == "__main__":
    main()
