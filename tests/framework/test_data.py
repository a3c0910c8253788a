"""A data file is found where the user says, downloaded with its checksum, or asked for by name, address and place."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading

import pytest

from framework import data
from framework.errors import UserError

CONTENT = b"numbers\n" * 1000
MD5, SHA256 = hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(data.VARIABLE, str(tmp_path / "data"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "data"


@pytest.fixture
def server():
    """Serves CONTENT at /set/file.bin, nothing elsewhere; ``server.asked`` lists what was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            found = self.path == "/set/file.bin"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(CONTENT) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(CONTENT)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        running.url = f"http://127.0.0.1:{running.server_port}"
        running.asked = asked
        yield running
        running.shutdown()


def dead_url() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/set/file.bin"


def test_a_file_that_is_there_is_neither_downloaded_nor_judged(folder, server):
    path = folder / "set" / "file.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    assert data.fetch("set/file.bin", [f"{server.url}/set/file.bin"], md5=MD5) == path
    assert path.read_bytes() == b"mine" and not server.asked


@pytest.mark.parametrize("checksum", [{"md5": MD5}, {"sha256": SHA256}, {"md5": "0" * 32, "sha256": SHA256}])
def test_a_missing_file_is_downloaded_once(checksum, folder, server):
    url = f"{server.url}/set/file.bin"
    path = data.fetch("set/file.bin", [url], **checksum)
    assert path == folder / "set" / "file.bin" and path.read_bytes() == CONTENT
    assert data.fetch("set/file.bin", [url], **checksum) == path
    assert server.asked == ["/set/file.bin"]


@pytest.mark.parametrize("checksum", [{"md5": "0" * 32}, {"sha256": "0" * 64}])
def test_a_wrong_checksum_is_refused_and_leaves_nothing(checksum, folder, server):
    with pytest.raises(UserError, match="hash"):
        data.fetch("set/file.bin", [f"{server.url}/set/file.bin"], **checksum)
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_addresses_are_tried_in_turn(folder, server):
    urls = [dead_url(), f"{server.url}/elsewhere", f"{server.url}/set/file.bin"]
    assert data.fetch("set/file.bin", urls, md5=MD5).read_bytes() == CONTENT
    assert server.asked == ["/elsewhere", "/set/file.bin"]


def test_offline_says_what_to_fetch_from_where_and_where_to_put_it(folder):
    url = dead_url()
    with pytest.raises(UserError) as caught:
        data.fetch("set/file.bin", [url], md5=MD5)
    message = str(caught.value)
    assert "'set/file.bin' is missing" in message
    assert f"Fetch {url}" in message and "ConnectionError" in message
    assert f"put it at {folder / 'set' / 'file.bin'}" in message
    assert data.VARIABLE in message and "paths.data" in message


def test_a_file_that_must_be_put_there_by_hand(folder):
    with pytest.raises(UserError, match=r"put it at .*licensed\.zip"):
        data.fetch("licensed.zip")


def test_a_download_without_a_checksum_is_a_mistake_of_the_plugin(folder, server):
    with pytest.raises(ValueError, match="needs md5 or sha256"):
        data.fetch("set/file.bin", [f"{server.url}/set/file.bin"])
    assert not server.asked


def test_default_folder_is_the_platforms_cache(monkeypatch):
    import platformdirs

    monkeypatch.delenv(data.VARIABLE, raising=False)
    assert data.data_dir() == platformdirs.user_cache_path("framework") / "data"


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(data.VARIABLE, "~/data")
    assert data.data_dir() == tmp_path / "data"


FETCHING = """
import pytorch_lightning as pl

from framework import data_dir, fetch
from framework.study import Study


class Reads(Study):
    def study(self):
        return {"size": len(fetch("set/file.bin", ["http://127.0.0.1:9/set/file.bin"], md5="0" * 32).read_bytes())}
"""


@pytest.fixture
def reading(plugin):
    plugin.write("reads.py", FETCHING)
    return plugin.experiment("reads", "description: Reads.\nstages: [test]\nmodel: {_target_: toy.reads.Reads}\n", None)


def test_paths_data_of_the_run_is_where_the_plugin_looks(reading, cli, tmp_path):
    (tmp_path / "mine" / "set").mkdir(parents=True)
    (tmp_path / "mine" / "set" / "file.bin").write_bytes(b"12345")
    done = cli(f"+experiment={reading}", f"paths.data={tmp_path / 'mine'}")
    assert done.status == 0 and "size" in done.out and " 5\n" in done.out


def test_missing_data_fails_a_constructor_without_a_traceback(plugin, cli):
    plugin.write(
        "eager.py",
        """
        from framework import fetch
        from toy.data import Points

        class Eager(Points):
            def __init__(self, count: int, batch_size: int) -> None:
                super().__init__(count, batch_size)
                fetch("set/file.bin")
        """,
    )
    failed = cli("+experiment=toy/example", "data._target_=toy.eager.Eager")
    assert failed.status == 1 and "'set/file.bin' is missing" in failed.err
    assert "Traceback" not in failed.err


def test_missing_data_fails_the_run_without_a_traceback(reading, cli, tmp_path):
    failed = cli(f"+experiment={reading}")
    assert failed.status == 1
    assert (
        "'set/file.bin' is missing" in failed.err
        and f"put it at {tmp_path / 'data' / 'set' / 'file.bin'}" in failed.err
    )
    assert "Traceback" not in failed.err
