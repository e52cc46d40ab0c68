# SPDX-License-Identifier: BSD-2-Clause
"""The server itself: TLS, HTTP's corners, malformed requests, load, long polls, a database that goes away, the end."""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import threading
import time
import warnings

import psycopg2
import pytest

from billing_model import wait
from conftest import BIN


def raw(api, data, server_hostname="localhost", timeout=60):
    """Sends bytes over TLS and returns all that comes back."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=timeout) as tcp:
        with api.tls.wrap_socket(tcp, server_hostname=server_hostname) as tls:
            tls.sendall(data)
            received = b""
            try:
                while chunk := tls.recv(65536):
                    received += chunk
            except (ConnectionResetError, ssl.SSLEOFError):
                pass
            return received


def problem(answer):
    assert answer.headers["Content-Type"] == "application/problem+json", answer.body
    document = json.loads(answer.body)
    assert document["status"] == answer.status and document["title"] and document["type"] == "about:blank"
    return document


# ---- TLS and the state folder ----

@pytest.mark.parametrize("name", ["wiretoll-api", "localhost", "127.0.0.1"])
def test_the_certificate_is_for_the_fixed_name_and_the_addresses(api, name):
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as tcp:
        with api.tls.wrap_socket(tcp, server_hostname=name) as tls:
            assert tls.version() == "TLSv1.3"


def test_no_other_name_and_no_old_tls(api):
    with pytest.raises(ssl.SSLCertVerificationError):
        raw(api, b"", "example.org")
    old = ssl.create_default_context(cafile=str(api.ca_pem))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as tcp:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            old.wrap_socket(tcp, server_hostname="localhost")


def test_the_chain_shows_the_pinned_authority(api):
    shown = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{api.port}", "-showcerts"], input=b"", timeout=60,
                           capture_output=True, check=True).stdout.decode()
    chain = re.findall("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", shown, re.S)
    fingerprints = [hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest() for pem in chain]
    assert len(chain) == 2 and fingerprints[1] == api.ca_fingerprint
    assert fingerprints[1] == hashlib.sha256(ssl.PEM_cert_to_DER_cert(api.ca_pem.read_text())).hexdigest()


def test_init_again_keeps_everything_and_makes_no_second_admin(api):
    before = {path.name: path.read_bytes() for path in api.state.iterdir()}
    assert json.loads(api.init()) == {"ca_fingerprint": api.ca_fingerprint, "admin_token": None}
    assert {path.name: path.read_bytes() for path in api.state.iterdir()} == before
    assert api.first_admin_token and len(api.first_admin_token) == 43
    assert stat.S_IMODE(api.state.stat().st_mode) == 0o700
    for name in ("ca.key", "server.pem", "sealing.key"):
        assert stat.S_IMODE((api.state / name).stat().st_mode) == 0o600
    assert (api.state / "sealing.key").stat().st_size == 32


def test_a_new_admin_token_for_who_lost_the_first(api):
    token = json.loads(api.init("--new-admin-token"))["admin_token"]
    assert api.request("POST", "/v1/login", {"one_time_token": token})[0] == 200


def test_a_certificate_of_other_addresses_is_renewed(api, tmp_path):
    state = tmp_path / "state"
    api.run("init", "--state", state)
    old = (state / "server.pem").read_bytes()
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-subj",
                    "/CN=old", "-out", tmp_path / "csr"], check=True, capture_output=True, timeout=60)
    (tmp_path / "ext").write_text("subjectAltName=DNS:wiretoll-api,IP:203.0.113.1")
    subprocess.run(["openssl", "x509", "-req", "-in", tmp_path / "csr", "-CA", state / "ca.pem", "-CAkey", state / "ca.key", "-days",
                    "300", "-extfile", tmp_path / "ext", "-out", tmp_path / "leaf.pem"], check=True, capture_output=True, timeout=60)
    (state / "server.pem").write_text(key.read_text() + (tmp_path / "leaf.pem").read_text() + (state / "ca.pem").read_text())
    api.run("init", "--state", state)
    renewed = (state / "server.pem").read_text()
    assert renewed.encode() != old and (tmp_path / "leaf.pem").read_text() not in renewed
    api.run("init", "--state", state)
    assert (state / "server.pem").read_text() == renewed



def openssl(*arguments):
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60).stdout.decode()


def verify_strictly(ca, chain):
    """OpenSSL reads the first certificate of the chain."""
    assert openssl("verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost", "-CAfile", ca, chain) == f"{chain}: OK\n"


def test_d3_certificates_pass_strict_checks(api):
    verify_strictly(api.ca_pem, api.state / "server.pem")
    leaf = openssl("x509", "-in", api.state / "server.pem", "-noout", "-text")
    ca = openssl("x509", "-in", api.ca_pem, "-noout", "-text")
    identifier = re.search(r"Subject Key Identifier: *\n *(\S+)", ca)[1]
    for text, constraint, usage in ((leaf, "CA:FALSE", "Digital Signature"), (ca, "CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign")):
        assert re.search(r"Authority Key Identifier: *\n *(?:keyid:)?(\S+)", text)[1] == identifier
        assert re.search(r"Basic Constraints: critical *\n *(.*)", text)[1] == constraint
        assert re.search(r"Key Usage: critical *\n *(.*)", text)[1] == usage
    assert re.search(r"Extended Key Usage: *\n *(.*)", leaf)[1] == "TLS Web Server Authentication"
    strict = ssl.create_default_context(cafile=str(api.ca_pem))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as tcp:
        with strict.wrap_socket(tcp, server_hostname="localhost") as tls:
            assert tls.version() == "TLSv1.3"


def test_d3_a_server_certificate_without_identifiers_is_made_anew_and_pins_hold(api, tmp_path):
    state = tmp_path / "state"
    api.run("init", "--state", state)
    ca, server = state / "ca.pem", state / "server.pem"
    pinned = ca.read_bytes()
    names = openssl("x509", "-in", server, "-noout", "-ext", "subjectAltName").splitlines()[1].strip().replace("IP Address:", "IP:")
    (tmp_path / "ext").write_text(f"basicConstraints=critical,CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=none\n"
                                  f"keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nsubjectAltName={names}\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", tmp_path / "key.pem", "-subj",
            "/CN=wiretoll-api", "-out", tmp_path / "csr")
    openssl("x509", "-req", "-in", tmp_path / "csr", "-CA", ca, "-CAkey", state / "ca.key", "-days", "300", "-extfile",
            tmp_path / "ext", "-out", tmp_path / "leaf.pem")
    assert "Authority Key Identifier" not in openssl("x509", "-in", tmp_path / "leaf.pem", "-noout", "-text")
    old = (tmp_path / "key.pem").read_text() + (tmp_path / "leaf.pem").read_text() + pinned.decode()
    server.write_text(old)

    # Where the CA's key is kept elsewhere, what there is goes on.
    (state / "ca.key").rename(tmp_path / "ca.key")
    api.run("init", "--state", state)
    assert server.read_text() == old

    (tmp_path / "ca.key").rename(state / "ca.key")
    api.run("init", "--state", state)
    assert server.read_text() != old and ca.read_bytes() == pinned
    verify_strictly(ca, server)


# ---- HTTP ----

def test_health_needs_no_token(api):
    status, answer = api.request("GET", "/v1/health")
    assert status == 200 and answer["status"] == "ok"
    newest = api.sql("SELECT max(version) FROM gateway.schema_migration")[0][0]
    assert answer["schema"] == newest


def test_unknown_paths_and_methods(api):
    for path in ("/", "/v1", "/v1/nothing", "/v2/plans", "/v1//plans", "/v1/plans/a/b"):
        answer = api.exchange("GET", path, token=api.admin_token)
        assert answer.status == 404 and problem(answer)
    answer = api.exchange("DELETE", "/v1/plans", token=api.admin_token)
    assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD, POST"
    assert "GET, HEAD, POST" in problem(answer)["detail"]
    assert api.exchange("OPTIONS", "/v1/health").status == 405


def test_head_and_trailing_slashes(api):
    head, get = (api.exchange(method, "/v1/health") for method in ("HEAD", "GET"))
    assert head.status == 200 and head.body == b"" and head.headers["Content-Length"] == get.headers["Content-Length"]
    assert api.exchange("GET", "/v1/health/").status == 200
    assert api.exchange("GET", "/v1/health//").status == 404


def test_an_encoded_slash_is_no_separator(api):
    answer = api.exchange("GET", "/v1/users/a%2Flogin-token", token=api.admin_token)
    assert answer.status == 404 and '"a/login-token"' in problem(answer)["detail"]


@pytest.mark.parametrize("body, says", [
    (b"{", "line 1, column 1"),
    (b'{"name":\n  nope}', "line 2, column"),
    (b'{"name": "a", "name": "b"}', "not valid JSON"),
    (b'{"name": "\xff"}', "not valid JSON"),
    (b'{"name": "a\\u0000b"}', "not valid JSON"),
    (b"[]", "not a JSON object"),
    (b'{} {}', "not valid JSON"),
    (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", "nested too deeply; accepted are 32 levels"),
    (b'{"a":' * 100_000, "nested too deeply"),
])
def test_malformed_bodies(api, body, says):
    answer = api.exchange("POST", "/v1/plans", body, api.admin_token)
    assert answer.status == 400 and says in problem(answer)["detail"]


def test_a_problem_never_quotes_the_body(api):
    answer = api.exchange("POST", "/v1/login", b'{"one_time_token": "tops3cret" oops}')
    assert answer.status == 400 and b"tops3cret" not in answer.body


def test_the_size_of_a_body_is_bounded(api):
    answer = api.exchange("POST", "/v1/plans", b"x" * (1024 * 1024 + 1), api.admin_token)
    assert answer.status == 413 and "1 MiB" in problem(answer)["detail"]
    asking = f"POST /v1/plans HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {1 << 30}\r\n\r\n"
    assert raw(api, asking.encode()).startswith(b"HTTP/1.1 413")
    full = b'{"name": "%s"}' % (b"x" * (1024 * 1024 - 12))
    assert len(full) == 1024 * 1024
    assert api.exchange("POST", "/v1/plans", full, api.admin_token).status == 422
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    head = f"POST /v1/plans HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.admin_token}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    answer = raw(api, head + 20 * chunk + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413") and api.exchange("GET", "/v1/health").status == 200


@pytest.mark.parametrize("data", [
    b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/plans HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    b"POST /v1/plans HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"GET /v1/health?%zz=%zz&&&= HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
])
def test_malformed_requests_harm_nobody(api, data):
    try:
        raw(api, data, timeout=2)
    except OSError:
        pass
    assert api.exchange("GET", "/v1/health").status == 200


def test_half_requests_and_lost_clients_harm_nobody(api):
    for _ in range(30):
        tcp = socket.create_connection(("127.0.0.1", api.port), timeout=60)
        tls = api.tls.wrap_socket(tcp, server_hostname="localhost")
        tls.sendall(b"POST /v1/plans HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        tls.close()
    with socket.create_connection(("127.0.0.1", api.port), timeout=60) as tcp:
        tcp.sendall(b"GET / HTTP/1.1\r\n\r\n")  # no TLS
    assert api.exchange("GET", "/v1/health").status == 200


def test_handshakes_that_stop_halfway_cost_nothing(api):
    server = api.another()
    clients = []
    for _ in range(8):
        tcp, answer, hello = socket.create_connection(("127.0.0.1", server.port), timeout=60), ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = server.tls.wrap_bio(answer, hello, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        tcp.sendall(hello.read())
        answer.write(tcp.recv(65536))
        clients.append((tcp, tls, hello, answer))
    clock = ~server.process.pid << 3 | 2  # of its CPU time, as clock_getcpuclockid(3) names it
    before, begun = time.clock_gettime(clock), time.thread_time()
    while time.thread_time() - begun < 0.5:  # however long that takes: who is as busy gets as much
        pass
    assert time.clock_gettime(clock) - before < 0.2
    tcp, tls, hello, answer = clients.pop()
    while True:  # what the server says may come in parts
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            answer.write(tcp.recv(65536))
    tls.write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
    tcp.sendall(hello.read())
    assert tcp.recv(65536) and server.exchange("GET", "/v1/health").status == 200
    assert server.stop() == 0
    for tcp, *_ in clients:
        tcp.close()


def test_one_connection_carries_many_requests(api):
    connection = api.connect()
    for _ in range(50):
        assert api.exchange("GET", "/v1/me", token=api.admin_token, connection=connection).status == 200
    connection.close()


# ---- load ----

def wait_session(api, condition, *values):
    """Until one of the API's sessions with the database is such."""
    connection = api.postgres.connect("postgres")  # who sees what others do
    connection.autocommit = True
    cursor = connection.cursor()

    def found():
        cursor.execute(f"SELECT count(*) FROM pg_stat_activity WHERE usename = 'wiretoll_api' AND {condition}", values)
        return cursor.fetchone()[0]

    wait(found)
    connection.close()


def wait_blocked(api, table):
    """Until a request waits for the table that is locked: the billing clock may wait for it, too."""
    wait_session(api, "wait_event_type = 'Lock' AND query LIKE %s", f"SELECT%FROM {table} %")


def test_a_full_queue_answers_at_once(api, world):
    server = api.another("--workers", "1", "--queue", "2")
    tokens = [world.user()["token"] for _ in range(8)]
    for token in tokens:
        assert server.exchange("GET", "/v1/me", token=token).status == 200
    blocker = api.postgres.connect()
    try:
        blocker.cursor().execute("LOCK TABLE gateway.token IN ACCESS EXCLUSIVE MODE")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            # One is with the worker, two wait; the rest hear at once that the server is busy.
            asked = [pool.submit(server.exchange, "GET", "/v1/me", token=tokens[0])]
            wait_blocked(api, "gateway.token")
            asked += [pool.submit(server.exchange, "GET", "/v1/me", token=token) for token in tokens[1:]]
            wait(lambda: sum(future.done() for future in asked) >= 5)
            time.sleep(0.5)
            refused = [future for future in asked if future.done()]
            assert len(refused) == 5
            for answer in (future.result() for future in refused):
                assert answer.status == 503 and answer.headers["Retry-After"] == "1" and "busy" in problem(answer)["detail"]
            blocker.rollback()
            assert sorted(future.result().status for future in asked) == 3 * [200] + 5 * [503]
    finally:
        blocker.close()
        assert server.stop() == 0


# ---- long polls ----

AT_ONCE = 40  # seconds at most: nobody has waited for the end of a poll, which comes after 50


def poll(server, token, have):
    begin = time.monotonic()
    answer = server.exchange("GET", f"/v1/agent/state?have={have}", token=token, headers={"Wiretoll-Protocol": "1"})
    return answer, time.monotonic() - begin


def submit_poll(pool, api, server, token, have):
    """A poll that has looked for a change and found none."""
    [[begun]] = api.sql("SELECT clock_timestamp()")
    waiting = pool.submit(poll, server, token, have)
    wait_session(api, "state = 'idle' AND query LIKE 'SELECT revision FROM gateway.gateway %%' AND state_change > %s", begun)
    return waiting


@pytest.fixture
def gateway(world):
    gateway = world.gateway()
    gateway["agent"] = world.agent_token(gateway)
    return gateway


def test_a_change_wakes_the_poll_that_waits_for_it(api, world, gateway):
    answer, _ = poll(api, gateway["agent"], 0)
    have = json.loads(answer.body)["revision"]
    other = world.gateway()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = submit_poll(pool, api, api, gateway["agent"], have)
        world.call("PATCH", f"/v1/gateways/{other['id']}", {"name": world.name("gw")})
        time.sleep(0.5)
        assert not waiting.done()
        begin = time.monotonic()
        world.call("PATCH", f"/v1/gateways/{gateway['id']}", {"name": world.name("gw")})
        answer, _ = waiting.result(60)
        assert time.monotonic() - begin < AT_ONCE and json.loads(answer.body)["revision"] == have + 1


def test_a_change_at_another_replica_wakes_it_too(api, world, gateway):
    server = api.another()
    have = json.loads(poll(api, gateway["agent"], 0)[0].body)["revision"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = submit_poll(pool, api, server, gateway["agent"], have)
        world.call("PATCH", f"/v1/gateways/{gateway['id']}", {"name": world.name("gw")})
        assert json.loads(waiting.result(60)[0].body)["revision"] == have + 1
    assert server.stop() == 0


def test_no_wake_up_is_lost_between_looking_and_parking(api, world, gateway):
    """Changes come as fast as they can while the poll asks again and again: it never falls asleep on an old revision."""
    stop, changes = threading.Event(), [0]

    def change():
        while not stop.is_set():
            world.call("PATCH", f"/v1/gateways/{gateway['id']}", {"masquerade_into_vpc": "all"})
            changes[0] += 1

    changer = threading.Thread(target=change)
    have = json.loads(poll(api, gateway["agent"], 0)[0].body)["revision"]
    changer.start()
    try:
        while changes[0] < 200:
            answer, took = poll(api, gateway["agent"], have)
            assert took < AT_ONCE and json.loads(answer.body)["revision"] > have
            have = json.loads(answer.body)["revision"]
    finally:
        stop.set()
        changer.join()


def test_many_parked_polls_hold_no_worker(api, world, gateway):
    have = json.loads(poll(api, gateway["agent"], 0)[0].body)["revision"]
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(poll, api, gateway["agent"], have) for _ in range(40)]
        time.sleep(2)
        begin = time.monotonic()
        assert api.exchange("GET", "/v1/me", token=api.admin_token).status == 200
        assert time.monotonic() - begin < AT_ONCE
        world.call("PATCH", f"/v1/gateways/{gateway['id']}", {"name": world.name("gw")})
        assert {json.loads(w.result(60)[0].body)["revision"] for w in waiting} == {have + 1}


def test_a_lost_listener_comes_back_and_wakes_all(api, world, gateway):
    have = json.loads(poll(api, gateway["agent"], 0)[0].body)["revision"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = submit_poll(pool, api, api, gateway["agent"], have)
        # This change announces itself to nobody.
        api.sql("UPDATE gateway.gateway SET revision = revision + 1 WHERE id = %s", gateway["id"])
        admin = api.postgres.connect("postgres")
        admin.autocommit = True
        cursor = admin.cursor()
        cursor.execute("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        assert cursor.fetchone()[0] >= 1
        assert json.loads(waiting.result(60)[0].body)["revision"] == have + 1
        admin.close()


# ---- the end, and the database's ----

def test_sigterm_finishes_what_is_under_way(api, world, gateway):
    server = api.another("--workers", "2")
    have = json.loads(poll(server, gateway["agent"], 0)[0].body)["revision"]
    blocker = api.postgres.connect()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        parked = submit_poll(pool, api, server, gateway["agent"], have)
        blocker.cursor().execute("LOCK TABLE gateway.plan IN ACCESS EXCLUSIVE MODE")
        slow = pool.submit(server.exchange, "GET", "/v1/plans", token=api.admin_token)
        wait_blocked(api, "gateway.plan")
        server.process.send_signal(signal.SIGTERM)

        def is_refused():
            try:
                server.exchange("GET", "/v1/health")
            except OSError:
                return True
            return False

        wait(is_refused)
        assert server.process.poll() is None
        blocker.rollback()
        assert slow.result(60).status == 200
        assert parked.result(60)[0].status == 204
    blocker.close()
    assert server.stop() == 0


def test_the_database_goes_and_comes_back(api):
    api.postgres.stop()
    try:
        answer = api.exchange("GET", "/v1/me", token=api.admin_token)
        assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1 and "database" in problem(answer)["detail"]
        assert api.exchange("GET", "/v1/health").status == 503
    finally:
        api.postgres.start()
        api.db = api.postgres.connect()
        api.db.autocommit = True
    assert api.exchange("GET", "/v1/me", token=api.admin_token).status == 200


def test_a_transaction_that_is_cut_off_is_503_and_leaves_nothing(api, world):
    blocker = api.postgres.connect()
    blocker.cursor().execute("LOCK TABLE gateway.audit IN ACCESS EXCLUSIVE MODE")
    name = world.name("image")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(api.exchange, "POST", "/v1/images", {"name": name}, api.admin_token)
        admin = api.postgres.connect("postgres")
        cursor = admin.cursor()
        deadline, killed = time.monotonic() + 60, 0
        while not killed and time.monotonic() < deadline:
            cursor.execute("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%%INTO gateway.audit%%' "
                           "AND wait_event_type = 'Lock'")
            killed = cursor.fetchone()[0]
            admin.rollback()
        answer = asked.result(60)
    blocker.close()
    admin.close()
    assert killed == 1 and answer.status == 503 and problem(answer)
    assert api.sql("SELECT 1 FROM gateway.image WHERE name = %s", name) == []
    assert api.exchange("POST", "/v1/images", {"name": name}, api.admin_token).status == 201


def test_another_schema_is_not_served(api):
    api.sql("INSERT INTO gateway.schema_migration (version, name) VALUES (9999, 'of a later release')")
    try:
        done = subprocess.run([BIN / "wiretoll-api", "serve", "--state", api.state, "--database-file",
                               api.database_files["wiretoll_api"], "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "schema 9999" in done.stderr
    finally:
        api.sql("DELETE FROM gateway.schema_migration WHERE version = 9999")


@contextlib.contextmanager
def empty_database(api):
    """The superuser's connection, a new database's name, and its owner's connection file."""
    connection = api.postgres.connect("postgres", "postgres")
    connection.autocommit = True
    name = f"again_{os.getpid()}"
    connection.cursor().execute(f"CREATE DATABASE {name} OWNER wiretoll_owner")
    file = api.folder / "again.conn"
    file.write_text(api.database_files["wiretoll_owner"].read_text().replace("dbname=wiretoll", f"dbname={name}"))
    file.chmod(0o600)
    try:
        yield connection.cursor(), name, file
    finally:
        connection.cursor().execute(f"DROP DATABASE {name}")
        connection.close()


def test_migrations_at_once_are_applied_once(api):
    with empty_database(api) as (_, name, file):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: api.run("migrate", "--database-file", file), range(4)))
        fresh = api.postgres.connect(database=name)
        cursor = fresh.cursor()
        cursor.execute("SELECT array_agg(version ORDER BY version) FROM gateway.schema_migration")
        assert cursor.fetchone()[0] == [row[0] for row in api.sql("SELECT version FROM gateway.schema_migration ORDER BY 1")]
        fresh.close()


def test_a_role_that_would_get_no_rights_is_told_before(api):
    """A first start whose operator makes the roles when the API asks for them."""
    with empty_database(api) as (cursor, name, file):
        cursor.execute("ALTER ROLE wiretoll_deploy RENAME TO later")
        try:
            done = subprocess.run([BIN / "wiretoll-api", "migrate", "--database-file", file], capture_output=True, text=True, timeout=60)
        finally:
            cursor.execute("ALTER ROLE later RENAME TO wiretoll_deploy")
        assert done.returncode == 1 and "no role wiretoll_deploy:" in done.stderr, done.stderr
        fresh = api.postgres.connect(database=name)
        with fresh.cursor() as tables:
            tables.execute("SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
            assert tables.fetchone() == (0,)
        fresh.close()
        api.run("migrate", "--database-file", file)


@pytest.mark.parametrize("arguments, status, says", [
    ([], 2, "usage"), (["dance"], 2, "usage"), (["serve"], 2, "--state is required"), (["init"], 2, "--state is required"),
    (["migrate"], 2, "--database-file is required"), (["serve", "--state", "/x", "--database-file", "/x"], 2, "--listen is required"),
    (["migrate", "--database-file", "/nowhere/x"], 1, "/nowhere/x"), (["--help"], 0, "usage"), (["migrate", "--help"], 0, "usage"),
    (["serve", "--state", "/x", "--database-file", "/x", "--listen", "a", "--workers", "0"], 2, "1 to 256"),
    (["migrate", "--database-file", "/x", "more"], 2, "more"),
])
def test_command_line(arguments, status, says):
    done = subprocess.run([BIN / "wiretoll-api", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == status and says in (done.stdout if status == 0 else done.stderr)


def test_a_bad_address_to_listen_on_is_named(api):
    for address in ("nowhere", "127.0.0.1", "127.0.0.1:70000", "example.org:443"):
        done = subprocess.run([BIN / "wiretoll-api", "serve", "--state", api.state, "--database-file",
                               api.database_files["wiretoll_api"], "--listen", address], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and address in done.stderr and "ADDRESS:PORT" in done.stderr
