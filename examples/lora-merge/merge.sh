#!/usr/bin/env bash
# merge.sh BASE ADAPTER COMMAND...: runs COMMAND with the path of BASE with ADAPTER merged into it, of which nothing is written.
set -euo pipefail
exec ckptfs exec "$1" --merge "$2" -- "${@:3}" {}
