#!/usr/bin/env bash
# start.sh SOURCE RANKS: a step of training that starts from SOURCE, whatever wrote it, on some ranks.
set -euo pipefail
exec ckptfs exec "$1" --as dcp --names hf -- \
    torchrun --standalone --nproc-per-node "$2" "$(dirname "$0")/start.py" {}
