#!/usr/bin/env python3
"""Makes some of the golden cases in seed-cases: LARV, PRISM, methods on a TIES or Consensus base, cores merged by TSV and CART.

The formulas are written from the papers and their releases, in float64 with NumPy, layer by layer and without any trick. Run it
from this directory: `python3 outer_cases.py`.
"""

import json
import struct
from pathlib import Path

import numpy as np

TYPES = {"F32": np.float32, "F64": np.float64}
EXCLUDED = ["embed_tokens", "lm_head"]


def read(directory):
    tensors = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8 : 8 + size]).items():
            if name != "__metadata__":
                begin, end = (8 + size + offset for offset in entry["data_offsets"])
                values = np.frombuffer(data[begin:end], TYPES[entry["dtype"]])
                tensors[name] = values.reshape(entry["shape"]).astype(np.float64)
    return dict(sorted(tensors.items()))


def write(path, tensors):
    header, data = {}, b""
    for name, values in tensors.items():
        raw = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def is_matrix(name, values):
    return values.ndim == 2 and not any(part in name for part in EXCLUDED)


def layer_of(name):
    parts = name.split(".")
    numbers = [part for part in parts if part.isdigit()]
    return int(numbers[0]) if numbers else None


# ---- Updates of task vectors, by tensor ----


def total(vectors):
    return {name: sum(v[name] for v in vectors) for name in vectors[0]}


def isotropic(matrix):
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return u @ np.diag(np.where(s > 1e-5 * s[0], s.mean(), 0)) @ v


def tsv(matrices):
    share = min(matrices[0].shape) // len(matrices)
    factors = [np.linalg.svd(m, full_matrices=False) for m in matrices]
    u = np.concatenate([f[0][:, :share] for f in factors], 1)
    s = np.concatenate([f[1][:share] for f in factors])
    v = np.concatenate([f[2][:share] for f in factors], 0)
    (p, _, q), (x, _, y) = np.linalg.svd(u, full_matrices=False), np.linalg.svd(v, full_matrices=False)
    return p @ q @ np.diag(s) @ x @ y


def cart(matrices, share=0.04, inner=0.1):
    mean = sum(matrices) / len(matrices)
    rank = int(np.ceil(share * min(mean.shape)))
    update = mean.copy()
    for matrix in matrices:
        u, s, v = np.linalg.svd(matrix - mean, full_matrices=False)
        update += inner * u[:, :rank] @ np.diag(s[:rank]) @ v[:rank]
    return update


def ties(vectors, keep=0.2):
    """Trimmed over the whole model, the sums of what agrees."""
    names = list(vectors[0])
    flat = [np.concatenate([v[name].ravel() for name in names]) for v in vectors]
    trimmed = []
    for vector in flat:
        least = np.sort(np.abs(vector))[len(vector) - int(len(vector) * keep) - 1]
        trimmed.append(np.where(np.abs(vector) >= least, vector, 0))
    signs = np.sign(sum(trimmed))
    signs[signs == 0] = np.sign(signs.sum())
    merged = sum(np.where(vector * signs > 0, vector, 0) for vector in trimmed)
    parts, start = {}, 0
    for name in names:
        size = vectors[0][name].size
        parts[name] = merged[start : start + size].reshape(vectors[0][name].shape)
        start += size
    return parts


def consensus(vectors):
    update = {}
    for name, sums in total(vectors).items():
        users = sum(np.abs(v[name]) > 0.4 * np.abs(sums - v[name]) for v in vectors)
        update[name] = np.where(users >= 2, sums, 0)
    return update


def calibrated(update, matrices, scale, alpha):
    u, s, v = np.linalg.svd(scale * update, full_matrices=False)
    factors = np.zeros(len(s))
    for row in range(len(s)):
        own = s[row] * v[row]
        answers = [u[:, row] @ m for m in matrices]
        factors[row] = len(matrices) / sum(max(alpha, own @ a / (a @ a)) for a in answers)
    return u @ np.diag(factors * s) @ v


def boosted(update, beta):
    u, s, v = np.linalg.svd(update, full_matrices=False)
    first = int(np.argmax(np.cumsum(s) / s.sum() >= beta))
    return u @ np.diag(np.where(s > 1e-13 * s[0], np.maximum(s, s[first]), 0)) @ v


def core(matrices, rank, merge):
    """Task vectors cut to a rank, merged between the directions that they have in common."""
    lefts, rights = [], []
    for matrix in matrices:
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        lefts.append(u[:, :rank] * s[:rank])
        rights.append(v[:rank])
    u = np.linalg.svd(np.concatenate(lefts, 1), full_matrices=False)[0]
    v = np.linalg.svd(np.concatenate(rights, 0), full_matrices=False)[2]
    return u @ merge([u.T @ left @ right @ v.T for left, right in zip(lefts, rights)]) @ v


# ---- Layers ----


def effective_rank(matrix):
    squares = np.linalg.svd(matrix, compute_uv=False) ** 2
    shares = squares / squares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def larv(base, updates, continuous=False):
    layers = sorted({layer_of(name) for name in base if layer_of(name) is not None})
    ratios, conflicts = [], []
    for layer in layers:
        ratio, conflict = [], []
        for name, w in base.items():
            if layer_of(name) == layer and is_matrix(name, w):
                d = updates[name]
                ratio.append(effective_rank(w) / (effective_rank(d) + 1e-8))
                parts = np.linalg.norm(w @ d.T - d @ w.T) + np.linalg.norm(w.T @ d - d.T @ w)
                conflict.append(0.5 * parts / (np.linalg.norm(w) * np.linalg.norm(d)))
        ratios.append(np.mean(ratio))
        conflicts.append(np.mean(conflict))
    z = (np.array(conflicts) - np.mean(conflicts)) / np.std(conflicts)
    depth = np.sqrt((np.arange(len(layers)) + 1) / len(layers))
    scores = np.array(ratios) * depth / (1 + np.log1p(np.exp(z)))
    if continuous:
        return dict(zip(layers, 1 + 0.5 * np.tanh(3 * (scores - 1))))
    order = np.argsort(np.argsort(scores))
    levels = [0.5, 1.0, 1.5]
    return {layer: levels[int(3 * (order[i] + 0.5) / len(layers))] for i, layer in enumerate(layers)}


def prism(base, vectors, include=None, kappa=1.0, gate=0.1, keep=0.001):
    """By the released code: layers are groups, all else stays at the base."""
    groups = {}
    for name in base:
        if layer_of(name) is not None and (include is None or any(part in name for part in include)):
            groups.setdefault(layer_of(name), []).append(name)
    count = len(vectors)
    norms = [np.sqrt(sum((v[n] ** 2).sum() for names in groups.values() for n in names)) for v in vectors]
    scales = [min(norms) / (norm + 1e-10) for norm in norms]
    found, conflict, interference = {}, 0, 0
    for layer, names in groups.items():
        squares = means = entries = 0
        for name in names:
            x = np.stack([s * v[name] for s, v in zip(scales, vectors)])
            p, m = (x**2).mean(0), x.mean(0) ** 2
            opposed = np.minimum(np.clip(x, 0, None).sum(0), np.clip(-x, 0, None).sum(0))
            conflict += np.minimum(2 / count * opposed**2, np.clip(p - m, 0, None)).sum()
            squares, means, entries = squares + p.sum(), means + m.sum(), entries + p.size
        own = max((squares - means) / entries, 0)
        interference += entries * own
        found[layer] = kappa * np.sqrt(own) * np.sqrt(2 * np.log(entries))
    is_open = conflict / (interference + 1e-12) >= gate
    merged = dict(base)
    for layer, names in groups.items():
        for name in names:
            x = sum(s * v[name] for s, v in zip(scales, vectors)) / count
            least = found[layer] if is_open else 0
            if (np.abs(x) > least).mean() < keep:
                least = np.sort(np.abs(x).ravel())[-max(1, int(keep * x.size))]
            merged[name] = base[name] + np.sign(x) * np.clip(np.abs(x) - least, 0, None) / count
    return merged


# ---- Cases ----


def merge(base, vectors, scale, of_matrix, of_other=None):
    """The mean of the task vectors where nothing else is said."""
    mean = {name: sum(v[name] for v in vectors) / len(vectors) for name in base}
    merged = {}
    for name, values in base.items():
        matrix = is_matrix(name, values)
        update = of_matrix(name) if matrix else (of_other or mean)[name]
        merged[name] = values + (scale(name) if callable(scale) else scale) * update
    return merged


def case(name, method, family, tunes, expected, **parameters):
    directory = Path("seed-cases") / name
    directory.mkdir(exist_ok=True)
    lines = [f"merge_method: {method}", f"base_model: models/{family}/base", "models:"]
    lines += [f"- model: models/{family}/tune-{index}" for index in range(tunes)]
    lines += ["parameters:"] if parameters else []
    lines += [f"  {key}: {json.dumps(value)}" for key, value in parameters.items()]
    (directory / "recipe.yml").write_text("\n".join(lines) + "\ndtype: float32\n")
    write(directory / "expected.safetensors", expected)


def main():
    base, models = read("models/f32/base"), [read(f"models/f32/tune-{i}") for i in range(3)]
    vectors = [{n: m[n] - base[n] for n in base} for m in models]
    elected, agreed = ties(vectors), consensus(vectors)

    def own(name):
        return [v[name] for v in vectors]

    case(
        "svc-on-ties", "svc", "f32", 3,
        merge(base, vectors, 1, lambda n: calibrated(elected[n], own(n), 0.3, 0.1), {n: 0.3 * v for n, v in elected.items()}),
        of="ties", exclude=EXCLUDED,
    )  # fmt: skip
    for inner, updates in (("ties", elected), ("consensus", agreed)):
        case(
            f"subspace-boosting-on-{inner}", "subspace_boosting", "f32", 3,
            merge(base, vectors, 0.3, lambda n, u=updates: boosted(u[n], 0.2), updates),
            of=inner, beta=0.2, exclude=EXCLUDED,
        )  # fmt: skip
    for rule, inner, scale in (("tsv", tsv, 0.7), ("cart", cart, 1.0)):
        case(
            f"core-space-{rule}", "core_space", "f32", 3,
            merge(base, vectors, scale, lambda n, f=inner: core(own(n), 4, f)),
            rule=rule, rank=4, exclude=EXCLUDED, **({"lambda": scale} if scale != 1 else {}),
        )  # fmt: skip
    case("prism", "prism", "f32", 3, prism(base, vectors))
    case("prism-mlp", "prism", "f32", 3, prism(base, vectors, ["mlp."], kappa=0.2), include=["mlp."], kappa=0.2)

    deep, tunes = read("models/deep/base"), [read(f"models/deep/tune-{i}") for i in range(2)]
    moves = [{n: m[n] - deep[n] for n in deep} for m in tunes]
    sums = total(moves)
    flat = {n: isotropic(sums[n]) if is_matrix(n, sums[n]) else sums[n] for n in sums}
    levels = larv(deep, flat)
    case(
        "larv", "larv", "deep", 2, merge(deep, moves, lambda n: levels.get(layer_of(n), 1), lambda n: flat[n]),
        exclude=EXCLUDED,
    )  # fmt: skip
    smooth = larv(deep, sums, continuous=True)
    case(
        "larv-continuous", "larv", "deep", 2,
        merge(deep, moves, lambda n: 0.3 * smooth.get(layer_of(n), 1), lambda n: sums[n], sums),
        of="task_arithmetic", levels="continuous", exclude=EXCLUDED,
    )  # fmt: skip
    print(levels, smooth)


if __name__ == "__main__":
    main()
