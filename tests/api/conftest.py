# SPDX-License-Identifier: BSD-2-Clause
"""A private PostgreSQL and the real wiretoll-api over TLS for a session of tests, in a temporary folder of their own."""

import http.client
import json
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
import time
import types
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psycopg2
import pytest

from world import World

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("WIRETOLL_BIN", REPOSITORY / "build/bin")).resolve()
SQL_ROLES = ("wiretoll_owner", "wiretoll_api", "wiretoll_deploy")


def postgres_programs():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    assert found, "PostgreSQL is not installed"
    return found[-1].parent


class Postgres:
    """A server on a Unix socket only, run by the user postgres (initdb refuses root), with a password per role."""

    # Tests need no commit to survive the machine.
    settings = ("fsync=off", "max_connections=100")

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "data"
        self.passwords = {role: secrets.token_hex(16) for role in ("postgres", *SQL_ROLES)}
        self.process = None

    def as_postgres(self, *command):
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *map(str, command)]

    def create(self):
        password_file = self.folder / "postgres.password"
        password_file.write_text(self.passwords["postgres"])
        for path in (self.folder, password_file):
            shutil.chown(path, "postgres", "postgres")
        subprocess.run(self.as_postgres(postgres_programs() / "initdb", "-D", self.data, "-U", "postgres", "-A",
                                        "scram-sha-256", "--pwfile", password_file, "-E", "UTF8", "--locale=C", "-N"),
                       check=True, capture_output=True, timeout=120)
        self.start()
        connection = self.connect("postgres", "postgres")
        connection.autocommit = True
        cursor = connection.cursor()
        for role in SQL_ROLES:
            cursor.execute(f"CREATE ROLE {role} LOGIN PASSWORD %s", (self.passwords[role],))
        cursor.execute("CREATE DATABASE wiretoll OWNER wiretoll_owner")
        connection.close()

    def start(self):
        log = open(self.folder / "postgres.log", "ab")
        self.process = subprocess.Popen(
            self.as_postgres(postgres_programs() / "postgres", "-D", self.data, "-c", "listen_addresses=", "-c",
                             f"unix_socket_directories={self.folder}",
                             *(word for setting in self.settings for word in ("-c", setting))),
            stdout=log, stderr=log)
        deadline = time.monotonic() + 180
        while True:
            try:
                self.connect("postgres", "postgres").close()
                return
            except psycopg2.OperationalError:
                assert time.monotonic() < deadline and self.process.poll() is None, "PostgreSQL does not start"
                time.sleep(0.05)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(180)

    def connect(self, role="wiretoll_owner", database="wiretoll"):
        return psycopg2.connect(host=str(self.folder), user=role, password=self.passwords[role], dbname=database)

    def connection_file(self, role):
        path = self.folder.parent / f"{role}.conn"
        path.touch(0o600)
        path.write_text(f"host={self.folder} user={role} password={self.passwords[role]} dbname=wiretoll\n")
        return path


class Server:
    """A wiretoll-api of its own; its log is kept, to be searched for what must not be there."""

    def __init__(self, state, database_file, log, *options, environment=None):
        self.ca_pem = state / "ca.pem"
        self.log = log
        output = open(log, "ab")
        begin = output.tell()
        # All tests come from one address. What an earlier release knows as an option, it shows.
        known = subprocess.run([BIN / "wiretoll-api", "--help"], capture_output=True, text=True, timeout=60).stdout
        pace = ["--connections-per-second", "65536"] if "--connections-per-second" in known else []
        self.process = subprocess.Popen(
            [BIN / "wiretoll-api", "serve", "--state", state, "--database-file", database_file, "--listen",
             "127.0.0.1:0", *pace, *options], stdout=output, stderr=output, env={**os.environ, **(environment or {})})
        self.port = self.wait_for_port(begin)
        self.url = f"https://127.0.0.1:{self.port}"
        self.tls = ssl.create_default_context(cafile=str(self.ca_pem))

    def wait_for_port(self, begin):
        deadline = time.monotonic() + 60
        while True:
            found = re.search(r"listening on https://127\.0\.0\.1:(\d+)", self.log.read_text()[begin:])
            if found:
                return int(found[1])
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(180)

    def connect(self, timeout=90):
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls, timeout=timeout)

    def exchange(self, method, path, body=None, token=None, headers=None, connection=None):
        """Everything of the answer: status, headers, bytes."""
        headers = dict(headers or {})
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        own = connection or self.connect()
        try:
            own.request(method, path, body, headers)
            answer = own.getresponse()
            return types.SimpleNamespace(status=answer.status, headers=answer.headers, body=answer.read())
        finally:
            if not connection:
                own.close()

    def request(self, method, path, body=None, token=None, headers=None):
        """Status and JSON; text that is not JSON comes as text, nothing as None."""
        answer = self.exchange(method, path, body, token, headers)
        if not answer.body:
            return answer.status, None
        if "json" in answer.headers.get("Content-Type", ""):
            return answer.status, json.loads(answer.body)
        return answer.status, answer.body.decode()


class Api(Server):
    """The session's server with what tests need around it."""

    def __init__(self, folder, postgres):
        self.folder = folder
        self.state = folder / "state"
        self.postgres = postgres
        self.database_files = {role: postgres.connection_file(role) for role in SQL_ROLES}
        self.run("migrate", "--database-file", self.database_files["wiretoll_owner"])
        made = json.loads(self.init())
        self.ca_fingerprint = made["ca_fingerprint"]
        super().__init__(self.state, self.database_files["wiretoll_api"], folder / "api.log")
        self.first_admin_token = made["admin_token"]
        status, answer = self.request("POST", "/v1/login", {"one_time_token": self.first_admin_token})
        assert status == 200, answer
        self.admin_token = answer["token"]
        self.db = postgres.connect()
        self.db.autocommit = True
        self.lock = threading.Lock()
        self.others = []

    def run(self, *arguments):
        done = subprocess.run([BIN / "wiretoll-api", *map(str, arguments)], capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, f"wiretoll-api {arguments}: {done.stderr}"
        return done.stdout

    def init(self, *options):
        return self.run("init", "--state", self.state, "--database-file", self.database_files["wiretoll_api"], *options)

    def one_time_admin_token(self):
        return self.login_token("admin")

    def login_token(self, user):
        status, answer = self.request("POST", f"/v1/users/{user}/login-token", token=self.admin_token)
        assert status == 201, answer
        return answer["one_time_token"]

    def token_of(self, user):
        """A session of a user that exists."""
        status, answer = self.request("POST", "/v1/login", {"one_time_token": self.login_token(user)})
        assert status == 200, answer
        return answer["token"]

    def sql(self, statement, *values):
        """Runs SQL as the tables' owner; the rows when there are some."""
        with self.lock, self.db.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else None

    def another(self, *options, **more):
        """One more server on the same state and database; a test that fails need not stop it."""
        server = Server(self.state, self.database_files["wiretoll_api"], self.folder / f"api-{secrets.token_hex(4)}.log",
                        *options, **more)
        self.others.append(server)
        return server


@pytest.fixture(scope="session")
def api():
    folder = Path(tempfile.mkdtemp(prefix="wt-api-"))
    folder.chmod(0o755)  # the user postgres goes through it
    (folder / "pg").mkdir()
    postgres = Postgres(folder / "pg")
    server = None
    try:
        postgres.create()
        server = Api(folder, postgres)
        yield server
    finally:
        for other in server.others if server else []:
            other.stop(signal.SIGKILL)
        status = server.stop() if server else 0
        postgres.stop()
        log = (folder / "api.log").read_text() if server else ""
        shutil.rmtree(folder, ignore_errors=True)
    assert status == 0, f"wiretoll-api ended with {status}:\n{log}"
    assert "runtime error" not in log and "AddressSanitizer" not in log, log


@pytest.fixture
def world(api):
    return World(api)


@pytest.fixture
def steady_hour():
    """For what compares the hour or the month here with that of the server: neither turns before the test has ended."""
    left = 3600 - time.time() % 3600
    if left < 60:
        time.sleep(left + 0.1)


@pytest.fixture(autouse=True)
def steady_month():
    """What a test counts is of one cycle."""
    soon = datetime.now(timezone.utc) + timedelta(seconds=60)
    left = soon.replace(day=1, hour=0, minute=0, second=0, microsecond=0) - soon + timedelta(seconds=60)
    if left > timedelta(0):
        time.sleep(left.total_seconds() + 0.1)
