"""Fixtures that every test may ask for; the work is done by the modules beside this file."""
import pytest

import mounts


@pytest.fixture(scope="session", autouse=True)
def binary():
    """The release binary; without it nothing here means anything."""
    if not mounts.BINARY.exists():
        pytest.exit(f"{mounts.BINARY} does not exist: cargo build --release", returncode=3)
    return mounts.BINARY
