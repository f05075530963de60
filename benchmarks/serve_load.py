"""Throughput and latency of a running server, and whether its memory stays flat.

python benchmarks/serve_load.py http://127.0.0.1:8000 --clients 1 8 64 --seconds 60 --requests 1000

Every client asks for one completion after the other. Status 429, the queue being full, is counted apart from errors;
the client then waits a tenth of a second. With the process `--pid` of the server: how many seconds of a processor an
answer takes, which says more than the time on a machine that has other work; and its memory, from /proc, before and
after `--requests` requests of 16 tokens in 8 force evaluations by eight clients.
"""

import argparse
import json
import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path


def ask(address: str, body: dict) -> tuple[int, float, float]:
    """Status, seconds to the first delta of text (of a stream), and to the end."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/v1/completions", data, {"Content-Type": "application/json"})
    start = time.monotonic()
    first = 0.0
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            for line in answer:
                if not first and line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["text"]:
                    first = time.monotonic() - start
            return answer.status, first, time.monotonic() - start
    except urllib.error.HTTPError as error:
        with error:
            return error.code, 0.0, time.monotonic() - start
    except OSError:
        return 0, 0.0, time.monotonic() - start


def load(address: str, clients: int, seconds: float, body: dict, requests: int | None = None) -> dict:
    """What so many clients see for so long, or until so many requests are answered."""
    answers: list[tuple[int, float]] = []
    end = time.monotonic() + seconds

    def client(number: int) -> None:
        seed = 1000 * number
        while time.monotonic() < end and (requests is None or len(answers) < requests):
            seed += 1
            status, _, took = ask(address, {**body, "seed": seed})
            answers.append((status, took))
            if status == 429:
                time.sleep(0.1)

    start = time.monotonic()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - start
    good = sorted(seconds for status, seconds in answers if status == 200)
    at = lambda share: good[min(len(good) - 1, int(share * len(good)))] if good else float("nan")
    return {
        "clients": clients,
        "answers": len(good),
        "per second": len(good) / took,
        "p50": at(0.5),
        "p99": at(0.99),
        "busy": sum(status == 429 for status, _ in answers),
        "errors": sum(status not in (200, 429) for status, _ in answers),
    }


def computed(pid: int | None) -> float:
    """Seconds of a processor that a process has had."""
    if pid is None:
        return float("nan")
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--prompt", default="To be ")
    parser.add_argument("--tokens", type=int, default=58)
    parser.add_argument("--budget", type=int, default=25)
    parser.add_argument("--block", type=int, choices=(0, 1), default=0, help="1: from left to right, without a budget")
    parser.add_argument("--requests", type=int, default=0)
    parser.add_argument("--warm", type=int, default=3, help="rounds of five seconds before it is measured")
    parser.add_argument("--pid", type=int)
    options = parser.parse_args()
    body = {"prompt": options.prompt, "max_tokens": options.tokens, "block": options.block}
    body |= {} if options.block else {"budget": options.budget}
    for _ in range(options.warm):  # until what is compiled beside the work is there
        load(options.address, 8, 5.0, body)
    rates = [ask(options.address, {**body, "stream": True, "seed": n}) for n in range(5)]
    share = sorted(first / whole for _, first, whole in rates)[2]
    print(f"first delta of a stream after {100 * share:.0f} % of its time ({rates[-1][2]:.2f} s)", flush=True)
    print("| clients | answers | per second | p50, s | p99, s | 429 | errors | processor, s an answer |")
    print("|---|---|---|---|---|---|---|---|")
    for clients in options.clients:
        before = computed(options.pid)
        row = load(options.address, clients, options.seconds, body)
        row["processor"] = (computed(options.pid) - before) / max(1, row["answers"])
        print(
            "| " + " | ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()) + " |", flush=True
        )
    if options.requests and options.pid:
        small = {**body, "max_tokens": 10} | ({} if options.block else {"budget": 8})
        load(options.address, 8, 600.0, small, requests=50)
        before = resident(options.pid)
        load(options.address, 8, 600.0, small, requests=options.requests)
        print(f"memory {before:.0f} MB, after {options.requests} requests {resident(options.pid):.0f} MB")


if __name__ == "__main__":
    main()
