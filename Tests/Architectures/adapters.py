#!/usr/bin/env python3
"""Folds adapters of every kind into tiny models of many architectures, with PEFT and with Tessera, and compares the results.

Usage: Tests/Architectures/adapters.py [--tessera PATH] [--only ARCHITECTURE[/KIND]] [--table]

The kind `merged` is two adapters of different ranks and modules, which Tessera merges into a third (`output: adapter`): PEFT
loads that one.

PEFT makes and merges the adapters (merge_and_unload), transformers loads what Tessera wrote. An output passes if it loads without
a missing, unexpected or mismatched key, if its weights are those that PEFT made, and if its logits are the same. Needs torch,
transformers and peft.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
import transformers
from peft import EvaConfig, LoraConfig, PeftModel, TrainableTokensConfig, get_peft_model
from transformers import AutoConfig

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

VOCABULARY = 96
LLAMA = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
# What Tessera says of modules that it does not find in the checkpoint.
REFUSALS = ["the model has no tensor", "in a way that is not known here", "cannot be divided among them"]
TOKENS = {"input_ids": torch.arange(3, 15)[None]}


class Architecture:
    """A tiny model, and which of its modules adapters change."""

    def __init__(self, kind, auto, config, linear, inputs=None, embedding="embed_tokens", conv=None, experts=None, last="norm"):
        self.kind, self.auto, self.config, self.linear = kind, auto, config, linear
        self.inputs, self.embedding, self.conv, self.experts, self.last = inputs or TOKENS, embedding, conv, experts, last

    def make(self):
        config = AutoConfig.for_model(self.kind, **self.config)
        return getattr(transformers, self.auto).from_config(config)

    def load(self, path, **more):
        return getattr(transformers, self.auto).from_pretrained(path, dtype=torch.float32, **more)

    def logits(self, model):
        return model(**self.inputs).logits


def llama(kind, linear=("q_proj", "v_proj"), **more):
    return Architecture(kind, "AutoModelForCausalLM", {**LLAMA, "tie_word_embeddings": False}, list(linear), **more)


def seq2seq(kind, config, linear, **more):
    inputs = {**TOKENS, "decoder_input_ids": torch.arange(5, 12)[None]}
    return Architecture(kind, "AutoModelForSeq2SeqLM", config, linear, inputs, **more)


ARCHITECTURES = {
    "llama": llama("llama"),
    "mistral": llama("mistral"),
    "qwen2": llama("qwen2"),
    "qwen3": llama("qwen3"),
    "olmo2": llama("olmo2"),
    "phi3": llama("phi3", linear=("qkv_proj", "down_proj")),
    "gemma2-tied": Architecture(
        "gemma2", "AutoModelForCausalLM", {**LLAMA, "head_dim": 8}, ["q_proj", "v_proj"]),
    "mixtral": Architecture(
        "mixtral", "AutoModelForCausalLM", {**LLAMA, "num_local_experts": 4, "tie_word_embeddings": False}, ["q_proj"],
        experts=EXPERTS),
    "qwen3_moe": Architecture(
        "qwen3_moe", "AutoModelForCausalLM",
        {**LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8,
         "tie_word_embeddings": False},
        ["q_proj"], experts=EXPERTS),
    "gpt_oss": Architecture(
        "gpt_oss", "AutoModelForCausalLM",
        # As in the models that people have, one matrix of each expert is square.
        {**LLAMA, "intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8,
         "layer_types": ["full_attention"] * 2, "tie_word_embeddings": False},
        ["q_proj"], experts=EXPERTS),
    "gpt2-tied": Architecture(
        "gpt2", "AutoModelForCausalLM", dict(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64),
        ["c_attn", "c_proj"], embedding="wte", last="ln_f"),
    "gpt_neox": Architecture(
        "gpt_neox", "AutoModelForCausalLM",
        dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             tie_word_embeddings=False),
        ["query_key_value", "dense_h_to_4h"], embedding="embed_in", last="final_layer_norm"),
    "opt-tied": Architecture(
        "opt", "AutoModelForCausalLM",
        dict(vocab_size=VOCABULARY, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2,
             num_attention_heads=4, max_position_embeddings=64, pad_token_id=0),
        ["q_proj", "fc1"], last="final_layer_norm"),
    "bloom-tied": Architecture(
        "bloom", "AutoModelForCausalLM", dict(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
        ["query_key_value"], embedding="word_embeddings", last="ln_f"),
    "t5": seq2seq(
        "t5", dict(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0),
        ["q", "v"], embedding=None, last="final_layer_norm"),
    "bart": seq2seq(
        "bart",
        dict(vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
             decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
             forced_eos_token_id=None),
        ["q_proj", "fc1"], embedding=None, last="final_layer_norm"),
    "bert": Architecture(
        "bert", "AutoModelForMaskedLM",
        dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4),
        ["query", "value"], embedding=None, last="attention.output.LayerNorm"),
    "vit": Architecture(
        "vit", "AutoModelForImageClassification",
        dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=4),
        ["q_proj", "v_proj"], {"pixel_values": torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16)}, embedding=None,
        conv=["projection"], last="classifier"),
    "whisper": Architecture(
        "whisper", "AutoModelForSpeechSeq2Seq",
        dict(vocab_size=VOCABULARY, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
             decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=8, max_source_positions=16,
             max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1),
        ["q_proj", "v_proj"],
        {"input_features": torch.linspace(-1, 1, 256).reshape(1, 8, 32), "decoder_input_ids": torch.arange(5, 12)[None]},
        embedding=None, conv=["conv1", "conv2"], last="encoder.layer_norm"),
    "qwen2_5_vl": Architecture(
        "qwen2_5_vl", "AutoModelForImageTextToText",
        dict(
            text_config={**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
            vision_config=dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=4, out_hidden_size=32, patch_size=4),
            image_token_id=90, video_token_id=91, vision_start_token_id=92, vision_end_token_id=93, tie_word_embeddings=False),
        ["q_proj", "v_proj"]),
}


def kinds(architecture):
    """The adapters' configs by the name of their kind."""
    linear, embedding = architecture.linear, architecture.embedding

    def lora(**more):
        return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": linear, **more})

    made = {
        "plain": lora(),
        "rslora": lora(use_rslora=True),
        "patterns": lora(rank_pattern={linear[0]: 2}, alpha_pattern={rf".*1.*\.{linear[0]}": 3, linear[-1]: 5}),
        "bias": lora(bias="all"),
        "dora": lora(use_dora=True),
        **({"saved": lora(modules_to_save=[architecture.last])} if architecture.last else {}),
        "orthogonal": lora(init_lora_weights="orthogonal"),
        "pissa": lora(init_lora_weights="pissa"),
        "olora": lora(init_lora_weights="olora"),
        "pissa-dora": lora(init_lora_weights="pissa", use_dora=True),
        "eva": lora(init_lora_weights="eva", eva_config=EvaConfig()),
        "bfloat16": lora(),
        "merged": lora(target_modules=linear + ([embedding] if embedding else [])),
    }
    if embedding:
        made["embedding"] = lora(target_modules=linear + [embedding])
        made["embedding-dora"] = lora(target_modules=linear + [embedding], use_dora=True)
        made["embedding-saved"] = lora(modules_to_save=[embedding])
        made["tokens"] = lora(trainable_token_indices={embedding: [3, 7, 5]})
        made["tokens-only"] = TrainableTokensConfig(token_indices=[3, 7, 5], target_modules=[embedding])
        made["added-tokens"] = lora()
    if architecture.conv:
        made["conv"] = lora(target_modules=architecture.conv)
        made["conv-dora"] = lora(target_modules=architecture.conv, use_dora=True)
    if architecture.experts:
        made["experts"] = lora(target_parameters=architecture.experts)
    return made


def randomise(model):
    """Gives everything that an adapter trains other values than it began with."""
    for name, parameter in model.named_parameters():
        if "lora_" in name or "trainable_tokens_delta" in name or "modules_to_save" in name or parameter.requires_grad:
            scale = 0.02 if "magnitude" in name else 0.2
            with torch.no_grad():
                parameter.add_(scale * torch.randn_like(parameter))


def weights(model):
    return {name: tensor.detach().float() for name, tensor in model.state_dict().items()}


def difference_of(own, other, tolerance):
    for name in sorted(set(own) & set(other)):
        if own[name].shape != other[name].shape:
            return f"{name}: {tuple(own[name].shape)} in place of {tuple(other[name].shape)}"
        # Equal infinities have no difference.
        unequal = own[name] != other[name]
        difference = (own[name] - other[name])[unequal].abs().max().item() if unequal.any() else 0
        if not difference <= tolerance * max(1, other[name].abs().max().item()):
            return f"{name}: differs by {difference:.2g}"
    return None


def compare(architecture, kind, config, tessera, folder):
    """Returns "ok", "refused" for modules that Tessera does not find, or what is wrong."""
    torch.manual_seed(7)
    base, adapter, output = folder / "base", folder / "adapter", folder / "out"
    dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
    model = architecture.make().to(dtype)
    model.save_pretrained(base)
    model = architecture.load(base)
    if kind == "added-tokens":
        model.resize_token_embeddings(VOCABULARY + 4, mean_resizing=False)
    tuned = get_peft_model(model, config)
    tuned.base_model.model.name_or_path = config.base_model_name_or_path = str(base)
    randomise(tuned)
    # PEFT does not see that tokens were added where the vocabulary's size stands in a section of the config.
    tuned.save_pretrained(adapter, save_embedding_layers=True if kind == "added-tokens" else "auto")

    fresh = architecture.load(base)
    if kind == "added-tokens":
        fresh.resize_token_embeddings(VOCABULARY + 4, mean_resizing=False)
    with warnings.catch_warnings():
        # PEFT would go on without what it did not find.
        warnings.filterwarnings("error", message="Found missing adapter keys")
        expected = PeftModel.from_pretrained(fresh, adapter).merge_and_unload().eval()

    recipe = folder / "recipe.yml"
    recipe.write_text(f"merge_method: passthrough\nmodels:\n- model: {base}+{adapter}\n")
    run = subprocess.run([tessera, "run", recipe, output], capture_output=True, text=True)
    if run.returncode == 65 and any(words in run.stderr for words in REFUSALS):
        return f"refused: {run.stderr.strip()[:200]}"
    if run.returncode:
        return f"failed: {run.stderr.strip()[-300:]}"
    found, info = architecture.load(output, output_loading_info=True)
    wrong = {key: sorted(names)[:3] for key, names in info.items() if names}
    if wrong:
        return f"does not load: {wrong}"
    found.eval()
    tolerance = 2e-2 if kind == "bfloat16" else 2e-5
    problem = difference_of(weights(found), weights(expected), tolerance)
    if problem:
        # Some classes change weights when they load them, such as the row of the padding token.
        expected.save_pretrained(folder / "expected")
        expected = architecture.load(folder / "expected").eval()
        problem = difference_of(weights(found), weights(expected), tolerance)
    if problem:
        return problem
    with torch.no_grad():
        logits = [architecture.logits(model) for model in (found, expected)]
    if logits[0] is None:
        return "ok"
    difference = (logits[0] - logits[1]).abs().max().item()
    if not difference <= 50 * tolerance * max(1, logits[1].abs().max().item()):
        return f"logits differ by {difference:.2g}"
    return "ok"


def compare_merged(architecture, config, tessera, folder):
    """Merges two adapters into one, and compares what PEFT makes of it with what the two add to the base."""
    torch.manual_seed(7)
    base, output, weight = folder / "base", folder / "out", {"a": 0.5, "b": -1.0}
    architecture.make().save_pretrained(base)
    other = LoraConfig(r=3, lora_alpha=4, use_rslora=True, target_modules=architecture.linear[:1])
    tuned = {}
    for name, own in (("a", config), ("b", other)):
        model = get_peft_model(architecture.load(base), own)
        model.base_model.model.name_or_path = own.base_model_name_or_path = str(base)
        randomise(model)
        # A copy of the whole embedding beside its factors would be more than these.
        model.save_pretrained(folder / name, save_embedding_layers=False)
        tuned[name] = weights(PeftModel.from_pretrained(architecture.load(base), folder / name).merge_and_unload())
    models = "".join(f"- {{model: '{base}+{folder / name}', parameters: {{weight: {weight[name]}}}}}\n" for name in weight)
    recipe = folder / "recipe.yml"
    recipe.write_text(f"merge_method: lora_sum\nbase_model: {base}\nmodels:\n{models}output: adapter\n")
    run = subprocess.run([tessera, "run", recipe, output], capture_output=True, text=True)
    if run.returncode:
        return f"failed: {run.stderr.strip()[-300:]}"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        merged = PeftModel.from_pretrained(architecture.load(base), output)
    found, own = weights(merged.merge_and_unload()), weights(architecture.load(base))
    expected = {key: own[key] + sum(weight[name] * (tuned[name][key] - own[key]) for name in weight) for key in own}
    changed = any(not torch.equal(expected[key], own[key]) for key in own)
    return difference_of(found, expected, 2e-5) or ("ok" if changed else "the adapters changed nothing")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tessera", default=".build/debug/tessera", help="the program to check")
    parser.add_argument("--only", default="", help="ARCHITECTURE or ARCHITECTURE/KIND")
    parser.add_argument("--table", action="store_true", help="print a table in Markdown")
    options = parser.parse_args()
    tessera = pathlib.Path(options.tessera).resolve()
    results, all_kinds, wrong = {}, [], 0
    for name, architecture in ARCHITECTURES.items():
        results[name] = {}
        for kind, config in kinds(architecture).items():
            if options.only not in ("", name, f"{name}/{kind}", f"/{kind}"):
                continue
            with tempfile.TemporaryDirectory() as folder:
                try:
                    folder = pathlib.Path(folder)
                    result = (
                        compare_merged(architecture, config, tessera, folder) if kind == "merged"
                        else compare(architecture, kind, config, tessera, folder))
                except Exception as error:  # PEFT cannot do it, or not with this architecture.
                    result = f"not made: {type(error).__name__}: {str(error).strip().splitlines()[0][:150] if str(error) else ''}"
            results[name][kind] = result
            wrong += not result.startswith(("ok", "not made"))
            if kind not in all_kinds:
                all_kinds.append(kind)
            if not options.table:
                print(f"{name:12} {kind:16} {result}", flush=True)
    if options.table:
        print("| architecture | " + " | ".join(all_kinds) + " |\n|" + "---|" * (len(all_kinds) + 1))
        for name, row in results.items():
            cells = [row.get(kind, "").split(":")[0].replace("not made", "–") for kind in all_kinds]
            print(f"| {name} | " + " | ".join(cells) + " |")
    checked = sum(result == "ok" for row in results.values() for result in row.values())
    print(f"{checked} right, {wrong} wrong", file=sys.stderr)
    return 1 if wrong or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
