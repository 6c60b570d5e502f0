"""Names, shapes and configurations of the checkpoints that the benchmark makes: those of real models."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count


@dataclass(frozen=True)
class Architecture:
    """A decoder of the Llama kind; Qwen2 differs from it by the biases of its attention."""

    family: str  # "llama" or "qwen2"
    hidden: int
    layers: int
    intermediate: int
    vocabulary: int
    heads: int
    key_value_heads: int
    head_size: int
    tied: bool  # whether the output layer is the embedding
    rope_theta: float = 500_000.0
    positions: int = 131_072

    def tensors(self) -> list[Tensor]:
        """All tensors, in the order of the model."""
        found = [Tensor("model.embed_tokens.weight", (self.vocabulary, self.hidden))]
        for layer in range(self.layers):
            found += self._layer(f"model.layers.{layer}")
        found.append(Tensor("model.norm.weight", (self.hidden,)))
        if not self.tied:
            found.append(Tensor("lm_head.weight", (self.vocabulary, self.hidden)))
        return found

    def _layer(self, prefix: str) -> list[Tensor]:
        queries, keys = self.heads * self.head_size, self.key_value_heads * self.head_size
        shapes = {
            "input_layernorm.weight": (self.hidden,),
            "self_attn.q_proj.weight": (queries, self.hidden),
            "self_attn.k_proj.weight": (keys, self.hidden),
            "self_attn.v_proj.weight": (keys, self.hidden),
            "self_attn.o_proj.weight": (self.hidden, queries),
            "post_attention_layernorm.weight": (self.hidden,),
            "mlp.gate_proj.weight": (self.intermediate, self.hidden),
            "mlp.up_proj.weight": (self.intermediate, self.hidden),
            "mlp.down_proj.weight": (self.hidden, self.intermediate),
        }
        if self.family == "qwen2":
            shapes |= {
                f"self_attn.{part}_proj.bias": (size,) for part, size in zip("qkv", (queries, keys, keys), strict=True)
            }
        return [Tensor(f"{prefix}.{name}", shape) for name, shape in shapes.items()]

    def config(self, torch_dtype: str) -> dict:
        """What `config.json` says."""
        return {
            "architectures": [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[self.family]],
            "model_type": self.family,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "head_dim": self.head_size,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": 1e-6 if self.family == "qwen2" else 1e-5,
            "hidden_act": "silu",
            "tie_word_embeddings": self.tied,
            "torch_dtype": torch_dtype,
        }


PRESETS = {
    "tiny": Architecture("llama", 64, 4, 172, 320, 4, 2, 16, tied=False),
    "qwen2.5-0.5b": Architecture(
        "qwen2", 896, 24, 4864, 151_936, 14, 2, 64, tied=True, rope_theta=1e6, positions=32_768
    ),
    "llama-3.2-1b": Architecture("llama", 2048, 16, 8192, 128_256, 32, 8, 64, tied=True),
    "llama-3b": Architecture("llama", 3072, 28, 8192, 128_256, 24, 8, 128, tied=True),
    "llama-8b": Architecture("llama", 4096, 32, 14_336, 128_256, 32, 8, 128, tied=False),
}
