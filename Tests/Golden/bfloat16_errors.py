#!/usr/bin/env python3
"""How far merges in bfloat16 are from exact arithmetic: Tessera's, and mergekit's if it is at hand.

    python3 Tests/Golden/bfloat16_errors.py [--tessera PROGRAM] [--mergekit PROGRAM]

For each deterministic merge method, the family in models/bf16 is merged with `dtype: bfloat16` and the result is held against the
method's formula in float64. The formulas are written here once more, whole tensors in numpy, so that they share nothing with the
program under test. Prints a Markdown table: docs/methods.md holds one. numpy is all it needs; mergekit is only run, never
imported.

The error is ||out - ref|| / ||ref - start||, where start is the base, or the first model of a method that has none: the error as
a part of what the merge changed. "Nearest" is the share of the elements that are the bfloat16 number nearest to the reference; of
two that are equally near, to 1/1000 of their distance, either will do.

Some methods decide: which entries stay, and which sign wins. mergekit decides on rounded numbers, and its sort breaks ties as it
happens. An element whose decision falls differently is not a rounding error, so such elements are left out, for both programs
alike:
  - where an entry's magnitude is within 1/256 of the threshold, which is what rounding to bfloat16 can move it by, or the
    weighted task vectors cancel to within 1/64, so that the sign may be another;
  - for arcee_fusion and sce with select_topk, whose thresholds are on computed statistics, where either program's result shows
    that it has decided differently from the reference: an entry is dropped whose reference is kept, or the other way round.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
FAMILY = os.path.join(HERE, "models", "bf16")
WEIGHTS = [0.5, 0.3, 0.2]


# Files


def read_checkpoint(path):
    """The tensors of a directory's safetensors files, as float64."""
    tensors = {}
    for name in sorted(os.listdir(path)):
        if not name.endswith(".safetensors"):
            continue
        with open(os.path.join(path, name), "rb") as file:
            data = file.read()
        length = int.from_bytes(data[:8], "little")
        for key, entry in json.loads(data[8 : 8 + length]).items():
            if key == "__metadata__":
                continue
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            if entry["dtype"] == "BF16":
                words = np.frombuffer(data[start:end], "<u2").astype(np.uint32) << 16
                values = words.view(np.float32)
            else:
                values = np.frombuffer(data[start:end], {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[entry["dtype"]])
            tensors[key] = values.astype(np.float64).reshape(entry["shape"])
    return tensors


def distance_to_bfloat16(values):
    """How far the nearest bfloat16 numbers are, and how far their neighbours are from each other."""
    _, exponent = np.frexp(values)
    step = np.ldexp(1.0, np.maximum(exponent - 8, -133))
    return np.abs(np.rint(values / step) * step - values), step


# Formulas. Each returns the reference and the elements whose decisions a rounding could turn.


def everywhere(shape, value=False):
    return np.full(shape, value)


def flat_dot(x, y):
    return float(np.dot(x.ravel(), y.ravel()))


def length(x):
    return np.sqrt(flat_dot(x, x))


def linear(base, models):
    return sum(w * x for w, x in zip(WEIGHTS, models)) / sum(WEIGHTS)


def arc(a, b, t, is_flat):
    """From a to b along the arc between their directions."""
    cosine = np.clip(flat_dot(a, b) / (max(length(a), 1e-7) * max(length(b), 1e-7)), -1, 1)
    if is_flat(cosine):
        return (1 - t) * a + t * b
    angle = np.arccos(cosine)
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def slerp(base, models):
    return arc(base, models[0], 0.35, lambda c: abs(c) > 0.9995)


def nuslerp(base, models, has_base=False):
    start = base if has_base else 0
    a, b = models[0] - start, models[1] - start
    return start + arc(a, b, WEIGHTS[1] / (WEIGHTS[0] + WEIGHTS[1]), lambda c: 1 - c * c <= 1e-16)


def multislerp(base, models, has_base=False):
    start = base if has_base else 0
    vectors, eps = [x - start for x in models], 1e-8
    lengths = [length(v) for v in vectors]
    units = [v / (n + eps) for v, n in zip(vectors, lengths)]
    weights = np.array(WEIGHTS) / sum(WEIGHTS)
    mean = sum(w * u for w, u in zip(weights, units))
    mean = mean / length(mean)
    tangent = sum(w * (u - flat_dot(u, mean) * mean) for w, u in zip(weights, units))
    angle = length(tangent) + eps
    moved = mean * np.cos(angle) + tangent * (np.sin(angle) / angle)
    return start + moved * sum(w * n for w, n in zip(weights, lengths))


def karcher(base, models, steps=10, tolerance=1e-5):
    lengths = [length(x) for x in models]
    units = [x / n for x, n in zip(models, lengths) if n > tolerance]
    if not units:
        return np.zeros_like(models[0])
    mean = sum(units) / len(units)
    mean = units[0] if length(mean) < tolerance else mean / length(mean)
    for _ in range(steps):
        tangent = np.zeros_like(mean)
        for unit in units:
            cosine = np.clip(flat_dot(mean, unit), -1, 1)
            angle = np.arccos(cosine)
            if angle >= tolerance:
                tangent += angle / np.sin(angle) / len(units) * (unit - cosine * mean)
        norm = length(tangent)
        if norm < tolerance:
            break
        mean = np.cos(norm) * mean + np.sin(norm) * tangent / norm
        mean = mean / length(mean)
    return mean * (sum(lengths) / len(lengths))


def largest(delta, kept, outliers=0):
    """The mask of the `kept` largest magnitudes behind the `outliers` largest, and which entries lie about a threshold."""
    size = np.abs(delta).ravel()
    order = np.argsort(-size, kind="stable")
    mask = np.zeros(size.size, bool)
    mask[order[outliers : outliers + kept]] = True
    near = np.zeros(size.size, bool)
    for cut in {outliers, outliers + kept} - {0, size.size}:
        low, high = size[order[cut]], size[order[cut - 1]]
        near |= (size >= low * (1 - 1 / 256)) & (size <= high * (1 + 1 / 256))
    return mask.reshape(delta.shape), near.reshape(delta.shape)


def task_vectors(base, models, density=1.0, gamma=None, consensus=False, normalize=False):
    deltas = [x - base for x in models]
    unsure = everywhere(base.shape)
    if density < 1:
        count = base.size
        kept = int(density * count)
        for index, delta in enumerate(deltas):
            if gamma is None:
                mask, near = largest(delta, max(1, kept))
            else:
                mask, near = largest(delta, kept, min(int(gamma * count), count - kept))
            deltas[index] = delta * mask
            unsure |= near
    entries = [w * d for w, d in zip(WEIGHTS, deltas)]
    total = sum(entries)
    if not consensus:
        merged = total / sum(WEIGHTS) if normalize else total
        return base + merged, unsure
    unsure |= (total != 0) & (np.abs(total) <= sum(np.abs(e) for e in entries) / 64)
    unsure |= (total == 0) & sum(e != 0 for e in entries).astype(bool)
    sign = np.where(total >= 0, 1, -1)
    agree = [np.sign(e) == sign for e in entries]
    merged = sum(e * a for e, a in zip(entries, agree))
    if normalize:
        divisor = sum(w * a for w, a in zip(WEIGHTS, agree))
        merged = merged / np.where(divisor == 0, 1, divisor)
    return base + merged, unsure


def model_stock(base, models, rows=False):
    if rows and base.ndim > 1:
        parts = [model_stock(base[i], [x[i] for x in models]) for i in range(base.shape[0])]
        return np.stack(parts)
    offsets = [x - base for x in models]
    count = len(models)
    cosines = [
        np.clip(flat_dot(offsets[i], offsets[j]) / max(length(offsets[i]) * length(offsets[j]), 1e-6), -1, 1)
        for i in range(count)
        for j in range(i)
    ]
    cosine = sum(cosines) / len(cosines)
    divisor = 1 + (count - 1) * cosine
    t = 0 if abs(divisor) < 1e-6 else count * cosine / divisor
    return t * sum(models) / count + (1 - t) * base


def nearswap(base, models, t=0.001):
    share = np.clip(t / np.maximum(np.abs(base - models[0]), 1e-6), 0, 1)
    return share * models[0] + (1 - share) * base


def arcee_fusion(base, models):
    model = models[0]

    def softmax(x):
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True) + 1e-8

    p, q = softmax(model), softmax(base)
    importance = np.abs(model - base) * (p * np.log(p / q)).sum(axis=-1, keepdims=True)
    ordered = np.sort(importance.ravel())
    low, median, high = (ordered[int(np.float32(share) * (ordered.size - 1))] for share in (0.25, 0.5, 0.75))
    return np.where(importance >= median + 1.5 * (high - low), model, base)


def sce(base, models, share=1.0):
    deltas = [x - base for x in models]
    if share < 1:
        variance = np.var(np.stack(deltas), axis=0)
        kept = int(np.float32(np.count_nonzero(variance)) * np.float32(share))
        mask, _ = largest(variance, kept)
        deltas = [d * mask for d in deltas]
    total = sum(deltas)
    unsure = np.abs(total) <= sum(np.abs(d) for d in deltas) / 64
    unsure &= sum(np.abs(d) for d in deltas) > 0
    sign = np.where(total >= 0, 1, -1)
    weights = np.array([np.mean(d * d) for d in deltas])
    weights = np.full(len(deltas), 1 / len(deltas)) if weights.sum() < 1e-6 else weights / weights.sum()
    agree = [np.sign(d) == sign for d in deltas]
    merged = sum(w * d * a for w, d, a in zip(weights, deltas, agree))
    return base + merged / np.maximum(sum(w * a for w, a in zip(weights, agree)), 1e-6), unsure


def ram(base, models, epsilon=1e-5, growth=0.0, limit=0.0):
    deltas = [x - base for x in models]
    changed = [np.abs(d) > epsilon for d in deltas]
    counts = sum(c.astype(int) for c in changed)
    result = base.copy()
    for delta, mask in zip(deltas, changed):
        alone, shared = mask & (counts == 1), mask & (counts > 1)
        ratio = np.count_nonzero(shared) / max(np.count_nonzero(alone), epsilon)
        scale = 1 + growth * min(max(ratio, 0), limit)
        result += scale * delta * alone + delta * shared / np.maximum(counts, 1)
    return result


# Cases: name, recipe without its models, which models, whether the recipe names the base, parameters of the models, reference.


def cases():
    def vectors(**how):
        return lambda base, models: task_vectors(base, models, **how)

    weighted = ["weight"]
    return [
        ("linear", "linear", 3, False, weighted, "", linear),
        ("slerp", "slerp", 1, True, [], "t: 0.35", slerp),
        ("nuslerp", "nuslerp", 2, False, weighted, "", nuslerp),
        ("nuslerp, base", "nuslerp", 2, True, weighted, "", lambda b, m: nuslerp(b, m, True)),
        ("multislerp", "multislerp", 3, False, weighted, "", multislerp),
        ("multislerp, base", "multislerp", 3, True, weighted, "", lambda b, m: multislerp(b, m, True)),
        ("karcher", "karcher", 3, False, [], "", karcher),
        ("task_arithmetic", "task_arithmetic", 3, True, weighted, "", vectors()),
        ("ties", "ties", 3, True, weighted + ["density: 0.5"], "", vectors(density=0.5, consensus=True, normalize=True)),
        ("breadcrumbs", "breadcrumbs", 3, True, weighted + ["density: 0.8", "gamma: 0.05"], "", vectors(density=0.8, gamma=0.05)),
        (
            "breadcrumbs_ties", "breadcrumbs_ties", 3, True, weighted + ["density: 0.7", "gamma: 0.02"], "",
            vectors(density=0.7, gamma=0.02, consensus=True),
        ),
        ("dare_linear, density 1", "dare_linear", 3, True, weighted + ["density: 1"], "", vectors()),
        ("dare_ties, density 1", "dare_ties", 3, True, weighted + ["density: 1"], "", vectors(consensus=True)),
        ("della_linear, density 1", "della_linear", 3, True, weighted + ["density: 1"], "", vectors()),
        ("della, density 1", "della", 3, True, weighted + ["density: 1"], "", vectors(consensus=True, normalize=True)),
        ("model_stock", "model_stock", 3, True, [], "", model_stock),
        ("model_stock, filter_wise", "model_stock", 3, True, [], "filter_wise: true", lambda b, m: model_stock(b, m, True)),
        ("nearswap", "nearswap", 1, True, [], "t: 0.001", nearswap),
        ("arcee_fusion", "arcee_fusion", 1, True, [], "", arcee_fusion),
        ("sce", "sce", 3, True, [], "", sce),
        ("sce, select_topk 0.5", "sce", 3, True, [], "select_topk: 0.5", lambda b, m: sce(b, m, 0.5)),
        ("ram", "ram", 3, True, [], "", ram),
        ("ramplus_tl", "ramplus_tl", 3, True, [], "r: 0.1, alpha: 0.2", lambda b, m: ram(b, m, growth=0.1, limit=0.2)),
        ("passthrough, scale", "passthrough", 1, False, ["scale: 0.7"], "", lambda b, m: 0.7 * m[0]),
    ]


def recipe(method, count, has_base, own, shared):
    lines = [f"merge_method: {method}"] + ([f"base_model: {FAMILY}/base"] if has_base else []) + ["models:"]
    for index in range(count):
        values = ", ".join(f"weight: {WEIGHTS[index]}" if name == "weight" else name for name in own)
        lines += [f"- model: {FAMILY}/tune-{index}"] + ([f"  parameters: {{{values}}}"] if values else [])
    if shared:
        lines.append(f"parameters: {{{shared}}}")
    # mergekit writes the results of two methods in float32 unless it is told the output's type.
    return "\n".join(lines + ["dtype: bfloat16", "out_dtype: bfloat16", ""])


# Measurement


def run(program, arguments):
    environment = dict(os.environ, HF_HUB_OFFLINE="1")
    result = subprocess.run([program] + arguments, capture_output=True, text=True, env=environment)
    if result.returncode != 0:
        sys.exit(f"{program} {' '.join(arguments)} failed:\n{result.stderr}")


def decided_differently(out, ref, models, base):
    """Where a result lies on the other side of a kept-or-dropped decision: nearer to the other outcome than to the reference."""
    kept_by_ref = ref != base
    dropped = kept_by_ref & (np.abs(out - base) < np.abs(out - ref))
    taken = ~kept_by_ref & (out != base)
    return dropped | taken


def measure(outputs, reference, start):
    """The relative error and the share of nearest results of each program, and the share of the elements that were left out."""
    errors = [0.0] * len(outputs)
    nearest = [0] * len(outputs)
    scale, counted, total = 0.0, 0, 0
    for name, (ref, out_of_count) in reference.items():
        use = ~out_of_count
        total += use.size
        counted += np.count_nonzero(use)
        scale += np.sum((ref - start[name])[use] ** 2)
        distance, step = distance_to_bfloat16(ref)
        for index, output in enumerate(outputs):
            errors[index] += np.sum((output[name] - ref)[use] ** 2)
            nearest[index] += np.count_nonzero((np.abs(output[name] - ref) <= distance + step / 1000)[use])
    return [np.sqrt(e / scale) for e in errors], [n / counted for n in nearest], 1 - counted / total


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tessera", default=os.path.join(HERE, "..", "..", ".build", "debug", "tessera"))
    parser.add_argument("--mergekit", help="the program mergekit-yaml; without it, its columns stay away")
    options = parser.parse_args()
    base = read_checkpoint(os.path.join(FAMILY, "base"))
    tunes = [read_checkpoint(os.path.join(FAMILY, f"tune-{index}")) for index in range(3)]

    programs = ["Tessera"] + (["mergekit"] if options.mergekit else [])
    heads = ["Method"] + [f"{p}: error" for p in programs] + [f"{p}: nearest" for p in programs] + ["left out"]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads), flush=True)
    for title, method, count, has_base, own, shared, formula in cases():
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "recipe.yml")
            with open(path, "w") as file:
                file.write(recipe(method, count, has_base, own, shared))
            run(options.tessera, ["run", path, os.path.join(folder, "tessera")])
            outputs = [read_checkpoint(os.path.join(folder, "tessera"))]
            if options.mergekit:
                run(options.mergekit, [path, os.path.join(folder, "mergekit")])
                outputs.append(read_checkpoint(os.path.join(folder, "mergekit")))
        reference = {}
        for name in base:
            models = [tune[name] for tune in tunes[:count]]
            found = formula(base[name], models)
            ref, unsure = found if isinstance(found, tuple) else (found, everywhere(base[name].shape))
            if method == "arcee_fusion" or "topk" in shared:
                for output in outputs:
                    unsure = unsure | decided_differently(output[name], ref, models, base[name])
            reference[name] = (ref, unsure)
        start = base if has_base else tunes[0]
        errors, nearest, left_out = measure(outputs, reference, start)
        cells = [f"`{title.split(',')[0]}`" + title[len(title.split(",")[0]) :]]
        cells += [f"{e:.2e}" for e in errors] + [f"{100 * n:.1f} %" for n in nearest] + [f"{100 * left_out:.1f} %"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
