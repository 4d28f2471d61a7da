#!/usr/bin/env python3
"""Times kcache and llama.cpp on the same file with the same threads, in turns, and prints the ratios.

    just bench-peer                              # makes the environment, builds, runs the table
    python3 benches/peer.py KCACHE MODEL.gguf [--threads 2] [--rounds 3] [--gen 32] [--work 512x1,2048x1,2048x8]

llama.cpp comes prebuilt from PyPI (xllamacpp). Its speeds are its own timings: every slot is filled alone, then all of
them decode together; greedy, end of sequence ignored, f16 cache, flash attention off (its better setting on CPUs).
kcache's are those of `kcache bench`. One round of each after the other, so that the machine's moods hit both; the
figures are medians over the rounds, and the ratio is kcache's median to llama.cpp's. Needs an otherwise idle machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading


def peer_child(model, threads, ctx, batch, gen):
    """One measurement of llama.cpp, in a process of its own: prefill and decode in tokens per second."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_gpu_layers = 0
    params.n_parallel = batch
    params.n_ctx = (ctx + gen + 64) * batch
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.warmup = True
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)

    def complete(slot, count):
        prompt = [1000 + (slot * 13 + at * 7) % 30000 for at in range(ctx)]
        request = {"prompt": prompt, "n_predict": count, "temperature": 0, "ignore_eos": True}
        answer = server.handle_completions({**request, "cache_prompt": True, "id_slot": slot})
        return (answer if isinstance(answer, dict) else json.loads(answer))["timings"]

    fills = [complete(slot, 1) for slot in range(batch)]
    decodes = [None] * batch

    def decode(slot):
        decodes[slot] = complete(slot, gen)

    workers = [threading.Thread(target=decode, args=(slot,)) for slot in range(batch)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    prefill = sum(t["prompt_n"] for t in fills) / (sum(t["prompt_ms"] for t in fills) / 1e3)
    decode_speed = sum(t["predicted_n"] for t in decodes) / (max(t["predicted_ms"] for t in decodes) / 1e3)
    return {"llama.cpp": {"prefill": prefill, "decode": decode_speed}}


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if done.returncode != 0:
        sys.exit(f"peer.py: `{' '.join(command)}` ended with {done.returncode}")
    return done.stdout


def measure_peer(args, ctx, batch):
    job = json.dumps([args.model, args.threads, ctx, batch, args.gen])
    # The server writes its log wherever it likes; the figures are on the last line that is JSON.
    lines = run([sys.executable, __file__, "--child", job]).splitlines()
    return next(json.loads(line) for line in reversed(lines) if line.startswith('{"llama.cpp"'))


def measure_kcache(args, ctx, batch):
    command = [args.kcache, "bench", "--json", "--model", args.model, "--threads", str(args.threads)]
    command += ["--ctx", str(ctx), "--batch", str(batch), "--gen", str(args.gen), "--rounds", "1"]
    for policy in args.policies:
        command += ["--policy", policy]
    runs = json.loads(run(command))["runs"]
    return {r["policy"]: {"prefill": r["prefill_tok_s"], "decode": r["decode_tok_s"]} for r in runs}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kcache", nargs="?")
    parser.add_argument("model", nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gen", type=int, default=32)
    parser.add_argument("--work", default="128x1,512x1,2048x1,4096x1,7936x1,128x8,2048x8", help="CTXxBATCH,…")
    parser.add_argument("--policies", nargs="+", default=["kv", "kcache"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print("\n" + json.dumps(peer_child(*json.loads(args.child))), flush=True)
        return
    if not args.kcache or not args.model:
        parser.error("KCACHE and MODEL.gguf are needed")
    print(f"medians of {args.rounds} rounds in turns, {args.threads} threads, tokens per second (ratio to llama.cpp)")
    print(f"{'work':<18}{'llama.cpp':>12}" + "".join(f"{policy:>24}" for policy in args.policies))
    for work in args.work.split(","):
        ctx, batch = map(int, work.split("x"))
        rounds = []
        for _ in range(args.rounds):
            rounds.append({**measure_peer(args, ctx, batch), **measure_kcache(args, ctx, batch)})
        for kind in ("prefill", "decode"):
            median = {name: statistics.median(r[name][kind] for r in rounds) for name in rounds[0]}
            cells = (f"{median[p]:>15.1f} (×{median[p] / median['llama.cpp']:.2f})" for p in args.policies)
            row = f"{kind} {ctx}" + (f", {batch} seqs" if batch > 1 else "")
            print(f"{row:<18}{median['llama.cpp']:>12.1f}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
