#!/usr/bin/env python3
"""Measure every merge method on real test images, at its default and at its best scale.

    digits.py --tessera .build/release/tessera [--methods tsv,ties] [--write docs/methods.md]
    digits.py --methods task_arithmetic --domains noisy,striped,quantised --json demo.json     # some fine-tunes alone

The family is the one of `tessera demo`: a small vision transformer and eight fine-tunes of it, each for one way in which
images of digits may be changed. Each row of the table is one method with some parameters, merged through a sweep over its
scale. The accuracy is the mean over the test images of all eight domains. Prints the table in Markdown, or puts it into a
page, between the lines that begin and end it. The rows are kept in `digits.json`: methods that are not measured again stay
as they were. Needs NumPy; about 300 checkpoints are looked at, a second each.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each process is one thread
import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "Sources/Demo/Resources/digits"
BEGIN, END = "<!-- Cluster/digits.py writes this table -->", "<!-- end of the table -->"
BATCH = 32  # images at a time, so that what lies between the layers stays in the cache

# Scales that are tried beside the default. What is added up needs a scale near 1/T, a mean one near 1.
SUMS = [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1]
MEANS = [0.3, 0.5, 0.7, 1, 1.5, 2, 3]
NEAR_ONE = [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2]
# Methods that add up the task vectors.
ADDING = {
    "task_arithmetic", "dare_linear", "dare_ties", "della_linear", "breadcrumbs", "breadcrumbs_ties", "consensus",
    "subspace_boosting",
}


@dataclass(frozen=True)
class Trial:
    """A row of the table: a method with some parameters."""

    shared: dict[str, Any] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)  # of each model
    # The default of the scale where the method has none, or one that is not the paper's for the other parameters.
    scale: float | None = None
    scales: list[float] | None = None  # in place of the method's grid
    sweep: dict[str, list] | None = None  # of other parameters than the scale
    models: int | None = None  # at a time; `None` for all
    base: bool = True
    note: str = ""


EACH = {"weight": 1}
SUM = 0.3  # task arithmetic's usual scale

# What is not simply the method's defaults. A method that is missing here gets its defaults, a weight of 1 for each model where
# it needs weights, and a sweep over its scale if it has one.
TRIALS: dict[str, list[Trial]] = {
    "linear": [Trial(own=EACH, base=False, note="the average")],
    "karcher": [Trial(base=False)],
    "slerp": [Trial(models=1, sweep={"t": [0.3, 0.5]}, shared={"t": 0.5})],
    "nuslerp": [Trial(models=2, own=EACH)],
    "nearswap": [Trial(models=1, sweep={"t": [0.001]}, shared={"t": 0.001})],
    "arcee_fusion": [Trial(models=1)],
    "passthrough": [Trial(models=1, base=False, note="a fine-tune alone")],
    "task_arithmetic": [
        Trial(own=EACH, scale=SUM),
        Trial(own=EACH, shared={"lines": {"alpha": 0.125, "beta": 0.5}}, note="LiNeS"),
    ],
    "ties": [
        Trial(own={**EACH, "density": 0.2}),
        Trial(own={**EACH, "density": 0.2}, shared={"trim": "model"}),
        Trial(own={**EACH, "density": 0.2}, shared={"normalize": False}, scale=SUM, scales=SUMS),
    ],
    "dare_linear": [Trial(own={**EACH, "density": 0.5}, scale=SUM)],
    "dare_ties": [Trial(own={**EACH, "density": 0.5}, scale=SUM)],
    "della_linear": [Trial(own={**EACH, "density": 0.5}, scale=SUM)],
    "della": [Trial(own={**EACH, "density": 0.5})],
    "breadcrumbs": [Trial(own={**EACH, "density": 0.2, "gamma": 0.1}, scale=0.4)],
    "breadcrumbs_ties": [Trial(own={**EACH, "density": 0.2, "gamma": 0.1}, scale=0.4)],
    "model_stock": [Trial(), Trial(shared={"filter_wise": True})],
    "sce": [Trial(sweep={"select_topk": [0.05, 0.1, 0.2, 0.5, 1]})],
    "tsv": [Trial(), Trial(shared={"isotropic": True})],
    "anchored_regression": [
        Trial(shared={"of": "tsv", "ridge": 0.3}, sweep={"ridge": [0.03, 0.1, 0.3, 1, 3]}),
        Trial(shared={"of": "wudi", "lambda": 0.7, "ridge": 0.3}, sweep={"ridge": [0.1, 0.3, 1]}),
    ],
    "ace": [Trial(), Trial(shared={"epsilon": 1e-5}, scales=NEAR_ONE, note="the paper's epsilon")],
    "svc": [
        Trial(scale=SUM, scales=SUMS),
        Trial(shared={"of": "tsv"}, scale=1, scales=NEAR_ONE),
        Trial(shared={"of": "wudi"}, scale=1),
        Trial(shared={"of": "ties"}, scale=SUM, scales=SUMS),
        Trial(shared={"of": "dare_linear"}, scale=SUM, scales=SUMS),
        Trial(shared={"of": "iso_c"}, scale=1),
    ],
    "metagpt": [Trial(), Trial(shared={"of": "ties"}), Trial(shared={"of": "dare_linear"})],
    "knots": [Trial(), Trial(shared={"rule": "dare_ties"})],
    "subspace_boosting": [Trial(), *(Trial(shared={"of": of}) for of in ("ties", "consensus"))],
    "larv": [
        Trial(scale=1, scales=MEANS),
        Trial(shared={"levels": "continuous"}, scale=1, scales=MEANS),
        Trial(shared={"of": "tsv"}, scale=1, scales=NEAR_ONE),
    ],
    "prism": [Trial(scale=0.125, scales=[0.125, 0.3, 0.5, 1, 1.5])],
    "wudi": [Trial(), Trial(shared={"spectral": 0.65}, scales=NEAR_ONE), Trial(shared={"spectral": 0.85})],
    "dc_merge": [Trial(), Trial(shared={"density": 0.05}), Trial(shared={"per_direction": 6.1})],
    "consensus": [Trial(), Trial(shared={"of": "ties"})],
    "cabs": [Trial(own={"weight": SUM}, shared={"n": 32, "m": 256})],
    "lwptv": [Trial(shared={"density": 0.2}, scales=SUMS)],
    "pcb": [Trial(scales=MEANS)],
    "core_space": [
        Trial(),
        Trial(shared={"rule": "mean", "isotropic": True}),
        *(Trial(shared={"rule": rule, "isotropic": True}) for rule in ("tsv", "cart", "dare_ties")),
    ],
}

# What no merge of the family without more can show: files are needed, or the result is one task's model.
LEFT_OUT = {"fisher", "regmean", "concrete", "atlas", "lora_sum", "tall", "emr"}


@dataclass
class Row:
    method: str
    parameters: str
    note: str
    default: float
    default_scale: str
    best: float | None = None
    best_at: str = ""
    others_base: float | None = None
    others_base_at: str = ""


# ---- Accuracy ----


@cache
def evaluator() -> tuple[ModuleType, dict[str, np.ndarray]]:
    specification = importlib.util.spec_from_file_location("evaluate", DIGITS / "evaluate.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module, module.load(str(DIGITS / "test.safetensors"))


def accuracy(checkpoint: str, domains: tuple[str, ...]) -> float:
    """Of one checkpoint, the mean over the domains."""
    evaluate, test = evaluator()
    tensors, labels = evaluate.load(checkpoint), test["labels"]

    def share(images: np.ndarray) -> float:
        starts = range(0, len(images), BATCH)
        found = [evaluate.logits(tensors, images[start : start + BATCH]).argmax(-1) for start in starts]
        return float((np.concatenate(found) == labels).mean())

    return float(np.mean([share(test[f"images.{name}"]) for name in domains]))


# ---- Merging ----


class Study:
    def __init__(self, tessera: Path, work: Path, pool: ProcessPoolExecutor, domains: tuple[str, ...]) -> None:
        self.tessera, self.work, self.pool, self.domains = tessera, work, pool, domains

    def methods(self) -> list[dict[str, Any]]:
        return json.loads(subprocess.run([self.tessera, "methods", "--json"], check=True, capture_output=True).stdout)

    def merge(self, recipe: dict[str, Any]) -> Path:
        """JSON is YAML, too."""
        text, output = self.work / "recipe.yml", self.work / "merged"
        text.write_text(json.dumps(recipe, indent=1))
        command = [self.tessera, "run", text, output, "--overwrite", "--strict", "--progress", "none"]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(f"{text.read_text()}\n{run.stderr}")
        return output

    def measure(self, method: dict[str, Any], trial: Trial, shared: dict[str, Any], sweep: dict[str, list]) -> dict[str, float]:
        """The accuracy with each value of a sweep, by the value's text; of the only merge, by an empty text."""
        domains = self.domains
        size = trial.models or len(domains)
        found: dict[str, list] = {}
        for start in range(0, len(domains) - size + 1, size):
            own = {"parameters": trial.own} if trial.own else {}
            recipe = {
                "merge_method": method["name"],
                "models": [{"model": str(DIGITS / name)} | own for name in domains[start : start + size]],
                "parameters": shared | {name: {"sweep": values} for name, values in sweep.items()},
                "dtype": "float32",
            }
            if trial.base:
                recipe["base_model"] = str(DIGITS / "base")
            output = self.merge(recipe)
            folders = sorted(path for path in output.iterdir() if path.is_dir()) if sweep else [output]
            scores = self.pool.map(accuracy, [str(folder) for folder in folders], [domains] * len(folders))
            for folder, score in zip(folders, scores):
                found.setdefault(folder.name.split("=")[-1] if sweep else "", []).append(score)
        return {name: float(np.mean(scores)) for name, scores in found.items()}

    def row(self, method: dict[str, Any], trial: Trial) -> Row:
        names = {parameter["name"]: parameter for parameter in method["parameters"]}
        name, values, standard = self.swept(method, trial, names)
        fixed = {key: value for key, value in trial.shared.items() if key != name}
        scores = self.measure(method, trial, fixed, {name: values} if name else {})
        row = Row(method["name"], words(trial, name), trial.note, scores[standard], f"{name} {standard}" if name else "")
        if name:
            row.best_at, row.best = best(scores)
        if "others" in names:
            again = {name: sorted({float(standard), float(row.best_at)})}
            row.others_base_at, row.others_base = best(self.measure(method, trial, fixed | {"others": "base"}, again))
        return row

    def swept(self, method: dict, trial: Trial, names: dict[str, dict]) -> tuple[str, list, str]:
        """The parameter that is swept, its values, and the default as text; empty for a method without a scale."""
        if trial.sweep:
            ((name, values),) = trial.sweep.items()
            default = trial.shared.get(name, names[name].get("default"))
        else:
            name = method.get("scale") or ("lambda" if "lambda" in names else "")
            if not name:
                return "", [], ""
            default = names[name].get("default") if trial.scale is None else trial.scale
            values = trial.scales or (SUMS if method["name"] in ADDING else MEANS)
        default = float(default)
        return name, sorted({*map(float, values), default}), f"{default}"


def best(scores: dict[str, float]) -> tuple[str, float]:
    at = max(scores, key=scores.get)
    return at, scores[at]


def words(trial: Trial, swept: str) -> str:
    settings = {name: value for name, value in (trial.own | trial.shared).items() if name != swept}
    settings = {name: value for name, value in settings.items() if (name, value) != ("weight", 1)}
    return ", ".join(f"`{name}: {json.dumps(value)}`".replace('"', "") for name, value in settings.items())


# ---- The table ----


def table(rows: list[Row], base: float) -> str:
    def cell(score: float | None, at: str = "") -> str:
        return "" if score is None else f"{score:.3f}" + (f" at {at}" if at else "")

    lines = ["| method | with | default | best | best with `others: base` |", "|---|---|---|---|---|"]
    lines.append(f"| the base alone | | {base:.3f} | | |")
    for row in sorted(rows, key=lambda row: -max(row.default, row.best or 0, row.others_base or 0)):
        note = "; ".join(part for part in (row.parameters, row.note) if part)
        lines.append(
            f"| `{row.method}` | {note} | {cell(row.default, row.default_scale)} | {cell(row.best, row.best_at)} "
            f"| {cell(row.others_base, row.others_base_at)} |"
        )
    return "\n".join(lines)


def put(page: Path, text: str) -> None:
    whole = page.read_text()
    begin, end = whole.index(BEGIN) + len(BEGIN), whole.index(END)
    page.write_text(f"{whole[:begin]}\n\n{text}\n\n{whole[end:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", type=Path, default=ROOT / ".build/release/tessera")
    parser.add_argument("--methods", help="only these, separated by commas")
    parser.add_argument("--json", type=Path, default=ROOT / "Cluster/digits.json", help="where rows are kept")
    parser.add_argument("--write", type=Path, help="put the table into this page")
    parser.add_argument("--processes", type=int, default=2, help="that look at images at the same time")
    parser.add_argument("--domains", help="merge and measure only these fine-tunes, separated by commas; needs another --json")
    arguments = parser.parse_args()
    domains = tuple(arguments.domains.split(",") if arguments.domains else evaluator()[0].DOMAINS)
    if arguments.domains and arguments.json == parser.get_default("json"):
        parser.error("--domains needs --json: the rows of all fine-tunes stay where they are")
    wanted = arguments.methods.split(",") if arguments.methods else None
    rows = [Row(**row) for row in json.loads(arguments.json.read_text())] if arguments.json.exists() else []
    with tempfile.TemporaryDirectory() as work, ProcessPoolExecutor(arguments.processes) as pool:
        study = Study(arguments.tessera.resolve(), Path(work), pool, domains)
        methods = study.methods()
        known = {method["name"] for method in methods if not wanted or method["name"] not in wanted}
        rows = [row for row in rows if wanted and row.method in known]
        for method in methods:
            if method["name"] in LEFT_OUT or wanted and method["name"] not in wanted:
                continue
            needs = {parameter["name"] for parameter in method["parameters"] if parameter["required"]}
            names = {parameter["name"] for parameter in method["parameters"]} | {"lines"}
            for trial in TRIALS.get(method["name"], [Trial(own=EACH if "weight" in needs else {})]):
                if not names.issuperset(trial.shared):
                    continue  # a parameter that this build does not have
                rows.append(study.row(method, trial))
                print(rows[-1], file=sys.stderr, flush=True)
        text = table(rows, accuracy(str(DIGITS / "base"), domains))
    arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if arguments.write:
        put(arguments.write, text)
    print(text)


if __name__ == "__main__":
    main()
