#!/usr/bin/env python3
"""Writes down how transformers renames and rearranges the tensors of checkpoints when it loads them.

    python3 Tests/Architectures/conversions.py Sources/CLoadingRules/transformers.txt

Builds every model class of transformers without memory ("meta"), and notes which rules of its `conversion_mapping` hold in which
part of the model. Needs torch and transformers. The file's lines, with tabs between their fields:

    list     NAME ...                                       the rules that follow are those of these models
    rename   PATTERN          REPLACEMENT                   what the first match of the pattern becomes
    convert  OPERATION ...    PATTERN ...     TARGET ...    the tensors that match are made into the targets
    unknown  PATTERN ...                                    names that a rule of another kind changes
    class    CLASS ...        PREFIX          [SCOPE]=LIST ...     SCOPE=KEY:TYPE ...
    transposed  CLASS ...                                   PEFT adapts the experts of these as matrices [experts, in, out]

In a class whose inner model is called PREFIX, the rules of LIST hold for names that begin with SCOPE, and the part SCOPE of the
model is described in the section KEY of its config; by default it is of the model type TYPE. Patterns are Python's.
"""
import os
import re
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "critical")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import conversion_mapping as conversions  # noqa: E402
from transformers import core_model_loading as loading  # noqa: E402
from transformers.models.auto import modeling_auto as auto  # noqa: E402
from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: E402

import sweep  # noqa: E402

WIDTH = 128
NOTED = {}
plain = conversions.get_checkpoint_conversion_mapping


def noted(key):
    """The rules of a key. Which rule is of which key is kept, with the rules, so that no other takes their place in memory."""
    rules = plain(key)
    for rule in rules or []:
        NOTED[id(rule)] = key, rule
    return rules


conversions.get_checkpoint_conversion_mapping = noted


def operation(op):
    parts = [f"{key}={value}" for key, value in sorted(vars(op).items()) if value not in (None, False)]
    return f"{type(op).__name__}({','.join(parts)})"


def line(rule):
    """A rule as a line of the file."""
    # The branches as they are compiled: longest source first. A name that ends in a letter ends there.
    order = sorted(range(len(rule.source_patterns)), key=lambda k: -len(rule.source_patterns[k]))
    branches = {}
    for k in order:
        branches[k] = rule.source_patterns[k].replace("*.", r".*\.")
        branches[k] += r"(?!\w)" if re.search("[a-zA-Z0-9]$", branches[k]) else ""
    assert rule.compiled_sources.pattern == "|".join(f"(?P<g{k}>{branches[k]})" for k in order), rule
    sources = [branches[k] for k in range(len(branches))]
    assert sorted(range(len(sources)), key=lambda k: -len(sources[k])) == order, rule
    assert not any(" " in text or "\t" in text for text in sources + rule.target_patterns), rule
    if isinstance(rule, loading.WeightConverter):
        operations = " ".join(operation(op) for op in rule.operations)
        return f"convert\t{operations}\t{' '.join(sources)}\t{' '.join(rule.target_patterns)}"
    if type(rule) in (loading.WeightRenaming, loading.PrefixChange):
        return f"rename\t{' '.join(sources)}\t{rule.target_patterns[0]}"
    return f"unknown\t{' '.join(sources)}"


def classes():
    """The names of all model classes, with a model type of each."""
    found = {}
    for name, names in vars(auto).items():
        if name.endswith("_MAPPING_NAMES") and "MODEL" in name:
            for model_type, own in names.items():
                for class_name in own if isinstance(own, (tuple, list)) else [own]:
                    found.setdefault(class_name, model_type)
    return found


def build(model_class, model_type):
    config_class = getattr(model_class, "config_class", None) or CONFIG_MAPPING[model_type]
    problem = None
    # Some want a library for their usual backbone.
    backbone = dict(use_timm_backbone=False, use_pretrained_backbone=False, backbone=None)
    resnet = transformers.ResNetConfig(out_features=["stage4"])
    for make in [lambda: sweep.tiny(config_class, sweep.MORE.get(config_class.model_type)), config_class,
                 lambda: config_class(**backbone, backbone_config=resnet)]:
        try:
            with torch.device("meta"):
                return model_class(make())
        except Exception as error:
            problem = problem or error
    raise problem


def scope(model, name):
    return name.removeprefix(model.base_model_prefix).removeprefix(".")


def describe(model):
    """The prefix of the inner model; the lists that hold, with their scopes; the parts that a section of the config describes."""
    lists, parts = [], []
    for rule in conversions.get_model_conversion_mapping(model, add_legacy=False):
        key = NOTED[id(rule)][0]
        lists.append(key if rule.scope_prefix is None else f"[{rule.scope_prefix}]={key}")
    for name, module in model.named_modules():
        if name and isinstance(module, transformers.PreTrainedModel) and module.config is not model.config:
            key = next((key for key, value in vars(model.config).items() if value is module.config), None)
            if key and module.config.model_type:
                parts.append(f"{scope(model, name)}={key}:{module.config.model_type}")
    return model.base_model_prefix or "-", " ".join(dict.fromkeys(lists)), " ".join(dict.fromkeys(parts))


def wrapped(first, words, rest):
    """Lines of at most the width with some of the words each."""
    line = []
    for word in words:
        if line and len(first) + len(" ".join(line + [word])) + len(rest) > WIDTH:
            yield f"{first}{' '.join(line)}{rest}"
            line = []
        line.append(word)
    yield f"{first}{' '.join(line)}{rest}"


def main():
    rows, failed, transposed = {}, [], []
    for class_name, model_type in sorted(classes().items()):
        try:
            model = build(getattr(transformers, class_name), model_type)
        except Exception as error:
            failed.append(f"{class_name}: {type(error).__name__}: {str(error).strip()[:80]}")
            continue
        prefix, lists, parts = describe(model)
        if any(getattr(module, "is_transposed", False) for module in model.modules()):
            transposed.append(class_name)
        if lists or parts:
            rows.setdefault((prefix, lists, parts), []).append(class_name)
    lists = {}
    for key in conversions._checkpoint_conversion_mapping_cache:
        rules = plain(key)
        if rules and key != "legacy":
            lists.setdefault(tuple(line(rule) for rule in rules), []).append(key)
    # A part of another type than usual is found by this type.
    for model_type, class_name in auto.MODEL_MAPPING_NAMES.items():
        for keys in lists.values():
            if class_name in keys and not plain(model_type):
                keys.append(model_type)
    out = [f"# The loading rules of transformers {transformers.__version__}, written by Tests/Architectures/conversions.py.",
           "# Its page says what the lines mean. Do not edit them: run it again."]
    for rules, keys in lists.items():
        out += [f"list\t{' '.join(keys)}", *rules]
    for (prefix, own, parts), names in rows.items():
        out += wrapped("class\t", names, f"\t{prefix}\t{own}\t{parts}")
    out += wrapped("transposed\t", transposed, "")
    with open(sys.argv[1], "w") as file:
        file.write("\n".join(out) + "\n")
    print("not made:", *failed, sep="\n", file=sys.stderr)
    print(f"{len(lists)} lists, {sum(map(len, rows.values()))} classes, {len(failed)} not made")


if __name__ == "__main__":
    main()
