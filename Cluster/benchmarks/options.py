"""The command line of `bench`."""

import argparse
import os
from pathlib import Path

from architectures import PRESETS
from rows import METHOD_ROWS, ROWS, RUN, TUNES, WORKERS

SCALED = ("linear", "ties")  # what --scaling measures unless --rows says


def parse_options(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench",
        description=description,
        epilog="rows: "
        + ", ".join(row.name for row in ROWS)
        + "; with --peers: "
        + ", ".join(row.name for row in METHOD_ROWS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument("--rows", type=row_names, metavar="NAME,...", help="only these rows, in this order")
    what.add_argument("--runs", type=positive, default=5, metavar="N", help="runs of each row (default: %(default)s)")
    what.add_argument(
        "--preset",
        choices=PRESETS,
        default="qwen2.5-0.5b",
        metavar="NAME",
        help=f"size of the checkpoints: {', '.join(PRESETS)} (default: %(default)s)",
    )
    what.add_argument(
        "--tunes",
        type=int,
        choices=range(1, len(TUNES) + 1),
        default=len(TUNES),
        help="fine-tunes of the base, fewer where memory does not hold them all (default: %(default)s)",
    )
    what.add_argument(
        "--threads",
        type=positive,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help=f"threads of every contender; {WORKERS} workers share them (default: all processors, %(default)s)",
    )
    what.add_argument("--memory", metavar="SIZE", help="memory for buffers, handed to tessera, such as 512MiB")
    what.add_argument(
        "--disk", action="store_true", help="write outputs to the disk of --work, durably, and show GB/s beside dd"
    )
    what.add_argument(
        "--cold", action="store_true", help="inputs come from the disk, not from the page cache; GB/s beside dd"
    )
    what.add_argument(
        "--mergekit", type=virtual_environment, metavar="VENV", help="also run VENV/bin/mergekit-yaml on the recipes"
    )
    what.add_argument(
        "--peers",
        type=torch_environment,
        metavar="VENV",
        help="measure the methods on whole matrices beside the average, and beside the papers' formulas in VENV's PyTorch",
    )
    what.add_argument(
        "--scaling",
        action="store_true",
        help=f"throughput with 1, 2, 4, ... and --threads threads, and with as many workers (rows: {', '.join(SCALED)})",
    )
    what.add_argument("--layers", type=positive, metavar="N", help="with --peers: only the first N layers")
    where = parser.add_argument_group("where things are")
    where.add_argument(
        "--tessera",
        type=existing_file,
        metavar="PATH",
        help="the program (default: the release build, made if missing)",
    )
    where.add_argument(
        "--work",
        type=Path,
        default=Path(os.environ.get("TMPDIR", "/var/tmp")) / "tessera-bench",
        metavar="DIR",
        help="checkpoints are kept here from one benchmark to the next (default: %(default)s)",
    )
    where.add_argument("--json", type=Path, metavar="FILE", help="also write every sample to FILE")
    options = parser.parse_args()
    if options.scaling and (options.peers or options.disk or options.cold or options.mergekit):
        parser.error("--scaling goes alone: memory is what threads share")
    known = [row.name for row in (METHOD_ROWS if options.peers else ROWS)]
    if options.scaling:
        known = [row.name for row in ROWS if row.command == "run" and row.against not in (RUN, None)]
    options.rows = options.rows or (list(SCALED) if options.scaling else known)
    unknown = [name for name in options.rows if name not in known]
    if unknown:
        parser.error(f"no row is called {', '.join(unknown)}; there are {', '.join(known)}")
    return options


def row_names(text: str) -> list[str]:
    return text.split(",")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above zero")
    return int(text)


def existing_file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return Path(text).resolve()


def virtual_environment(text: str) -> Path:
    existing_file(f"{text}/bin/mergekit-yaml")
    return Path(text).absolute()


def torch_environment(text: str) -> Path:
    existing_file(f"{text}/bin/python")
    return Path(text).absolute()
