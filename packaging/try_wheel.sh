#!/usr/bin/env bash
# packaging/try_wheel.sh WHEEL: installs a wheel into a bare environment, without Rust and torch, and uses all that it brings.
set -euo pipefail
wheel=$(realpath "$1")
example=$(dirname "$(realpath "$0")")/../examples/torchtitan-llama3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check --no-index "$wheel"
PATH=$work/env/bin:/usr/bin:/bin
cd "$work"
ckptfs --version
python - "$example" <<'PYTHON'
import sys

import ckptfs

example = sys.argv[1]
checkpoint = ckptfs.open(f"{example}/checkpoint/step-10", config_from=f"{example}/hf_assets")
row = checkpoint["model.embed_tokens.weight"][3]
assert row.shape == (64,) and len(row.bytes()) == 256
print(len(checkpoint), "tensors,", row)
PYTHON
if [ -c /dev/fuse ]; then
    mkdir mnt
    ckptfs mount "$example/checkpoint/step-10" mnt --config-from "$example/hf_assets" --daemon
    ls mnt
    ckptfs umount mnt
else
    echo "NOT TRIED: mounting (no /dev/fuse)"
fi
