# SPDX-License-Identifier: BSD-2-Clause
"""The agent talks to its own API only, and what is secret stays where it belongs."""

import base64
import collections
import contextlib
import json
import os
import re
import socket
import ssl
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from agent_lab import API_ADDRESS, API_PORT, laboratory, run, wait_for
from deploy_lab import make_networks, processes
from test_agent import deploy, wait_truth
from test_deploy_up import Up, remnants
from test_deploy_whole import Api

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@pytest.fixture
def lab():
    with laboratory() as parts:
        yield parts


class Impostor:
    """Answers at the API's address; keeps what it could read."""

    def __init__(self, certificate=None):
        self.read, self.connections = b"", 0
        self.context = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self.socket = socket.create_server((API_ADDRESS, API_PORT))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            self.connections += 1
            try:
                connection.settimeout(2)
                if self.context:
                    connection = self.context.wrap_socket(connection, server_side=True)
                self.read += connection.recv(65536)
                connection.sendall(b"HTTP/1.1 503 Not now\r\nContent-Length: 2\r\n\r\n{}")
            except OSError:
                pass
            connection.close()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


def make_certificate(folder, name, host="wiretoll-api", days="2", signer="api"):
    """Signed by the API's own CA, if no other signer is named: only one thing is wrong with each."""
    path = folder / f"{name}.pem"
    run("openssl", "req", *KEY, "-subj", f"/CN={host}", "-keyout", path.with_suffix(".key"), "-out", folder / f"{name}.csr")
    (folder / f"{name}.ext").write_text(f"subjectAltName=DNS:{host}\n")
    run("openssl", "x509", "-req", "-in", folder / f"{name}.csr", "-CA", folder / f"{signer}.pem", "-CAkey", folder / f"{signer}.key",
        "-days", days, "-extfile", folder / f"{name}.ext", "-out", path)
    return path


def test_an_impostor_is_told_nothing_and_nothing_is_lost(lab):
    api, gateway, clients = lab
    deploy(lab)
    folder = gateway.base.parent
    run("openssl", "req", "-x509", *KEY, "-days", "2", "-subj", "/CN=wiretoll-api", "-addext", "subjectAltName=DNS:wiretoll-api",
        "-keyout", folder / "other.key", "-out", folder / "other.pem")
    token = json.loads((gateway.base / "agent.json").read_text())["token"].encode()
    wrong = {
        "another CA": folder / "other.pem",
        "another name": make_certificate(folder, "name", host="wiretoll-apj"),
        "its address as the name": make_certificate(folder, "address", host=API_ADDRESS),
        "expired": make_certificate(folder, "expired", days="0"),
        "no TLS": None,
    }
    wait_for("it expires", lambda: "will not" not in run("openssl", "x509", "-noout", "-checkend", 0, "-in", wrong["expired"], check=False))
    api.close()
    for what, certificate in wrong.items():
        impostor = Impostor(certificate)
        wait_for(f"it is tried ({what})", lambda i=impostor: i.connections >= 2)
        assert clients[0].ping() == 1
        impostor.close()
        if certificate:
            assert impostor.read == b"", what
        else:
            assert impostor.read and token not in impostor.read and not re.search(rb"POST|GET|epoch|records", impostor.read)
    assert gateway.agent.poll() is None
    # The same with nothing wrong: it was the certificate.
    impostor = Impostor(make_certificate(folder, "right"))
    wait_for("it is talked to", lambda: token in impostor.read)
    impostor.close()
    api.listen()
    wait_truth(api, clients)


def test_a_bundle_of_two_authorities_is_trusted_by_both(lab):
    """As while one takes over from the other."""
    api, gateway, _ = lab
    folder = gateway.base.parent
    run("openssl", "req", "-x509", *KEY, "-days", "2", "-subj", "/CN=new", "-keyout", folder / "new.key", "-out", folder / "new.pem")
    api.ca_pem = (folder / "new.pem").read_text() + api.ca_pem
    gateway.write_bootstrap()
    deploy(lab, connect=False)
    token = json.loads((gateway.base / "agent.json").read_text())["token"].encode()
    api.close()
    successor = Impostor(make_certificate(folder, "successor", signer="new"))
    wait_for("the new authority's certificate is taken", lambda: token in successor.read)
    successor.close()
    api.listen()
    reported = len(api.batches)
    wait_for("and the old one's again", lambda: len(api.batches) > reported)


# ---- secrets ------------------------------------------------------------------------------------------------------------


def secrets_of(up, gateway, api):
    """Every secret that a control plane and a gateway have, by what it is."""
    found = {}
    for path in (up.state / "secrets").iterdir():
        word = re.search(r"password=(\S+)", path.read_text())
        found[f"the password in {path.name}"] = word[1] if word else path.read_text().strip()
    for name in ("ca.key", "server.pem"):
        found[name] = "".join(re.search(r"PRIVATE KEY-----\n(.*?)\n-----END", (up.state / "api" / name).read_text(), re.DOTALL)[1].split())[40:80]
    base = up.state / "gw" / gateway
    found["the gateway's private key"] = (base / "private.key").read_text().strip()
    found["the gateway's token"] = json.loads((base / "agent.json").read_text())["token"]
    found["the admin's one-time token"] = (up.state / "admin-token").read_text().strip()
    found["the admin's session"] = api.token
    return found


def words_in_memory(pid, word):
    """What stands before each copy of a word in what a process can write to."""
    found = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            begin, end = (int(number, 16) for number in line.split()[0].split("-"))
            if "rw" not in line.split()[1] or end - begin > 1 << 30:
                continue
            with contextlib.suppress(OSError):
                memory.seek(begin)
                data = memory.read(end - begin)
                found += [data[max(0, match.start() - 18):match.start()] for match in re.finditer(word, data)]
    return found


def test_a_traded_token_is_forgotten(lab):
    """Its file is gone, and no variable, no parser's copy of it stays in memory; libcurl keeps the request that told it."""
    api, gateway, _ = lab
    token, enroll = "one-time-" + os.urandom(16).hex(), api.enroll
    bootstrap = gateway.base / "bootstrap.json"
    bootstrap.write_text(json.dumps({**json.loads(bootstrap.read_text()), "one_time_token": token}))
    api.enroll = lambda body: enroll({**body, "one_time_token": {token: "once"}.get(body["one_time_token"])})
    deploy(lab)
    assert not bootstrap.exists() and token not in (gateway.base / "agent.json").read_text()
    assert words_in_memory(gateway.agent.pid, b"Bearer"), "it is looked for in the right place"
    assert not [before for before in words_in_memory(gateway.agent.pid, token.encode()) if before != b'"one_time_token":"']


def files(up):
    """What is kept, but for the database's; pins are no files."""
    return [path for path in up.folder.rglob("*") if path.is_file() and path != up.out and path.name != "mnt"
            and not {"bpf", "pg"} & set(path.parts)]


def test_secrets_are_nowhere_but_in_their_files():
    """A whole control plane with a gateway, and peers with preshared keys: everything that anybody could read is searched."""
    make_networks()
    up = Up(f"/run/trust-{len(os.listdir('/run'))}", ["127.0.0.1", "198.51.100.1"]).start()
    try:
        api = Api(up)
        gateway = api.order_gateway()
        wait_for("the gateway is active", lambda: api.status(gateway) == "active")
        psk = run("wg", "genpsk").strip()
        key = run("wg", "pubkey", input=run("wg", "genkey")).strip()
        api.call("POST", f"/v1/gateways/{gateway}/peers", {"name": "site", "kind": "site_to_site", "public_key": key, "preshared_key": psk,
                                                          "allowed_ips": ["192.168.7.0/24"], "endpoint": "198.51.100.50:51820"})
        netns = f"wt-{gateway[:8]}-1"
        wg = ["nsenter", f"--mount={up.run_folder}/gw/{gateway}/mnt", f"--net=/run/netns/{netns}", "wg", "show", "wg0", "preshared-keys"]
        wait_for("the peer is in force", lambda: psk in run(*wg, check=False))
        secrets = secrets_of(up, gateway, api)
        secrets["the preshared key"] = psk
        assert len(secrets) >= 9 and all(len(word) >= 20 for word in secrets.values()), secrets.keys()

        # A file that holds one is its owner's alone, and each is in the file that it is said to be in.
        holders = {}
        for path in files(up):
            try:
                content, mode = path.read_bytes().replace(b"\n", b""), stat.S_IMODE(path.stat().st_mode)
            except FileNotFoundError:  # a journal's segment that is over
                continue
            for what in (what for what, word in secrets.items() if word.encode() in content):
                holders.setdefault(what, []).append(path)
                assert mode == 0o600, f"{what} in {path}"
        assert secrets.keys() - holders.keys() == {"the admin's session", "the preshared key"}, holders
        assert all(len(paths) == 1 for paths in holders.values()), holders
        # Logs, also those of the database; what `up` printed is the one-time token, once.
        logs = [up.out, *up.state.rglob("*.log")]
        assert any("agent.log" in str(path) for path in logs) and len(logs) >= 3
        for path in logs:
            text = path.read_text(errors="replace")
            for what, word in secrets.items():
                assert text.count(word) == (path == up.out and what == "the admin's one-time token"), f"{what} in {path}"
        # Arguments and environments of every process.
        read = collections.Counter()
        for pid in processes():
            for name in ("cmdline", "environ"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one that has just ended
                    data = Path(f"/proc/{pid}/{name}").read_bytes()
                    read[name] += bool(data)
                    assert not [what for what, word in secrets.items() if word.encode() in data], f"{name} of {pid}"
        assert min(read.values()) >= 6, "up, API, worker, PostgreSQL, agent and WireGuard were read"
        # At rest: the preshared key sealed, tokens by their hash. The database's own files, write-ahead log and all.
        stored = subprocess.run(["grep", "-rlaF", *[f"-e{word}" for what, word in secrets.items() if "password" not in what],
                                 str(up.state / "pg")], capture_output=True, text=True)
        assert stored.stdout == "", stored.stdout
        raw, public = base64.b64decode(psk), base64.b64decode(key)
        data = []
        for path in (up.state / "pg").rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # PostgreSQL removes files, too
                data += [path.read_bytes()] if path.is_file() else []
        assert any(public in one for one in data), "it is looked for in the right place"
        assert not [one for one in data if raw in one]
    finally:
        print(up.out.read_text())
        run(*up.command("--down"), timeout=180)
        up.process.wait(180)
        for link in ("public", "vpc1"):
            run("ip", "link", "del", link)
        run("ip", "netns", "del", "i1")
    wait_for("nothing runs any more", lambda: remnants() == [])
