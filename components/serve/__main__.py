"""Score or serve a model folder: what `bonsai quantize` or `bonsai package-model` wrote.

    python -m kfp_bonsai.serve score MODEL [FILE]     texts, one a line, to JSON lines with the answers
    python -m kfp_bonsai.serve serve MODEL            HTTP, the Open Inference Protocol (v2, REST), on port 8080

A quantized model runs on a CPU without torch: of kfp-bonsai it needs what loads a folder and splits texts, which asks
for numpy, tokenizers, prometheus_client, and the runtime that the folder's bonsai.json names. A model that is not
quantized runs with torch, on a GPU if there is one.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from kfp_bonsai.serve.http_server import MOST_WAITING, serve
from kfp_bonsai.serve.lines import score
from kfp_bonsai.serve.served import load
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.threads import keep_to_quota, stated_threads


def _lines(file: str) -> Iterator[str]:
    """Read a file's lines; "-" is stdin."""
    with open(0 if file == "-" else file, encoding="utf-8", newline="\n") as lines:
        try:
            yield from lines
        except UnicodeDecodeError as error:
            raise BonsaiError(f"{file} is no UTF-8 text: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 2 for what the user can mend."""
    keep_to_quota()
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("model", type=Path, help="the model's folder")
    common.add_argument("--threads", type=int, default=stated_threads(), help="of one batch; 0: the runtime's choice")
    parser = argparse.ArgumentParser(
        prog="python -m kfp_bonsai.serve", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    scoring = commands.add_parser("score", help="texts to JSON lines", parents=[common])
    scoring.add_argument(
        "file", nargs="?", default="-", help="texts, one a line, pairs with a tab between; - for stdin"
    )
    scoring.add_argument(
        "--json", action="store_true", help='lines are JSON: "..." or {"text": "...", "text_pair": "..."}'
    )
    serving = commands.add_parser("serve", help="the Open Inference Protocol over HTTP", parents=[common])
    serving.add_argument("--name", default="model", help="the model's name in the addresses (model)")
    serving.add_argument("--host", default="0.0.0.0", help="address to listen on (all)")
    serving.add_argument("--port", type=int, default=8080, help="port to listen on (8080)")
    serving.add_argument(
        "--grace", type=float, default=0, help="seconds to take requests after SIGTERM, while it is not ready (0)"
    )
    serving.add_argument(
        "--most-waiting",
        type=int,
        default=MOST_WAITING,
        help=f"requests that wait or are answered; more get status 503 and come again later ({MOST_WAITING})",
    )
    options = parser.parse_args(arguments)
    if options.command == "serve" and options.most_waiting < 1:
        parser.error(f"--most-waiting is {options.most_waiting}: give 1 or more")
    try:
        model = load(options.model, options.threads)
        if options.command == "serve":
            serve(model, options.name, options.host, options.port, options.grace, options.most_waiting)
            return 0
        for answer in score(model, _lines(options.file), options.json):
            print(json.dumps(answer, ensure_ascii=False))
    except BrokenPipeError:  # whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except (BonsaiError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
