#!/usr/bin/env python3
"""Merges tiny models of every architecture that transformers ships, and loads what comes out.

    python3 Tests/Architectures/sweep.py [--tessera PATH] [--only NAME ...] [--every N] [--jobs N] [--results FILE] [--table FILE]

For each architecture and head, with random weights: a model merged with itself is the same; two models merged linearly have the
mean of the weights; one layer left out, and one layer stacked twice, give the live model with those layers; adapters that PEFT
makes, plain and of the kinds below, give what PEFT's own merge gives. Every output must load without a missing, unexpected or
mismatched key. Needs torch, transformers, PEFT and safetensors.
"""
import argparse
import contextlib
import copy
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers.models.auto import modeling_auto as auto  # noqa: E402

import adapters  # noqa: E402

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
LAYERS = 4

# What makes a model tiny, by the names that configs use. Every stack has as many layers as every other, so that no count of
# layers tells which stack it is about.
GROUPS = {
    96: "vocab_size vocab_size_per_layer_input src_vocab_size tgt_vocab_size decoder_vocab_size text_vocab_size",
    32: "hidden_size d_model n_embd dim model_dim embedding_size emb_dim word_embed_proj_dim projection_dim text_embed_dim "
    "encoder_hidden_size decoder_hidden_size attention_hidden_size rnn_hidden_size lru_width out_hidden_size proj_dim embed_dim "
    "image_size num_buckets",
    LAYERS: "num_attention_heads n_head num_heads n_heads encoder_attention_heads decoder_attention_heads "
    "num_encoder_attention_heads num_decoder_attention_heads attention_heads encoder_num_attention_heads "
    "decoder_num_attention_heads num_hidden_layers n_layer n_layers num_layers num_decoder_layers num_encoder_layers "
    "encoder_layers decoder_layers depth encoder_num_hidden_layers decoder_num_hidden_layers num_blocks num_experts "
    "num_local_experts n_routed_experts moe_num_experts",
    2: "num_key_value_heads num_kv_heads multi_query_group_num encoder_num_key_value_heads decoder_num_key_value_heads "
    "num_experts_per_tok num_experts_per_token moe_topk moe_k num_conv_pos_embedding_groups linear_num_key_heads "
    "linear_num_value_heads eos_token_id type_vocab_size num_global_layers",
    8: "head_dim d_kv kv_channels attention_head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim patch_size rotary_dim "
    "mamba_n_heads mamba_d_head mamba_chunk_size linear_key_head_dim linear_value_head_dim hidden_size_per_layer_input",
    64: "intermediate_size d_ff encoder_ffn_dim decoder_ffn_dim ffn_dim n_inner hidden_dim dim_ff encoder_intermediate_size "
    "decoder_intermediate_size shared_expert_intermediate_size d_inner ffn_hidden_size max_position_embeddings n_positions "
    "n_ctx max_source_positions max_target_positions max_seq_len max_sequence_length max_2d_position_embeddings",
    24: "moe_intermediate_size expert_ffn_hidden_size",
    16: "q_lora_rank kv_lora_rank qk_head_dim num_mel_bins num_conv_pos_embeddings mamba_d_state state_size",
    3: "conv_kernel_size conv_depthwise_kernel_size",
    1: "n_group topk_group mamba_n_groups bos_token_id decoder_start_token_id",
    0: "pad_token_id",
    90: "image_token_id image_token_index",
    91: "video_token_id",
    92: "vision_start_token_id",
    93: "vision_end_token_id",
    94: "audio_token_id",
}
SIZES = {name: size for size, names in GROUPS.items() for name in names.split()}
# Those of them that count layers.
COUNTS = {name for name in SIZES if SIZES[name] == LAYERS and name.endswith(("layers", "layer", "depth", "blocks"))}
# What some architectures need besides, because sizes hang together, or so that their layers are of several kinds.
CONVOLUTIONS = dict.fromkeys(
    ["wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio"], {"conv_dim": (32,) * 7})
MORE = {
    **CONVOLUTIONS,
    "sew": {"conv_dim": (32,) * 13},
    "qwen2_vl": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
    "smollm3": {"no_rope_layers": [1, 1, 0, 1]},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
              "use_mamba_kernels": False},
    "deepseek_v3": {"first_k_dense_replace": 1},
    "glm4_moe": {"first_k_dense_replace": 1},
    "qwen3_next": {"layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention", "mamba", "attention"]},
    "bamba": {"attn_layer_indices": [1, 3]},
    "mllama_text_model": {"cross_attention_layers": [1, 3]},
    "qwen3_vl_vision": {"deepstack_visual_indexes": [1, 3]},
    "qwen3_vl_moe_vision": {"deepstack_visual_indexes": [1, 3]},
    "qwen3_omni_moe_vision_encoder": {"deepstack_visual_indexes": [1, 3]},
}
HEADS = [
    ("causal", auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    ("seq2seq", auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
    ("masked", auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
    ("vision", auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES),
    ("speech", auto.MODEL_FOR_CTC_MAPPING_NAMES),
    ("speech", auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES),
    ("vision-language", auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES),
    ("vision-language", auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES),
    ("classification", auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES),
]
# Kinds of adapters, as `adapters.kinds` has them, that are tried on every model.
ADAPTERS = ["plain", "dora", "pissa", "olora", "embedding", "saved"]


def tiny(config_class, more=None):
    """The smallest config of a class that its model accepts, its parts made small alike."""
    default = config_class()
    values = {}
    for key, value in default.to_dict().items():
        if key in SIZES and (isinstance(value, int) or value is None and key != "head_dim") and not isinstance(value, bool):
            values[key] = SIZES[key]
    for key in getattr(default, "attribute_map", {}).values():
        if key in SIZES:
            values[key] = SIZES[key]
    for key, part in (config_class.sub_configs or {}).items():
        if part is not transformers.AutoConfig:
            values[key] = tiny(part, MORE.get(part.model_type)).to_dict()
        elif isinstance(getattr(default, key, None), transformers.PretrainedConfig):
            part = type(getattr(default, key))
            values[key] = tiny(part, MORE.get(part.model_type)).to_dict()
    for key in ["dropout", "attention_dropout", "hidden_dropout", "activation_dropout", "layerdrop"]:
        if hasattr(default, key):
            values[key] = 0.0
    values.update(more or {})
    return config_class(**values)


def build(model_class, config, seed):
    torch.manual_seed(seed)
    model = model_class(copy.deepcopy(config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.normal_(0, 0.05)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point() and name.rsplit(".", 1)[-1] in ("running_var",):
                buffer.fill_(1.0)
    model.tie_weights()
    return model


def inputs(model, kind):
    """Inputs that reach the stacks; several are tried, for the first that the model takes."""
    ids = torch.arange(3, 15).reshape(1, -1)
    size = getattr(getattr(model.config, "vision_config", model.config), "image_size", 32)
    size = size[0] if isinstance(size, (list, tuple)) else size if isinstance(size, int) else 32
    pixels = torch.linspace(-1, 1, 3 * size * size).reshape(1, 3, size, size)
    waves, mels = torch.linspace(-1, 1, 4000).sin().reshape(1, -1), torch.linspace(-1, 1, 16 * 128).reshape(1, 16, 128)
    features = mels.transpose(1, 2)
    tries = {
        "causal": [{"input_ids": ids}], "masked": [{"input_ids": ids}], "classification": [{"input_ids": ids}],
        "seq2seq": [{"input_ids": ids, "decoder_input_ids": ids[:, :6]}], "vision": [{"pixel_values": pixels}],
        "speech": [{"input_values": waves}, {"input_features": features}, {"input_features": mels, "decoder_input_ids": ids},
                   {"input_features": features, "decoder_input_ids": ids}, {"input_values": waves, "decoder_input_ids": ids}],
        "vision-language": [{"input_ids": ids}, {"input_ids": ids, "pixel_values": pixels},
                            {"input_ids": ids, "pixel_values": pixels, "decoder_input_ids": ids[:, :6]},
                            {"pixel_values": pixels, "decoder_input_ids": ids[:, :6]}],
    }
    for values in tries[kind]:
        with contextlib.suppress(Exception):
            logits(model, values)
            return values
    return None


def logits(model, values):
    torch.manual_seed(0)
    with torch.no_grad():
        options = {"use_cache": False} if "input_ids" in values or "decoder_input_ids" in values else {}
        try:
            out = model(**values, **options)
        except TypeError:
            out = model(**values)
    return next(v for v in out.to_tuple() if torch.is_tensor(v) and v.is_floating_point())


# Words of the remarks that say why an output may not be what its layers were.
TOLD = ["config.json", "layer 0", "each layer", "own number", "will not load"]


class Failed(Exception):
    pass


class Adapted:
    """A model as `adapters.compare` wants it: its checkpoint, and which of its modules adapters change."""

    conv = experts = None

    def __init__(self, model_class, path, model, stacks, values):
        self.model_class, self.path, self.inputs = model_class, path, values
        inside = [module for module, _ in stacks] or [""]
        names = [name for name, module in model.named_modules()
                 if isinstance(module, (torch.nn.Linear, transformers.pytorch_utils.Conv1D)) and name.startswith(inside[0])]
        self.linear = list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in names if not name[-1].isdigit()))[:2]
        tables = [name for name, module in model.named_modules()
                  if isinstance(module, torch.nn.Embedding) and module is self.embeddings(model)]
        self.embedding = tables[0].rsplit(".", 1)[-1] if tables else None
        norms = [name for name, module in model.named_modules() if "norm" in type(module).__name__.lower()]
        self.last = norms[-1].rsplit(".", 1)[-1] if norms else None

    @staticmethod
    def embeddings(model):
        with contextlib.suppress(Exception):
            return model.get_input_embeddings()
        return None

    def make(self):
        return self.load(self.path)

    def load(self, path, **more):
        return self.model_class.from_pretrained(path, dtype=torch.float32, **more)

    def logits(self, model):
        return None if self.inputs is None else logits(model, self.inputs)


class Sweep:
    def __init__(self, tessera, directory):
        self.tessera = tessera
        self.directory = directory

    def merge(self, recipe):
        """Runs a recipe; the output's directory and what the plan says."""
        out = os.path.join(self.directory, "out")
        shutil.rmtree(out, ignore_errors=True)
        with open(os.path.join(self.directory, "recipe.yml"), "w") as file:
            file.write(recipe)
        run = subprocess.run([self.tessera, "run", "recipe.yml", "out"], cwd=self.directory, capture_output=True, text=True)
        if run.returncode:
            raise Failed("refused: " + run.stderr.strip().splitlines()[0].removeprefix("error: ")[:200])
        return out, [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("note")]

    def load(self, model_class, out):
        try:
            model, info = model_class.from_pretrained(out, output_loading_info=True, torch_dtype=torch.float32)
        except Exception as error:
            raise Failed(f"does not load: {str(error).strip().splitlines()[-1][:160]}") from error
        kinds = ["missing_keys", "unexpected_keys", "mismatched_keys"]
        wrong = {key: sorted(map(str, info[key]))[:3] for key in kinds if info.get(key)}
        if wrong:
            raise Failed(f"loads incompletely: {wrong}")
        return model.eval()

    def same(self, out, expected, values, model_class):
        """The output loads as `expected`."""
        found = self.load(model_class, out)
        want, have = expected.state_dict(), found.state_dict()
        if want.keys() != have.keys():
            raise Failed(f"other tensors: {sorted(want.keys() ^ have.keys())[:3]}")
        for name, tensor in want.items():
            other = have[name].float()
            if tensor.shape != other.shape or not torch.allclose(tensor.float(), other, atol=1e-6, equal_nan=True):
                raise Failed(f"other values in {name}")
        if values is not None and not torch.allclose(logits(expected, values), logits(found, values), atol=1e-4, equal_nan=True):
            raise Failed("other logits")

    # The checks of one architecture

    def check(self, model_class, config, kind):
        first, second = build(model_class, config, 1), build(model_class, config, 2)
        values = inputs(first, kind)
        for name, model in [("a", first), ("b", second)]:
            shutil.rmtree(os.path.join(self.directory, name), ignore_errors=True)
            model.save_pretrained(os.path.join(self.directory, name))
        first = self.load(model_class, os.path.join(self.directory, "a"))
        results = {"logits": "yes" if values is not None else "weights only"}

        def attempt(check, body):
            try:
                results[check] = body() or "ok"
            except Failed as failure:
                results[check] = str(failure)

        def self_merge():
            out, _ = self.merge("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}]\n")
            self.same(out, first, values, model_class)

        def mean():
            out, _ = self.merge("merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 0.5}\n")
            one, two, found = (self.tensors(x) for x in ["a", "b", "out"])
            for name in one:
                mean = (one[name].double() + two[name].double()) / 2
                if one[name].is_floating_point() and not torch.allclose(mean, found[name].double(), atol=1e-6):
                    raise Failed(f"not the mean: {name}")

        attempt("self-merge", self_merge)
        attempt("linear", mean)
        stacks = self.stacks(first)
        for check, layers in [("prune", [0, 1, 3]), ("prune first", [1, 2, 3]), ("stack", [0, 1, 2, 1, 2, 3])]:
            for module, stack in stacks:
                label = check if len(stacks) == 1 else f"{check} {stack}"
                attempt(label, lambda: self.sliced(model_class, first, stacks, stack, layers, values))
            if not stacks:
                results[check] = "no stack"
        self.adapt(model_class, first, stacks, values, results)
        return results

    # Adapters

    def adapt(self, model_class, model, stacks, values, results):
        """Folds adapters of every kind with PEFT and with Tessera."""
        architecture = Adapted(model_class, os.path.join(self.directory, "a"), model, stacks, values)
        if not architecture.linear:
            return
        for kind, config in adapters.kinds(architecture).items():
            if kind not in ADAPTERS:
                continue
            folder = pathlib.Path(self.directory, kind)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                result = adapters.compare(architecture, kind, config, self.tessera, folder)
            except Exception as error:  # PEFT cannot do it, or not with this architecture.
                result = f"not made: {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:120]}"
            results[f"adapter {kind}"] = result
            shutil.rmtree(folder)

    def tensors(self, name):
        directory, tensors = os.path.join(self.directory, name), {}
        for file in os.listdir(directory):
            if file.endswith(".safetensors"):
                tensors.update(load_file(os.path.join(directory, file)))
        return tensors

    def stacks(self, model):
        """The module lists with numbered layers, and what the checkpoint calls them."""
        counts = {}
        for name in self.tensors("a"):
            parts = name.split(".")
            number = next((k for k, part in enumerate(parts) if part.isdigit()), 0)
            if number:
                stack = ".".join(parts[:number])
                counts[stack] = max(counts.get(stack, 0), int(parts[number]) + 1)
        stacks = [stack for stack, count in counts.items() if count == LAYERS]
        lists = [name for name, module in model.named_modules()
                 if isinstance(module, torch.nn.ModuleList) and len(module) == LAYERS
                 and not any(part.isdigit() for part in name.split("."))]
        pairs = [(name, stack) for name in lists for stack in stacks
                 if name == stack or name.endswith("." + stack) or stack.endswith("." + name)]
        # Some are saved under other names than the modules have.
        return pairs or [(lists[0], stacks[0])] if len(lists) == len(stacks) == 1 else pairs

    def live(self, model, modules, layers):
        """The model with these layers in each of the module lists."""
        live = copy.deepcopy(model)
        for module in modules:
            self.choose(live, module, layers)
        return live

    def choose(self, live, module, layers):
        stack = live.get_submodule(module)
        parent, _, leaf = module.rpartition(".")
        chosen = torch.nn.ModuleList(copy.deepcopy(stack[k]) for k in layers)
        setattr(live.get_submodule(parent), leaf, chosen)
        # What the first layer has for all, T5's relative position bias, stays in the first.
        first, other = set(stack[0].state_dict()), set(stack[1].state_dict())
        has_more = other < first and all(set(layer.state_dict()) == other for layer in stack[2:])
        if has_more and layers[0] != 0:
            for name in first - other:
                path, _, _ = name.rpartition(".")
                outer, _, leaf = path.rpartition(".")
                setattr(chosen[0].get_submodule(outer), leaf, copy.deepcopy(stack[0].get_submodule(path)))
                for key, value in vars(stack[0].get_submodule(outer)).items():
                    if isinstance(value, bool):
                        setattr(chosen[0].get_submodule(outer), key, value)
        if has_more:
            for k in range(1, len(layers)):
                if layers[k] == 0:
                    chosen[k] = copy.deepcopy(stack[1])
                    chosen[k].load_state_dict({key: value for key, value in stack[0].state_dict().items() if key in other})
        # XLM's attention finds its place in the cache by its number, although there is no cache.
        for k, layer in enumerate(chosen):
            for inner in layer.modules():
                if "Attention" in type(inner).__name__ and vars(inner).get("layer_id") == layers[k]:
                    inner.layer_id = k
        owner = live.get_submodule(parent)
        for key, value in list(vars(owner).items()):
            if key in COUNTS and value == LAYERS:
                setattr(owner, key, len(layers))
        part = self.part(live, module)
        for key, value in list(vars(part).items()):
            if isinstance(value, (list, tuple)) and len(value) == LAYERS and "token" not in key:
                setattr(part, key, [value[k] for k in layers])
            elif key in COUNTS and value == LAYERS:
                roles = [role for role in ("encoder", "decoder") if role in key]
                is_of_encoder = not roles and "decoder" in module and "num_decoder_layers" in vars(part)
                if all(role in module for role in roles) and not is_of_encoder:
                    setattr(part, key, len(layers))

    def sliced(self, model_class, model, stacks, stack, layers, values):
        """One stack's layers chosen; the recipe names the stack only where it must."""
        refusal = None
        for text in [self.recipe(stack, layers), self.recipe(stack, layers, named=True)]:
            try:
                out, notes = self.merge(text)
            except Failed as failure:
                refusal = failure
                continue
            changed = self.changed(stacks, len(layers))
            if stack in changed:
                break
        else:
            raise refusal or Failed("refused: the stack cannot be named")
        modules = [module for module, other in stacks if other in changed]
        try:
            self.same(out, self.live(model, modules, layers), values, model_class)
        except Failed as failure:
            told = [note for note in notes if any(words in note for words in TOLD)]
            if told:
                return f"told: {told[0][:160]}"
            raise failure
        return None

    def changed(self, stacks, count):
        """The stacks that have so many layers in the output."""
        counts = {}
        for name in self.tensors("out"):
            for _, stack in stacks:
                if name.startswith(f"{stack}."):
                    number = name[len(stack) + 1:].split(".")[0]
                    counts[stack] = max(counts.get(stack, 0), int(number) + 1)
        return {stack for stack, found in counts.items() if found == count}

    def part(self, model, prefix):
        """The config of the innermost module with one of its own that holds the stack."""
        part, path = model.config, []
        for step in prefix.split("."):
            path.append(step)
            part = getattr(model.get_submodule(".".join(path)), "config", part)
        return part

    def recipe(self, prefix, layers, named=False):
        ranges = []
        for layer in layers:
            if ranges and ranges[-1][1] == layer:
                ranges[-1][1] = layer + 1
            else:
                ranges.append([layer, layer + 1])
        slices = "".join(f"- sources: [{{model: a, layer_range: [{first}, {end}]}}]\n" for first, end in ranges)
        modules = self.modules()
        stack = f"stack: {prefix}\n" if named else ""
        if modules == ["default"]:
            return f"merge_method: passthrough\n{stack}slices:\n" + slices
        words = prefix
        if "encoder" in modules:
            encoder, decoder = words.find("encoder"), words.find("decoder")
            chosen = "decoder" if decoder >= 0 and not 0 <= encoder < decoder else "encoder"
        elif re.search(r"(^|\.)(visual|vision_(tower|model|encoder))\.", words + "."):
            chosen = "vision_model" if "vision_model" in modules else "vision_tower"
        elif re.search(r"(^|\.)audio_(tower|model|encoder)\.", words + "."):
            chosen = "audio_tower"
        else:
            chosen = "text_decoder"
        text = "merge_method: passthrough\nmodules:\n"
        for module in modules:
            text += f"  {module}:\n"
            inner = (f"    {stack}" if named else "") + "    slices:\n" + re.sub("^", "    ", slices, flags=re.M).rstrip(" ")
            text += inner if module == chosen else "    models: [{model: a}]\n"
        return text

    def modules(self):
        with open(os.path.join(self.directory, "probe.yml"), "w") as file:
            file.write("merge_method: passthrough\nmodules:\n  '?':\n    models: [{model: a}]\n")
        run = subprocess.run([self.tessera, "plan", "probe.yml"], cwd=self.directory, capture_output=True, text=True)
        match = re.search(r"write one of (.*)", run.stderr)
        return re.findall(r"[a-z_]+", match.group(1)) if match else ["default"]


def sweep(job):
    """Checks one architecture: what was found, or why it could not be made."""
    tessera, kind, model_type, class_name = job
    mapping = transformers.models.auto.configuration_auto.CONFIG_MAPPING
    try:
        model_class = getattr(transformers, class_name)
        config = tiny(mapping[model_type], MORE.get(model_type))
        if sum(p.numel() for p in build(model_class, config, 0).parameters()) > 20_000_000:
            raise ValueError("not tiny")
        with tempfile.TemporaryDirectory() as directory:
            return job, Sweep(tessera, directory).check(model_class, config, kind), None
    except BaseException as error:  # Some need libraries or sizes of their own.
        return job, None, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:90]}"


def borrows(model_type, names):
    """Whether a type uses the class of another."""
    # Few classes have several types, and asking a class loads its module.
    if list(names.values()).count(names[model_type]) < 2:
        return False
    with contextlib.suppress(Exception):
        return getattr(transformers, names[model_type]).config_class.model_type != model_type
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tessera", default=".build/debug/tessera", help="the program to check")
    parser.add_argument("--only", nargs="*", help="model types, classes or kinds of heads")
    parser.add_argument("--every", type=int, default=1, help="check every Nth model")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="models at a time")
    parser.add_argument("--results", help="keeps findings, a line of JSON for each model; a sweep goes on with what it lacks")
    parser.add_argument("--table", help="a page whose table is replaced by what was found")
    arguments = parser.parse_args()
    tessera = os.path.abspath(arguments.tessera)
    jobs, seen = [], set()
    for kind, names in HEADS:
        # Some types borrow the class of another, under other names of tensors; a class is checked under its own type.
        types = sorted(names, key=lambda model_type: (borrows(model_type, names), model_type))
        for place, model_type in enumerate(types):
            class_name = names[model_type]
            class_name = class_name[0] if isinstance(class_name, (tuple, list)) else class_name
            wanted = not arguments.only or {kind, model_type, class_name} & set(arguments.only)
            if class_name not in seen and wanted:
                seen.add(class_name)
                jobs.append((place / len(names), (tessera, kind, model_type, class_name)))
    # All heads alike, so that a sweep that is cut short has seen some of each.
    jobs = [job for _, job in sorted(jobs, key=lambda item: item[0])][::arguments.every]
    known = {}
    if arguments.results and os.path.exists(arguments.results):
        with open(arguments.results) as file:
            known = {tuple(entry[:2]): entry for entry in map(json.loads, file)}
    jobs = [job for job in jobs if (job[1], job[3]) not in known]
    # A process serves only a few models: some leave much behind.
    with multiprocessing.get_context("fork").Pool(arguments.jobs, maxtasksperchild=8) as pool:
        for (_, kind, _, class_name), results, reason in pool.imap_unordered(sweep, jobs):
            entry = known[kind, class_name] = [kind, class_name, results, reason]
            if arguments.results:
                with open(arguments.results, "a") as file:
                    file.write(json.dumps(entry) + "\n")
            wrong = {check: result for check, result in (results or {}).items() if check != "logits" and result != "ok"}
            print(f"{kind:16} {class_name:44} {reason or ('ok' if not wrong else json.dumps(wrong))}", flush=True)
    heads = list(dict.fromkeys(name for name, _ in HEADS))
    entries = sorted(known.values(), key=lambda entry: (heads.index(entry[0]), entry[1].lower()))
    rows = [(kind, class_name, results) for kind, class_name, results, _ in entries if results is not None]
    unbuilt = [(kind, class_name, reason) for kind, class_name, results, reason in entries if results is None]
    fine = ("ok", "no stack", "told", "refused", "not made")
    failed = sum(any(not r.startswith(fine) for c, r in row[2].items() if c != "logits") for row in rows)
    for entry in unbuilt:
        print("not made:", *entry)
    print(f"{len(rows)} models, {failed} with something wrong, {len(unbuilt)} not made")
    if arguments.table:
        write_table(arguments.table, rows)
    return 1 if failed or not rows else 0


def cell(results, check):
    """What was found of a check, over all stacks: the worst of it."""
    found = [result for name, result in results.items() if re.fullmatch(f"{check}( first)?( [^ ]+)?", name)]
    wrong = [result for result in found if result != "ok"]
    order = ["told", "no stack", "not made", "refused"]
    wrong.sort(key=lambda result: -order.index(result.split(":")[0]) if result.split(":")[0] in order else -len(order))
    if not wrong:
        return "yes" if found else ""
    word = wrong[0].split(":")[0]
    return {"no stack": "–", "not made": "–"}.get(word, word if word in order else "wrong")


def write_table(path, rows):
    """Replaces the page's table. Architectures with the same findings share a line."""
    columns = ["self-merge", "linear", "prune", "stack"] + [f"adapter {kind}" for kind in ADAPTERS]
    groups = {}
    for kind, class_name, results in rows:
        groups.setdefault((kind, tuple(cell(results, column) for column in columns)), []).append(class_name)
    lines = ["| head | architecture | " + " | ".join(column.removeprefix("adapter ") for column in columns) + " |",
             "|" + "---|" * (len(columns) + 2)]
    for (kind, cells), names in groups.items():
        lines.append(f"| {kind} | {', '.join(names)} | {' | '.join(cells)} |")
    with open(path) as file:
        page = file.read().splitlines()
    places = [place for place, line in enumerate(page) if line.startswith("|")]
    first, last = (places[0], places[-1] + 1) if places else (len(page), len(page))
    with open(path, "w") as file:
        file.write("\n".join(page[:first] + lines + page[last:]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
