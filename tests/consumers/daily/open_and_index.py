"""open_and_index.py SOURCE CONFIG: indices of lazy tensors, against those of NumPy."""
import sys
import threading

import numpy

import ckptfs

checkpoint = ckptfs.open(sys.argv[1], config_from=sys.argv[2])
name = "model.layers.1.self_attn.q_proj.weight"
lazy, real = checkpoint[name], checkpoint[name].numpy()
for index in [
    5, -1, slice(10, 20), slice(None), slice(3, 3), slice(-4, None), (slice(1, 9), slice(2, 5)), (7, slice(0, 8)), (slice(4, 6), -2), (3, 4),
    (Ellipsis, 1), (1, Ellipsis), Ellipsis,
]:
    want, got = real[index], lazy[index]
    assert got.shape == want.shape, index
    assert numpy.array_equal(got.numpy(), want), index
    assert numpy.array_equal(numpy.asarray(got), want) and numpy.array_equal(got.torch().numpy(), want), index
assert numpy.array_equal(lazy[10:20][2:4][1].numpy(), real[10:20][2:4][1])
for index in [64, -65, slice(0, 9, 2), (1, 2, 3), (Ellipsis, Ellipsis)]:
    try:
        lazy[index]
    except IndexError:
        continue
    raise AssertionError(index)
assert name in checkpoint and "nothing" not in checkpoint and 3 not in checkpoint
try:
    checkpoint["nothing"]
except KeyError:
    pass
half = ckptfs.open(sys.argv[1], config_from=sys.argv[2], dtype="bf16")[name]
assert half.torch().float().sub(lazy.torch()).abs().max() < 0.01
failures = []


def read():
    for _ in range(20):
        if not numpy.array_equal(lazy.numpy(), real):
            failures.append(name)


threads = [threading.Thread(target=read) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert failures == []
print("as numpy")
