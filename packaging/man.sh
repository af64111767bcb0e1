#!/usr/bin/env bash
# packaging/man.sh CKPTFS FOLDER: the man pages and completions that a package installs.
set -euo pipefail
program=$1 folder=$2
mkdir -p "$folder"/{man,completions}
"$program" man "$folder/man"
for shell in bash zsh fish; do
    "$program" completions "$shell" > "$folder/completions/ckptfs.$shell"
done
