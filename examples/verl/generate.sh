#!/usr/bin/env bash
# generate.sh CHECKPOINT PROMPT: what the model of a checkpoint of verl answers.
set -euo pipefail
exec ckptfs exec "$1" --dtype bf16 -- python3 "$(dirname "$0")/generate.py" {} "$2"
