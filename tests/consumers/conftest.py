"""What every test relies on; the work is done by the modules beside this file."""
import signal

import pytest

import mounts


def pytest_sessionstart():
    if not mounts.BINARY.exists():
        pytest.exit(f"{mounts.BINARY} does not exist: cargo build --release", returncode=3)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a run cut short unmounts too
