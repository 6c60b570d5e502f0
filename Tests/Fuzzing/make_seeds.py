#!/usr/bin/env python3
"""Makes Models/ and Seeds/, the inputs that fuzzing starts from: make_seeds.py TESSERA

TESSERA is a built executable. The files are committed; run this after a change to a format. Seeds that people or the fuzzer
have added under other names stay.
"""
import json
import math
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SEPARATOR = b"\n%%%%\n"


def safetensors(tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, shape, values in sorted(tensors):
        raw = struct.pack("<%df" % len(values), *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def tensor(name, shape, source):
    count = 1
    for length in shape:
        count *= length
    return name, list(shape), [round(source.uniform(-1, 1), 3) for _ in range(count)]


def model(seed):
    source = random.Random(seed)
    tensors = [tensor("model.embed_tokens.weight", [7, 4], source), tensor("lm_head.weight", [7, 4], source),
               tensor("model.norm.weight", [4], source)]
    for layer in range(2):
        tensors.append(tensor(f"model.layers.{layer}.mlp.up_proj.weight", [6, 4], source))
        tensors.append(tensor(f"model.layers.{layer}.input_layernorm.weight", [4], source))
    return safetensors(tensors)


def tokenizer(vocabulary, added):
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=number, content=text, **flags) for number, text in added],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False,
                  "vocab": {text: number for number, text in enumerate(vocabulary)}, "merges": ["a b"]},
    }, indent=1).encode()


def write(path, *parts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(SEPARATOR.join(parts))


def thinned(index):
    """The index, and a packed file, of a store whose vectors all keep one of four elements."""
    task, data = index["tasks"][0], b""
    index["forms"], task["seed"] = [{"form": "thinned", "bits": 3, "group": 16, "every": 4}], 7
    task["forms"] = [0 if tensor["dtype"] in ("F32", "F16", "BF16") else None for tensor in index["tensors"]]
    for tensor, form in zip(index["tensors"], task["forms"]):
        kept = 0 if form is None else -(-math.prod(tensor["shape"]) // 4)
        data += bytes(range(-(-kept * 3 // 8))) + b"\x80\x3c" * -(-kept // 16)
    header = json.dumps({task["name"]: {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    return json.dumps(index).encode(), len(header).to_bytes(8, "little") + header + data


def main():
    tessera = pathlib.Path(sys.argv[1]).resolve()
    models, seeds = HERE / "Models", HERE / "Seeds"
    config = json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 4,
                         "vocab_size": 7, "tie_word_embeddings": False, "torch_dtype": "float32"}, indent=2).encode()
    settings = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "pad_token": "<pad>"}).encode()
    tokenizers = {"a": tokenizer(["a", "b", "c", "ab", "\u0120"], [(5, "<s>"), (6, "<pad>")]),
                  "b": tokenizer(["a", "b", "d", "ab", "\u0120"], [(5, "<s>"), (6, "c")])}
    for number, name in enumerate(["a", "b"]):
        write(models / name / "model.safetensors", model(number))
        write(models / name / "config.json", config)
        write(models / name / "tokenizer.json", tokenizers[name])
    write(models / "a/tokenizer_config.json", settings)
    source = random.Random(3)
    factors = []
    for layer in range(2):
        path = f"base_model.model.model.layers.{layer}.mlp.up_proj.lora_"
        factors += [tensor(path + "A.weight", [2, 4], source), tensor(path + "B.weight", [6, 2], source)]
    adapter = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["up_proj"], "bias": "none",
                          "fan_in_fan_out": False, "alpha_pattern": {"layers.0.mlp.up_proj": 8, "^.*[01]\\.(mlp|x)+": 2},
                          "rank_pattern": {}}, indent=1).encode()
    write(models / "adapter/adapter_config.json", adapter)
    write(models / "adapter/adapter_model.safetensors", safetensors(factors))

    write(seeds / "header/model", model(0))
    write(seeds / "header/types", (ROOT / "Tests/Checkpoints/Fixtures/every-type.safetensors").read_bytes())
    names = [name for name, _, _ in sorted(
        [("model.embed_tokens.weight", 0, 0), ("lm_head.weight", 0, 0), ("model.norm.weight", 0, 0)]
        + [(f"model.layers.{layer}.{part}.weight", 0, 0) for layer in range(2) for part in ("mlp.up_proj", "input_layernorm")])]
    write(seeds / "checkpoint/index",
          json.dumps({"metadata": {"total_size": 464}, "weight_map": {name: "model.safetensors" for name in names}}).encode(),
          config)
    write(seeds / "adapter/lora", adapter, safetensors(factors))
    write(seeds / "tokenizer/fast", tokenizers["b"], settings)
    write(seeds / "tokenizer/vocabulary", b"", settings, b'{"a": 0, "b": 1, "<unk>": 2}', b'{"<s>": 3}', b'{"bos_token": "<s>"}')

    recipes = sorted((ROOT / "docs/examples").glob("*.yml")) + sorted((ROOT / "Tests/Golden/cases").glob("*/recipe.yml"))
    for number, path in enumerate(recipes):
        write(seeds / f"recipe/{number:02}", path.read_bytes())
    two = "models: [{model: a}, {model: b}]\n"
    plans = {
        "linear": "merge_method: linear\n" + two
                  + "parameters: {weight: [0.2, {filter: mlp, value: 0.5}, 0.8]}\ndtype: bfloat16\n",
        "slices": "merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 2]}]\n"
                  "- sources: [{model: b, layer_range: [1, 2]}]\n",
        "ties": "merge_method: ties\nbase_model: a\nmodels: [{model: b, parameters: {weight: 1, density: 0.5}}]\n",
        "union": "merge_method: linear\n" + two
                 + "parameters: {weight: 1}\ntokenizer: {source: union, tokens: {<x>: {source: a}}}\n",
        "lora": "merge_method: dare_ties\nbase_model: a\nmodels: [{model: a+adapter, parameters: {weight: 1, density: 0.5}}]\n",
        "store": "quantize: {budget: 3 bits}\nbase_model: a\nmodels: [{model: b}]\n",
        "modules": "merge_method: slerp\nmodules:\n  model:\n    slices:\n    - sources: [{model: a, layer_range: [0, 1]}, "
                   "{model: b, layer_range: [0, 1]}]\nbase_model: a\nparameters: {t: 0.5}\n",
    }
    for name, text in plans.items():
        write(seeds / f"plan/{name}", text.encode(), config)

    write(seeds / "overrides/values", plans["linear"].encode(),
          b"merge_method=ties\nmodels.0.model=b\nparameters.weight=[0.1, 0.9]\nbase_model=a\nmodels.1.parameters.density=0.5")
    write(seeds / "overrides/slices", plans["slices"].encode(), b"slices.0.sources.0.layer_range.1=1\ndtype=float16")
    write(seeds / "settings/commands", b"coordinator: head:7070\nworker:\n  root: [/data, /scratch]\n  threads: 32\n"
          b"submit: {audit: 5%, wait: true}\nseed: 3\n")
    write(seeds / "tokens/named", b"# people\nann submitter,viewer aaaaaaaaaaaaaaaa\nops operator bbbbbbbbbbbbbbbb\n"
          b"worker cccccccccccccccc\ndddddddddddddddd\n", b"bbbbbbbbbbbbbbbb")
    host = "Host: localhost\r\n"
    job = "0123456789abcdef0123456789abcdef"
    requests = {
        "jobs": f"GET /api/v1/jobs?after=0&limit=10 HTTP/1.1\r\n{host}\r\n",
        "job": f"GET /api/v1/jobs/{job}?after=2&limit=1 HTTP/1.1\r\n{host}Accept: application/json\r\n\r\n",
        "shard": f"GET /api/v1/jobs/{job}/shards/3 HTTP/1.1\r\n{host}Authorization: Bearer bbbbbbbbbbbbbbbb\r\n\r\n",
        "plan": f"GET /api/v1/jobs/{job}/plan HTTP/1.0\r\n\r\n",
        "events": f"GET /api/v1/events?job={job} HTTP/1.1\r\n{host}Last-Event-ID: 7\r\n\r\n",
        "workers": f"GET /api/v1/workers?after=1 HTTP/1.1\r\nHost: [::1]:7071\r\nConnection: close\r\n\r\n",
        "page": f"GET / HTTP/1.1\r\n{host}\r\nGET /metrics HTTP/1.1\r\n{host}\r\n",
        "body": f"POST /api/v1/jobs HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "health": f"HEAD /healthz HTTP/1.1\r\n{host}Content-Length: 2\r\n\r\nxx",
    }
    for name, text in requests.items():
        write(seeds / f"status/{name}", text.encode())

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        forms = ["quantize: {budget: 4 bits}", "quantize: {scheme: tvq, bits: 4}", "sparsify: {method: dare, density: 0.5}",
                 "sparsify: {method: emr}", "quantize: {budget: 16 bits, thin: true}"]
        for number, form in enumerate(forms):
            recipe = folder / "recipe.yml"
            recipe.write_text(f"{form}\nbase_model: a\nmodels:\n- {{model: b}}\n")
            out = folder / f"store-{number}"
            subprocess.run([tessera, "run", recipe, out, "--progress", "none"], cwd=models, check=True,
                           stdout=subprocess.DEVNULL)
            more = [out / name for name in ("shared.safetensors", "b.packed")]
            rest = [path.read_bytes() if path.exists() else b"" for path in more]
            index, own = (out / "task-vectors.json").read_bytes(), (out / "b.safetensors").read_bytes()
            write(seeds / f"store/{number}", index, own, *rest)
            if rest[1]:  # the models are too small for a mask of their own
                index, packed = thinned(json.loads(index))
                write(seeds / f"store/{number}-thinned", index, own, b"", packed)
        recipe = folder / "merge.yml"
        recipe.write_text("merge_method: passthrough\nmodels: [{model: a}]\n")
        subprocess.run([tessera, "run", recipe, folder / "out", "--sha256sums", "--progress", "none"], cwd=models, check=True,
                       stdout=subprocess.DEVNULL)
        write(seeds / "manifest/output", (folder / "out/tessera.manifest.json").read_bytes(),
              (folder / "out/SHA256SUMS").read_bytes())

    signed = ROOT / "Tests/Checkpoints/Fixtures/signed/P-256/model/model.sig"
    write(seeds / "signature/bundle", signed.read_bytes())

    # Every message of the protocol's page, and conversations of them.
    examples = []
    for block in re.findall(r"```json\n(.*?)```", (ROOT / "docs/protocol.md").read_text(), re.S):
        depth, text = 0, ""
        for character in block.replace("...", ""):
            depth += {"{": 1, "}": -1}.get(character, 0)
            text += character
            if depth == 0 and text.strip():
                try:
                    examples.append(json.loads(" ".join(text.split())))
                except json.JSONDecodeError:
                    pass
                text = ""
    messages = [json.dumps(example, separators=(",", ":")).encode() for example in examples if "type" in example]
    named = {example["type"]: json.dumps(example, separators=(",", ":")).encode() for example in examples if "type" in example}
    client = dict(json.loads(named["hello"]))
    client["content"] = dict(client["content"], role="client")
    client = json.dumps(client, separators=(",", ":")).encode()
    for number, message in enumerate(messages):
        for name, opening in (("worker", named["hello"]), ("client", client), ("coordinator", named["welcome"])):
            write(seeds / f"messages/{name}-{number:02}", opening, message)
    for name, opening in (("worker", named["hello"]), ("coordinator", named["welcome"])):
        write(seeds / f"messages/{name}-all", opening, *messages[:60])
    write(seeds / "frames/worker", b"\xf1\x00" + named["hello"], b"\x00" + named["drain"] if "drain" in named else b"\x00",
          b"\x01" + struct.pack("<IIQIBBHI", 0, 0, 0, 8, 0, 4, 0, 0) + bytes(8))
    write(seeds / "frames/coordinator", b"\xf1\x00" + named["welcome"], b"\x02" + bytes(16))
    write(seeds / "frames/flipped", b"\xf3\x00" + named["hello"])
    dump = (ROOT / "docs/protocol.md").read_text().split("### A frame for tests")[1].split("```")[1]
    write(seeds / "frames/raw", b"\xf0" + bytes.fromhex("".join(line[6:53] for line in dump.splitlines())))
    print({folder.name: len(list(folder.iterdir())) for folder in sorted(seeds.iterdir())}, len(messages), "messages")


main()
