"""GPTQModel's AVX-512 kernel and `gptq bench --warm` by turns: one layer of each, x in bf16, two threads.

    python -m venv target/peer && target/peer/bin/pip install torch==2.15.0 gptqmodel==7.7.0 ninja
    PATH=target/peer/bin:$PATH python tests/bench-peers/avx512_peer.py target/release/gptq [--rounds 5]

The kernel is compiled when it is first used, which takes minutes and a C++ compiler. Medians of calls in milliseconds, and
of the ratios of rounds.
"""

import argparse
import json
import statistics
import subprocess
import time

import torch
from gptqmodel.nn_modules.qlinear.torch_cpu_avx512 import TorchCpuAvx512Linear

SHAPES = [(4096, 4096), (4096, 11008), (11008, 4096)]
ROWS = [1, 8, 32, 128, 512]
TURN_SECONDS = 0.12


def layer(k, n):
    """A symmetric layer of random codes: 4 bits, groups of 128 rows, zero points as v2 stores them."""
    layer = TorchCpuAvx512Linear(
        bits=4, group_size=128, sym=True, desc_act=False, in_features=k, out_features=n, bias=False,
        pack_dtype=torch.int32, register_buffers=True,
    )
    layer.qweight = torch.randint(-(2**31), 2**31 - 1, (k // 8, n), dtype=torch.int32)
    layer.qzeros = torch.full((k // 128, n // 8), 0x88888888 - 2**32, dtype=torch.int32)
    layer.scales = (torch.rand(k // 128, n) * 0.01).to(torch.float16)
    layer.g_idx = torch.arange(k, dtype=torch.int32) // 128
    layer.qzero_format(format=2)
    layer.post_init()
    return layer.eval()


def theirs(layer, x):
    """The median call of a turn."""
    for _ in range(3):
        layer(x)
    seconds, started = [], time.perf_counter()
    while len(seconds) < 3 or time.perf_counter() - started < TURN_SECONDS:
        before = time.perf_counter()
        layer(x)
        seconds.append(time.perf_counter() - before)
    return statistics.median(seconds)


def ours(program, k, n, rows):
    """The same of `gptq bench`."""
    command = [program, "bench", "--warm", "--shape", f"{k}x{n}", "--rows", str(rows), "--dtype", "bf16", "--rounds", "1"]
    command += ["--turn", str(round(TURN_SECONDS * 1e3)), "--read", "32", "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return report["cases"][0]["median_seconds"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    layers = {shape: layer(*shape) for shape in SHAPES}
    times = {(k, n, rows): [] for k, n in SHAPES for rows in ROWS}
    with torch.inference_mode():
        for _ in range(arguments.rounds):
            for (k, n, rows), of_case in times.items():
                x = torch.randn(rows, k).to(torch.bfloat16)
                peer = theirs(layers[k, n], x)
                # Its threads spin for a moment before they sleep.
                time.sleep(0.05)
                of_case.append((ours(arguments.program, k, n, rows), peer))
    for (k, n, rows), of_case in times.items():
        mine, peer = (statistics.median(column) * 1e3 for column in zip(*of_case))
        ratio = statistics.median(peer / mine for mine, peer in of_case)
        print(f"{k:>6} x {n:<6} M = {rows:<4} gptq {mine:8.3f} ms  GPTQModel {peer:8.3f} ms  {ratio:5.2f}x")


if __name__ == "__main__":
    main()
