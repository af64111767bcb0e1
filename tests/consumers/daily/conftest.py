"""The package as `pip install .` leaves it."""
import os
import subprocess
import sys

import pytest

from mounts import BINARY
from processes import ROOT, python


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """The scripts of an environment that sees base's packages, into which the project was installed from its folder."""
    if os.environ.get("CKPTFS_OFFLINE"):
        pytest.skip("NOT TESTED: pip install . needs the package index")
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    site = "import sysconfig; print(sysconfig.get_path('purelib'))"
    base, own = (subprocess.check_output([of, "-c", site], text=True).strip() for of in (python(), folder / "bin/python"))
    with open(f"{own}/zz-base.pth", "w") as link:
        link.write(base + "\n")
    # What the binary under test was built of need not be built again.
    environment = os.environ | {"CARGO_TARGET_DIR": str(BINARY.parents[1])}
    install = [folder / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", ROOT]
    subprocess.run(install, check=True, env=environment, timeout=1200)
    return folder / "bin"
