"""A coordinator for the checks of this folder, with workers that are simulated."""

import asyncio
import contextlib
import json
import subprocess
import threading
import urllib.request
from pathlib import Path

import simulated

ROOT = Path(__file__).resolve().parents[2]
# Seconds. A busy machine takes its time.
PATIENCE = 120
RECIPE = """merge_method: task_arithmetic
base_model: base
models:
  - model: tune-code
    parameters: {weight: 0.6}
  - model: tune-chat
    parameters: {weight: 0.4}
dtype: bfloat16
"""


class Coordinator:
    """A coordinator, and workers on a thread of their own."""

    def __init__(self, stack: contextlib.ExitStack, tessera: Path, work: Path, *arguments: str, listen: str = "127.0.0.1"):
        self.tessera, self.work = tessera, work
        command = [tessera, "coordinator", "--listen", "127.0.0.1:0", "--status", f"{listen}:0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=work)
        stack.callback(self.process.wait)
        stack.callback(self.process.kill)
        line = self.process.stdout.readline()
        self.jobs = line.split("jobs on ")[1].split(",")[0]
        self.page = line.split("status on ")[1].strip().replace("0.0.0.0", "127.0.0.1")

    def submit(self, output: str, *options: str) -> str:
        recipe = self.work / "recipe.yml"
        recipe.write_text(RECIPE)
        command = [self.tessera, "submit", recipe, self.work / output, "--coordinator", self.jobs, "--json", *options]
        answer = subprocess.run(command, check=True, cwd=self.work, capture_output=True, text=True, timeout=PATIENCE * 5)
        return json.loads(answer.stdout)["job"]

    def get(self, path: str) -> object:
        with urllib.request.urlopen(f"{self.page}{path}", timeout=PATIENCE) as answer:
            return json.load(answer)

    def join(self, stack: contextlib.ExitStack, workers: list[simulated.Worker]) -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(simulated.serve(self.jobs, workers))
        thread = threading.Thread(target=lambda: loop.run_until_complete(task), daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(lambda: loop.call_soon_threadsafe(task.cancel))


def family(work: Path, layers: int, sizes: list[int]) -> None:
    names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
             "mlp.down_proj", "input_layernorm", "post_attention_layernorm"]  # fmt: skip
    tensors = [
        (f"model.layers.{layer}.{name}.weight", size) for layer in range(layers) for name, size in zip(names, sizes)
    ]
    for model in ("base", "tune-code", "tune-chat"):
        simulated.write_checkpoint(work / model, tensors)
