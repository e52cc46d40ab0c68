# SPDX-License-Identifier: BSD-2-Clause
"""A private PostgreSQL that keeps what it commits, the real API over it, and requests made beforehand."""

import contextlib
import json
import shutil
import signal
import socket
import ssl
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "api"))

from conftest import Api, Postgres  # noqa: E402
from simulated_agent import crc32c  # noqa: E402


class Durable(Postgres):
    """Other than for tests, a commit waits for the disk."""

    settings = ("max_connections=100", "shared_buffers=1GB", "max_wal_size=8GB")


@contextlib.contextmanager
def whole_api():
    # Not in /tmp or /run, which may be memory: a commit is to reach a disk.
    folder = Path(tempfile.mkdtemp(prefix="wiretoll-bench-", dir="/var/tmp"))
    folder.chmod(0o755)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing of it is left there
    (folder / "pg").mkdir()
    postgres, api = Durable(folder / "pg"), None
    try:
        postgres.create()
        api = Api(folder, postgres)
        yield api
    finally:
        if api:
            api.stop()
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def add_peers(gateway, count):
    """Ids of new peers."""
    rows = gateway.api.sql("INSERT INTO gateway.peer (owner, gateway, kind, name, public_key)"
                           " SELECT %s, %s, 'road_warrior', 'p' || i, sha256((%s || i)::bytea)"
                           " FROM generate_series(1, %s) i RETURNING id::text", gateway.owner, gateway.id, gateway.id, count)
    return [row[0] for row in rows]


def request_of(agent, body):
    """The bytes of a report on the wire."""
    raw = json.dumps(body, separators=(",", ":")).encode()
    return (f"POST /v1/agent/report HTTP/1.1\r\nHost: wiretoll-api\r\nAuthorization: Bearer {agent.token}\r\n"
            f"Wiretoll-Protocol: 1\r\nWiretoll-Batch-CRC32C: {crc32c(raw)}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(raw)}\r\n\r\n").encode() + raw


class Line:
    """One connection that is kept."""

    def __init__(self, api):
        self.socket = api.tls.wrap_socket(socket.create_connection(("127.0.0.1", api.port)), server_hostname="127.0.0.1")
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, request):
        """The answer's body."""
        self.socket.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._more()
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(body) < length:
            body += self._more()
        assert head.startswith(b"HTTP/1.1 200"), (head, body)
        return body

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise ssl.SSLEOFError("the API has closed a connection")
        return data
