"""What the benchmark measures. A method that Tessera learns later is one more line in ROWS."""

from dataclasses import dataclass

TUNES = ("tune-0", "tune-1", "tune-2")


@dataclass(frozen=True)
class Row:
    """One comparison: a recipe, how Tessera carries it out, and what that is held against."""

    name: str
    recipe: str  # its paths begin at the family: base, tune-0, tune-1, tune-2
    # A mode of roofline.c; RUN for `tessera run` of the same recipe; STATELESS for a cluster without a journal; None for nothing.
    against: str | None = None
    command: str = "run"  # or "submit", to a coordinator with WORKERS workers on this machine
    preset: str | None = None  # a family of its own instead of the one that --preset names
    journal: bool = False  # whether the coordinator of a submit keeps one
    blocks: str | None = None  # how the workers of a submit deliver: direct or return
    tls: bool = False  # whether the cluster of a submit speaks TLS
    store: str | None = None  # the recipe of a store that is made first; STORE in `recipe` is its path
    beside: str | None = None  # what RUN runs, if it is another recipe
    peer: str | None = None  # a method of torch_methods.py that does the same


RUN = "run"
STATELESS = "no journal"
STORE = "STORE"
WORKERS = 2  # of a row that submits; they share the threads of the others


def merge(
    method: str,
    models: tuple[str, ...],
    base: bool = False,
    shared: dict[str, float] | None = None,
    **parameters: float,
) -> str:
    """A mergekit recipe in which every model has the same parameters."""
    lines = [f"merge_method: {method}"]
    lines += ["base_model: base"] if base else []
    lines += ["models:"]
    for model in models:
        lines += [f"- model: {model}"]
        lines += ["  parameters:"] if parameters else []
        lines += [f"    {name}: {value}" for name, value in parameters.items()]
    lines += ["parameters:"] if shared else []
    lines += [f"  {name}: {value}" for name, value in (shared or {}).items()]
    lines += ["dtype: bfloat16"]
    return "\n".join(lines) + "\n"


def quantize(bits: int, tunes: tuple[str, ...]) -> str:
    """A store of the tunes' task vectors as the paper has them."""
    models = "".join(f"- model: {tune}\n" for tune in tunes)
    return f"quantize: {{scheme: tvq, bits: {bits}}}\nbase_model: base\nmodels:\n{models}"


def tenths(bits: float, tunes: tuple[str, ...]) -> str:
    """A store of thinned task vectors."""
    models = "".join(f"- model: {tune}\n" for tune in tunes)
    return f"quantize: {{budget: {bits} bits}}\nbase_model: base\nmodels:\n{models}"


TRIMMED = {"weight": 1.0, "density": 0.5}
LIKE_TIES = "ties+sha256"


def rows(tunes: tuple[str, ...]) -> list[Row]:
    """All rows, with these fine-tunes; methods that take one model take the first."""

    def ties_from_store(name: str, store: str) -> Row:
        """TIES from a store, beside the same merge from the checkpoints."""
        stored = tuple(f"{STORE}#{tune}" for tune in tunes)
        from_store, from_checkpoints = (merge("ties", models, base=True, **TRIMMED) for models in (stored, tunes))
        return Row(name, from_store, against=RUN, store=store, beside=from_checkpoints)

    def submitted_ties(name: str, blocks: str, against: str = RUN, journal: bool = False, tls: bool = False) -> Row:
        recipe = merge("ties", tunes, base=True, **TRIMMED)
        return Row(name, recipe, against=against, command="submit", blocks=blocks, journal=journal, tls=tls)

    return [
        Row("passthrough", merge("passthrough", tunes[:1]), against="copy+sha256"),
        Row("linear", merge("linear", tunes, weight=1.0), against="linear+sha256"),
        Row("ties", merge("ties", tunes, base=True, **TRIMMED), against=LIKE_TIES),
        Row("dare-ties", merge("dare_ties", tunes, base=True, **TRIMMED), against=LIKE_TIES),
        Row("della", merge("della", tunes, base=True, **TRIMMED), against=LIKE_TIES),
        Row("breadcrumbs-ties", merge("breadcrumbs_ties", tunes, base=True, **TRIMMED), against=LIKE_TIES),
        Row("slerp", merge("slerp", tunes[:1], base=True, shared={"t": 0.5}), against=LIKE_TIES),
        Row("multislerp", merge("multislerp", tunes, base=True, weight=1.0), against=LIKE_TIES),
        Row("model-stock", merge("model_stock", tunes, base=True), against=LIKE_TIES),
        Row("sce", merge("sce", tunes, base=True, shared={"select_topk": 0.5}), against=LIKE_TIES),
        Row("arcee-fusion", merge("arcee_fusion", tunes[:1], base=True), against=LIKE_TIES),
        Row("tvq-4-bits", quantize(4, tunes), against=LIKE_TIES),
        ties_from_store("ties-from-3-bits", quantize(3, tunes)),
        Row("store-0.3-bits", tenths(0.3, tunes), against=RUN, beside=merge("linear", tunes, weight=1.0)),
        ties_from_store("ties-from-0.3-bits", tenths(0.3, tunes)),
        submitted_ties("ties-direct", "direct"),
        submitted_ties("ties-journal", "direct", against=STATELESS, journal=True),
        submitted_ties("ties-return", "return"),
        submitted_ties("ties-return-tls", "return", tls=True),
        Row("start-up", merge("linear", tunes, weight=1.0), preset="tiny"),
    ]


def layers(method: str, models: tuple[str, ...], count: int | None, **shared: object) -> str:
    """A recipe for the first layers of a model, or for all. What is no matrix of a layer gets the mean."""
    lines = [f"merge_method: {method}"] + ([] if method == "linear" else ["base_model: base"])
    if count is None:
        lines += ["models:"] + [f"- model: {model}" for model in models]
    else:
        lines += ["slices:", "- sources:"]
        lines += [f"  - {{model: {model}, layer_range: [0, {count}]}}" for model in models]
        # The base must be among the sources of a slice.
        lines += [] if method == "linear" else [f"  - {{model: base, layer_range: [0, {count}]}}"]
    lines += ["parameters:"] + [f"  {name}: {value}" for name, value in shared.items()]
    return "\n".join(lines) + "\ndtype: bfloat16\n"


def method_rows(tunes: tuple[str, ...], count: int | None) -> list[Row]:
    """Methods on whole matrices beside the average of the same layers."""
    names = "[embed_tokens, lm_head]"
    beside = layers("linear", tunes, count, weight=1.0)

    def row(name: str, method: str | None = None, peer: str | None = None, **shared: object) -> Row:
        recipe = layers(method or name, tunes, count, **{"mean_only": names, **shared})
        return Row(name, recipe, against=RUN, beside=beside, peer=peer)

    return [
        row("tsv", peer="tsv"),
        row("tsv-isotropic", "tsv", isotropic="true"),
        row("iso_c", peer="iso_c"),
        row("iso_cts"),
        row("wudi", peer="wudi"),
        row("wudi-spectral", "wudi", spectral=0.85),
        row("subspace_boosting"),
        row("svc", of="tsv"),
        row("actmat"),
        row("tact"),
        row("ace"),
        row("anchored_regression"),
        row("dc_merge"),
        row("star"),
        row("cart"),
        row("opcm"),
        row("larv"),
        row("core_space"),
        row("knots"),
        row("doge", peer="doge", include='["layers.*"]'),
    ]


ROWS = rows(TUNES)
METHOD_ROWS = method_rows(TUNES, None)
