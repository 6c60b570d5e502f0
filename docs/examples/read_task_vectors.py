#!/usr/bin/env python3
"""read_task_vectors.py STORE TASK BASE.safetensors... OUT.safetensors: rebuilds a fine-tune, as docs/task-vectors.md says."""
import hashlib, json, math, struct, sys
import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1"}
F32 = np.float32
def read(path):  # safetensors: {name: (dtype, shape, bytes)}
    data = open(path, "rb").read()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    return {name: (t["dtype"], t["shape"], data[start + t["data_offsets"][0]:start + t["data_offsets"][1]])
            for name, t in json.loads(data[8:start]).items() if name != "__metadata__"}

def numbers(tensor):  # bfloat16 is the upper half of a float32
    raw = np.frombuffer(tensor[2], DTYPES[tensor[0]])
    return (raw.astype(np.uint32) << 16).view(F32) if tensor[0] == "BF16" else raw

def codes(tensor, bits, count):  # code i: bits i·b to (i+1)·b of the bytes, lowest bit first
    stream = np.unpackbits(np.frombuffer(tensor[2], np.uint8), count=count * bits, bitorder="little")
    return (stream.reshape(count, bits) << np.arange(bits, dtype=np.uint8)).sum(1, dtype=np.uint8).astype(F32)

def vector(form, shape, part):  # float32; `part` gives a tensor of the store by the last part of its name
    count, where = math.prod(shape), slice(None)
    if form["form"] == "sparse": where = np.flatnonzero(codes(part("mask"), 1, count))
    which = np.arange(count)[where]  # the element that each stored number belongs to
    if "dtype" in form: found = numbers(part("values")).ravel()[:len(which)].astype(F32)
    else:
        bits, group, code = form["bits"], form["group"], codes(part("codes"), form["bits"], len(which))
        own = which // max(1, {"tensor": count, "row": (shape or [1])[-1]}.get(group, group))  # its group
        step = numbers(part("steps"))[own]
        stored = group in ("tensor", "row")
        zero = numbers(part("zeros"))[own].astype(np.float64) if stored else 0.5 if bits == 1 else 2.0 ** (bits - 1)
        if np.all(np.abs(zero) < 2 ** 20): found = (code - np.asarray(zero, F32)) * step
        else: found = ((code - zero) * step.astype(np.float64)).astype(F32)
    result = np.zeros(count, F32)
    result[where] = found
    return result

M, K = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
def draw(key, count):  # Philox4x32-10: word e % 32 / 8 of the counter (e / 32 * 8 + e % 8, 0, 0, 0) is that of element e
    block = np.arange(-(-count // 32) * 8, dtype=np.uint64)
    c, keys = [block & 0xFFFFFFFF, block >> 32, block * 0, block * 0], [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        p, q = c[0] * M[0], c[2] * M[1]
        c = [q >> 32 ^ c[1] ^ keys[0], q & 0xFFFFFFFF, p >> 32 ^ c[3] ^ keys[1], p & 0xFFFFFFFF]
        keys = [k + step & 0xFFFFFFFF for k, step in zip(keys, K)]
    return np.stack(c, 1).reshape(-1, 8, 4).transpose(0, 2, 1).ravel()[:count].astype("<u4")

def thinned(form, shape, part, key):  # one of every `every` elements, chosen by a byte of the random words
    count, bits, every = math.prod(shape), form["bits"], form["every"]
    start = np.arange(0, count, every)
    byte = draw(key, -(-len(start) // 4)).view(np.uint8)[:len(start)].astype(np.int64)
    step = numbers(part("steps"))[np.arange(len(start)) // form["group"]]
    result = np.zeros(count, F32)
    result[start + (byte * np.minimum(every, count - start) >> 8)] = (
        codes(part("codes"), bits, len(start)) - F32((2 ** bits - 1) / 2)) * step
    return result

def unpack(index, task, files):  # the small vectors, which lie one after another: adds them under their own names
    data, start, limit = files[task["name"]][2], 0, task["packed"]["limit"]
    for tensor, form in zip(index["tensors"], task["forms"]):
        count = math.prod(tensor["shape"])
        if not form or form["form"] == "zero": continue
        if form["form"] == "thinned":
            kept = -(-count // form["every"])
            parts = [("codes", "U8", -(-kept * form["bits"] // 8)), ("steps", "BF16", -(-kept // form["group"]) * 2)]
        else: parts = [("values", form["dtype"], count * np.dtype(DTYPES[form["dtype"]]).itemsize)]
        if sum(size for _, _, size in parts) > limit: continue
        for last, dtype, size in parts:
            files[f"{tensor['name']}.{last}"] = (dtype, tensor["shape"], data[start:start + size])
            start += size

def rebuild(store, task, base):  # replaces what differs in base, {name: (dtype, shape, bytes)}
    index = json.load(open(f"{store}/task-vectors.json"))
    owners = [next(t for t in index["tasks"] if t["name"] == task)] + ([index["shared"]] if index.get("shared") else [])
    if index["version"] > 1: owners[0]["forms"] = [None if f is None else index["forms"][f] for f in owners[0]["forms"]]
    packed = owners[0].get("packed")
    if packed: owners[0]["files"].append(packed["file"])
    parts = [{k: v for file in owner["files"] for k, v in read(f"{store}/{file}").items()} for owner in owners]
    if packed: unpack(index, owners[0], parts[0])
    def key(name):  # of a tensor's mask
        text = struct.pack("<Q", owners[0]["seed"]) + f"{task}#{name}".encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
    for position, (name, dtype, shape) in enumerate((t["name"], t["dtype"], t["shape"]) for t in index["tensors"]):
        forms = [owner["forms"][position] for owner in owners]
        found = [thinned(form, shape, lambda last: files[f"{name}.{last}"], key(name)) if form["form"] == "thinned"
                 else vector(form, shape, lambda last: files[f"{name}.{last}"])
                 for form, files in zip(forms, parts) if form and form["form"] not in ("zero", "mask")]
        if not found: continue  # it is the base's
        tau = found[0] if len(found) == 1 else found[0] + found[1]
        if forms[0]["form"] == "mask": tau = np.where(codes(parts[0][f"{name}.mask"], 1, len(tau)) != 0, tau, F32(0))
        new = numbers(base[name]).astype(F32) + (tau * F32(owners[0]["factor"]) if owners[0]["factor"] != 1 else tau)
        if dtype == "BF16":  # rounded to the nearest, ties to even
            new = new.view(np.uint32) + np.uint32(0x7FFF) + (new.view(np.uint32) >> 16 & 1) >> 16
        base[name] = (dtype, shape, new.astype(DTYPES[dtype]).tobytes())

if __name__ == "__main__":
    tensors, end = {k: v for file in sys.argv[3:-1] for k, v in read(file).items()}, 0
    rebuild(sys.argv[1], sys.argv[2], tensors)
    header = {k: {"dtype": d, "shape": s, "data_offsets": [end, end := end + len(b)]} for k, (d, s, b) in tensors.items()}
    text = json.dumps(header).encode()
    open(sys.argv[-1], "wb").write(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))
