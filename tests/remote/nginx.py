"""A real web server: Debian's nginx, serving folders on loopback.

``apt-get install nginx`` has it. Tests that want it are skipped where it is absent, and fail
instead where CLIPSYN_TEST_SERVERS is set, as the project's gate does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemons import answers, assert_on_loopback_only, free_port, running, until

SERVERS = "CLIPSYN_TEST_SERVERS"
_CONFIG = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 128; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {site};
    }}
}}
"""


@contextmanager
def serving(folder: Path, site: Path) -> Iterator[str]:
    """The URL at which `site`, which may be made later, is served; its log is in `folder`."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        assert SERVERS not in os.environ, f"{SERVERS} is set, and there is no nginx"
        pytest.skip("no nginx: `apt-get install nginx` has it")
    folder.chmod(0o755)  # root's workers are other users
    port, config = free_port(), folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not read what we made
    config.write_text(user + _CONFIG.format(folder=folder, site=site, port=port), "utf-8")
    with running([program, "-c", config, "-e", folder / "error.log", "-p", folder]) as server:
        until(lambda: server.poll() is not None or answers(port))
        assert_on_loopback_only(port)
        yield f"http://127.0.0.1:{port}"
