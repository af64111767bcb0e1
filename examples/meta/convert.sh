#!/usr/bin/env bash
# convert.sh FOLDER OUT [OPTION...]: Meta's files as a Hugging Face folder in bf16, and whether that has the same weights.
set -euo pipefail
ckptfs export "$1" "$2" --dtype bf16 "${@:3}"
ckptfs diff "$1" "$2" --dtype bf16 "${@:3}"
