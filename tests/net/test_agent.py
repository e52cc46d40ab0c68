# SPDX-License-Identifier: BSD-2-Clause
"""wiretoll-agent with real wireguard-go, real clients and a pretended API. Truth is the clients' own device counters."""

import json
import random
import signal
import stat
import subprocess
import threading
import time

import pytest

from agent_lab import BIN, Echoes, inside, laboratory, run, unprivileged, wait_for
from echo import echo

STATE = {
    "interface": {"addresses": ["10.99.0.1/24"], "listen_port": 51820, "mtu": 1420},
    "firewall": {"tunnel_subnets": ["10.99.0.0/24"], "vpc_subnets": ["10.1.0.0/24"], "remote_subnets": ["192.168.7.0/24"]},
    "routes": ["192.168.7.0/24"],
    "masquerade": "road_warriors",
    "refuse": [],
}


@pytest.fixture
def lab():
    with laboratory() as parts:
        yield parts


def deploy(lab, connect=True):
    """A gateway with both clients, up and reporting."""
    api, gateway, clients = lab
    api.set_state(**STATE, peers=[client.peer() for client in clients])
    gateway.start_wireguard()
    gateway.start_agent()
    wait_for("the gateway is active", lambda: api.batches and api.batches[-1]["active_since"])
    for client in clients if connect else []:
        client.connect(gateway.key())
        assert client.ping() == 1


def wait_truth(api, clients):
    """Metered is what the clients' kernels counted, to the byte and in both directions, and stays so.

    Both are read anew each time: the answer to the last of a stopped sender's packets may be counted before it arrives,
    and a connection may have something to say yet.
    """
    def metered_and_truth():
        return [api.counted(client.id) for client in clients], [client.counters() for client in clients]

    deadline = time.monotonic() + 60
    while True:
        metered, truth = metered_and_truth()
        if metered == truth:
            seen = len(api.batches)
            time.sleep(1.2)
            wait_for("another report", lambda: len(api.batches) > seen)
            later, truth_later = metered_and_truth()
            if later == truth_later:
                return
            assert truth_later != truth, (later, "metered without a packet", truth_later)
        assert time.monotonic() < deadline, (metered, "is not what the clients counted", truth)
        time.sleep(0.02)


def wait_stable(api, value):
    """The value once two reports in a row have left it as it was: the second was begun when the first was told."""
    while True:
        before, seen = value(), len(api.batches)
        wait_for("two reports", lambda: len(api.batches) >= seen + 2)
        if value() == before:
            return before


def test_comes_up_in_order_and_never_unmetered(lab):
    api, gateway, clients = lab
    seen = {}

    def look(batch):
        seen.update(up=gateway.is_up(), seq=batch["seq"], states=batch["states"], active=batch["active_since"],
                    pins=[path.name for path in gateway.bpf.rglob("*")])

    api.on_first_report = look
    api.set_state(**STATE, peers=[client.peer() for client in clients])
    gateway.start_agent()
    time.sleep(0.3)
    gateway.start_wireguard()
    wait_for("the gateway is active", lambda: api.batches and api.batches[-1]["active_since"])
    assert seen["up"] is False and seen["seq"] == 1 and seen["states"] == [] and seen["active"] is None
    assert any("ingress" in name for name in seen["pins"]) and any("egress" in name for name in seen["pins"])
    assert gateway.is_up()
    last = api.last()
    assert last["applied_revision"] == 1 and last["cannot_apply"] == []
    assert sorted(gateway.peers()) == sorted(client.public_key for client in clients)
    assert "192.168.7.0/24 dev wg0" in run(*inside("gw", "ip", "route", "show", "table", "578700"))
    assert "51820" in run(*inside("gw", "nft", "list", "ruleset"))
    assert last["public_key"] == run(*inside("gw", "wg", "show", "wg0", "public-key")).strip() == gateway.key()


def test_secrets_stay_where_they_belong(lab):
    api, gateway, _ = lab
    deploy(lab, connect=False)
    assert not (gateway.base / "bootstrap.json").exists()
    for name in ("private.key", "agent.json"):
        assert stat.S_IMODE((gateway.base / name).stat().st_mode) == 0o600
    private_key = (gateway.base / "private.key").read_text().strip()
    token = json.loads((gateway.base / "agent.json").read_text())["token"]
    bodies = b"".join(body for _, _, body in api.arrivals).decode()
    for text in (gateway.log.read_text(), bodies):
        assert private_key not in text and token not in text and "once" not in text
    status = open(f"/proc/{gateway.agent.pid}/status").read()
    assert "Uid:\t12345\t12345" in status and "NoNewPrivs:\t1" in status


# Paced: what is sent flat out is counted by the sender and then lost in a socket's buffer.
SERVER = """
import socket, time
s = socket.create_server(('10.1.0.10', 5000))
while True:
    c = s.accept()[0]
    n = 0
    while n < 300000: n += len(c.recv(65536))
    for _ in range(50): c.sendall(b'x' * 4000); time.sleep(0.005)
    c.close()
"""
CLIENT = """
import socket, time
s = socket.create_connection(('10.1.0.10', 5000))
for _ in range(75): s.sendall(b'x' * 4000); time.sleep(0.005)
n = 0
while n < 200000: n += len(s.recv(65536))
"""


def test_metered_is_what_the_clients_counted(lab):
    api, gateway, clients = lab
    deploy(lab)
    server = subprocess.Popen(inside("inst", "/usr/bin/python3", "-c", SERVER))
    try:
        wait_for("the server listens", lambda: "5000" in run(*inside("inst", "ss", "-ltn")))
        for client in clients:
            assert client.ping(count=50, size=1000) == 50
            run(*inside(client.namespace, "/usr/bin/python3", "-c", CLIENT))
    finally:
        server.kill()
        server.wait()
    wait_truth(api, clients)
    assert all(min(api.counted(client.id)) > 250000 for client in clients)
    with api.lock:
        nobody = [record for (_, slot, _), (_, record) in api.totals.items() if slot == 0]
    assert all(record["upload_bytes"] == "0" for record in nobody)


def test_a_change_of_one_peer_disturbs_no_other(lab):
    api, gateway, (steady, changing) = lab
    deploy(lab)
    replies = []
    pinger = threading.Thread(target=lambda: replies.append(steady.ping(count=2000, interval=0.002)))
    pinger.start()
    time.sleep(0.2)
    for turn in range(12):
        extra = f"10.98.{turn}.0/24"
        for change in ({"enabled": False}, {"enabled": True}, {"allowed_ips": [f"{changing.address}/32", extra]},
                       {"keepalive": 5 + turn}):
            revision = api.set_state(peers=[steady.peer(), changing.peer(**change)])
            api.wait_applied(revision)
    pinger.join()
    assert replies == [2000]
    wait_truth(api, [steady])


def test_a_disabled_peer_passes_nothing_and_returns_at_once(lab):
    api, gateway, (steady, changing) = lab
    deploy(lab)
    api.wait_applied(api.set_state(peers=[steady.peer(), changing.peer(enabled=False)]))
    assert gateway.peers() == [steady.public_key]
    assert changing.ping(wait=1) == 0
    # Where the client looks for the gateway from now on there is nobody: unless it is called, it never comes back.
    run(*inside(changing.namespace, "wg", "set", changing.device, "peer", gateway.key(), "endpoint", "198.51.100.99:9"))
    api.wait_applied(api.set_state(peers=[steady.peer(), changing.peer()]))
    wait_for("the gateway has called it", lambda: changing.ping(wait=0.5))
    with api.lock:
        slots = {slot for (_, slot, _), (owner, _) in api.totals.items() if owner == changing.id}
    assert len(slots) == 1


def test_a_prefix_that_moves_is_counted_for_its_new_peer(lab):
    api, gateway, (first, second) = lab
    deploy(lab)
    moved = "10.98.0.1/32"
    run(*inside("inst", "ip", "route", "add", "10.98.0.0/24", "via", "10.1.0.2"))
    for owner, other in ((first, second), (second, first)):
        api.wait_applied(api.set_state(
            peers=[owner.peer(allowed_ips=[f"{owner.address}/32", moved]), other.peer()]))
        run(*inside(owner.namespace, "ip", "addr", "add", moved, "dev", owner.device))
        before = api.counted(owner.id)
        # Of no subnet that the firewall lets through: they are counted, and go no further.
        assert owner.ping(count=5, interval=0.05, wait=1, source=moved[:-3]) == 0
        wait_for("the owner's count grows", lambda: api.counted(owner.id)[0] >= before[0] + 5 * 84)
        run(*inside(owner.namespace, "ip", "addr", "del", moved, "dev", owner.device))
    assert run(*inside("gw", "wg", "show", "wg0", "allowed-ips")).count("10.98.0.1/32") == 1
    wait_truth(api, [first, second])


def test_a_removed_peer_has_its_last_bytes_counted(lab):
    api, gateway, (steady, leaving) = lab
    deploy(lab)
    assert leaving.ping(count=20) == 20
    api.wait_applied(api.set_state(peers=[steady.peer()]))
    assert gateway.peers() == [steady.public_key]
    wait_truth(api, [leaving, steady])
    # The same peer again is another incarnation, or another slot: its total begins at 0.
    api.wait_applied(api.set_state(peers=[steady.peer(), leaving.peer()]))
    leaving.set_peer(gateway.key())
    assert leaving.ping(count=3) == 3
    wait_truth(api, [leaving, steady])
    with api.lock:
        keys = [key for key, (owner, _) in api.totals.items() if owner == leaving.id]
    assert len(keys) == 2


def test_killed_agent_goes_on_with_epoch_and_numbers(lab):
    api, gateway, clients = lab
    deploy(lab)
    replies = []
    pinger = threading.Thread(target=lambda: replies.append(clients[0].ping(count=1500, interval=0.004)))
    pinger.start()
    for _ in range(5):
        time.sleep(0.6)
        gateway.kill_agent()
        time.sleep(0.3)
        gateway.start_agent()
    pinger.join()
    assert replies == [1500]
    wait_truth(api, clients)
    assert len(api.held) == 1
    assert len(api.enrolments) == 1
    assert "adopted the meter" in gateway.log.read_text()


def test_kills_at_any_moment_lose_nothing(lab):
    """At random, with changes of another peer and lost answers in between; the seed is in a failure's output."""
    api, gateway, (steady, changing) = lab
    seed = time.time_ns()
    print("seed", seed)
    random.seed(seed)
    deploy(lab)
    replies = []
    pinger = threading.Thread(target=lambda: replies.append(steady.ping(count=2500, interval=0.004)))
    pinger.start()
    turn = 0
    while pinger.is_alive():
        turn += 1
        api.set_state(peers=[steady.peer(), changing.peer(enabled=bool(turn % 2), keepalive=turn % 7)])
        time.sleep(random.random() * 0.5)
        with api.lock:
            api.lose_replies += random.random() < 0.3
        gateway.kill_agent()
        gateway.start_agent()
    assert replies == [2500]
    wait_truth(api, [steady])
    assert len(api.held) == 1


def test_lost_answers_repeat_the_same_bytes(lab):
    api, gateway, clients = lab
    deploy(lab)
    api.lose_replies = 4
    assert clients[0].ping(count=30) == 30
    wait_for("all answers were lost", lambda: api.lose_replies == 0)
    wait_truth(api, clients)
    by_number = {}
    for epoch, seq, body in api.arrivals:
        by_number.setdefault((epoch, seq), []).append(body)
    repeated = [bodies for bodies in by_number.values() if len(bodies) > 1]
    assert repeated and all(len(set(bodies)) == 1 for bodies in repeated)


@pytest.mark.parametrize("behind", [1, None])
def test_an_answer_to_another_batch_acknowledges_nothing(lab, behind):
    api, gateway, clients = lab
    deploy(lab, connect=False)
    with api.lock:
        before = api.last()["seq"]
        # Nothing is committed; the answer is to the batch before, or to none.
        api.refuse = (200, {"held_seq": before, "watch_until": None, "revision": 0} if behind else {})
    wait_for("what follows", lambda: api.last()["seq"] >= before + 3)
    assert api.refuse is None and api.conflicts == []


def test_reports_queue_while_the_api_is_away(lab):
    api, gateway, clients = lab
    deploy(lab)
    run("ip", "link", "set", "pub-gw", "down")
    time.sleep(2.5)
    gateway.agent.kill()  # what it had sent stays under way
    gateway.agent.wait()
    gateway.start_agent()
    time.sleep(1.5)
    run("ip", "link", "set", "pub-gw", "up")
    # What is sent before the cable carries again, the client counts and the gateway never sees.
    wait_for("the cable carries", lambda: "state forwarding" in run("bridge", "link", "show", "dev", "pub-gw")
             and "state UP" in run(*inside("gw", "ip", "link", "show", "pub0")))
    assert clients[0].ping(count=5) == 5
    wait_truth(api, clients)


def test_a_refused_batch_is_sent_with_todays_date(lab):
    api, gateway, clients = lab
    deploy(lab)
    api.refuse = (400, {"title": "now is off"})
    assert clients[0].ping(count=10) == 10
    wait_for("the refusal was given", lambda: api.refuse is None)
    wait_truth(api, clients)


def test_limit_suspends_and_a_newer_grant_resumes(lab):
    api, gateway, (client, _) = lab
    deploy(lab)
    counted = int(api.last()["grant"]["cycle_counted"])
    api.grant = {"cycle": 202611, "grant_seq": 2, "ceiling": str(counted + 2_000_000), "mask": "both"}
    api.wait_applied(api.set_state())
    client.ping(count=1000, interval=0.002, size=1300, wait=1)
    wait_for("exhausted is reported", lambda: api.last()["grant"]["exhausted"])
    wait_for("suspended", lambda: api.last()["states"] and api.last()["states"][-1]["state"] == "suspended")
    assert client.ping(wait=1) == 0
    assert int(api.last()["grant"]["cycle_counted"]) <= counted + 2_000_000
    api.grant = {"cycle": 202611, "grant_seq": 3, "ceiling": str(counted + 9_000_000), "mask": "both"}
    api.wait_applied(api.set_state())
    assert client.ping() == 1
    wait_for("active again", lambda: api.last()["states"] and api.last()["states"][-1]["state"] == "active")


def test_admin_refusal_stops_every_packet(lab):
    api, gateway, (client, _) = lab
    deploy(lab)
    api.wait_applied(api.set_state(refuse=["admin"]))
    assert client.ping(wait=1) == 0
    wait_for("suspended", lambda: api.last()["states"] and api.last()["states"][-1]["state"] == "suspended")
    api.wait_applied(api.set_state(refuse=[]))
    assert client.ping() == 1


def test_stopped_agent_leaves_the_gateway_metering(lab):
    api, gateway, clients = lab
    deploy(lab)
    gateway.agent.send_signal(signal.SIGTERM)
    assert gateway.agent.wait(timeout=60) == 1
    assert gateway.is_up()
    assert clients[1].ping(count=25) == 25
    gateway.start_agent()
    wait_truth(api, clients)
    assert len(api.held) == 1


def test_deleted_gateway_reports_its_last_bytes_and_ends(lab):
    api, gateway, clients = lab
    deploy(lab)
    assert clients[0].ping(count=40, size=900) == 40
    api.delete()
    assert gateway.agent.wait(timeout=60) == 0
    assert not gateway.is_up()
    assert api.last()["epoch"]["final"] is True
    assert [api.counted(c.id) for c in clients] == [c.counters() for c in clients]


def test_deleting_survives_a_kill(lab):
    api, gateway, clients = lab
    deploy(lab)
    assert clients[0].ping(count=10) == 10
    api.lose_replies = 1000
    api.delete()
    wait_for("the final batch is held", lambda: api.last()["epoch"]["final"])
    gateway.kill_agent()
    api.lose_replies = 0
    gateway.start_agent()
    assert gateway.agent.wait(timeout=60) == 0
    assert sum(batch["epoch"]["final"] for batch in api.batches) == 1
    assert [api.counted(c.id) for c in clients] == [c.counters() for c in clients]


def test_a_killed_device_is_a_new_epoch_behind_a_sealed_one(lab):
    api, gateway, clients = lab
    deploy(lab)
    assert clients[0].ping(count=30) == 30
    first = api.last()["epoch"]["id"]
    gateway.wireguard.kill()
    gateway.wireguard.wait()
    assert gateway.agent.wait(timeout=60) == 1
    gateway.start_wireguard()
    gateway.start_agent()
    wait_for("a new epoch", lambda: api.last()["epoch"]["id"] != first)
    wait_for("the gateway is up", lambda: api.last()["states"] and api.last()["states"][-1]["state"] == "active")
    sealed = [batch for batch in api.batches if batch["epoch"]["id"] == first]
    assert sealed[-1]["epoch"]["final"] is True
    # What was sent to the dead device is the clients' loss; from here on nothing is lost.
    for client in clients:
        client.set_peer(gateway.key())
        wait_for("the client passes again", lambda: client.ping(wait=1))

    def missing():
        return [t - c for client in clients for t, c in zip(client.counters(), api.counted(client.id))]

    lost = wait_stable(api, missing)
    assert clients[0].ping(count=30) == 30 and clients[1].ping(count=20) == 20
    assert wait_stable(api, missing) == lost


def test_a_new_attempt_takes_over_under_a_new_generation(lab):
    api, gateway, clients = lab
    deploy(lab)
    gateway.kill_agent()
    assert clients[0].ping(count=10) == 10
    gateway.write_bootstrap(attempt=2)
    gateway.start_agent()
    wait_for("the second enrolment", lambda: api.generation == 2)
    wait_truth(api, clients)
    wait_for("a batch of the new generation", lambda: api.last()["generation"] == 2)
    assert api.enrolments[1]["attempt"] == 2


def test_I8_a_new_attempt_sends_what_its_predecessor_did_not_know_to_be_taken(lab):
    """The same bytes, so that the API knows them: another text under the same number is what a machine put back in time says."""
    api, gateway, clients = lab
    deploy(lab)
    with api.lock:
        api.lose_replies = 10**6
        held = api.held[api.last_epoch()][0]
    assert clients[0].ping(count=10) == 10
    wait_for("a batch whose acknowledgement is lost", lambda: api.held[api.last_epoch()][0] > held)
    gateway.kill_agent()
    with api.lock:
        api.lose_replies, epoch = 0, api.last_epoch()
        taken = api.held[epoch][0]
    gateway.write_bootstrap(attempt=2)
    gateway.start_agent()
    wait_for("the second enrolment", lambda: api.generation == 2)
    assert clients[0].ping(count=10) == 10
    wait_truth(api, clients)
    assert api.held[epoch][0] > taken and api.last_epoch() == epoch and api.conflicts == []
    assert len({body for of, seq, body in api.arrivals if (of, seq) == (epoch, taken)}) == 1


def test_a_restored_database_is_filled_again_from_the_journal(lab):
    api, gateway, clients = lab
    deploy(lab)
    assert clients[0].ping(count=20) == 20
    wait_for("some batches", lambda: len(api.batches) >= 5)
    with api.lock:
        epoch = api.last_epoch()
        before = dict(api.checksums)
        api.forget(epoch, behind=2)
    assert clients[0].ping(count=10) == 10
    wait_for("all is held again", lambda: api.held[epoch][0] > max(seq for _, seq in before))
    assert all(api.checksums[key] == crc for key, crc in before.items())
    assert {reason for reason, _ in api.conflicts} == {"gap"}
    api.conflicts.clear()
    wait_truth(api, clients)


@pytest.mark.parametrize("reason", ["rolled_back", "implausible"])
def test_m2_an_epoch_that_the_api_refuses_is_given_up(lab, reason):
    """A new one begins under traffic: nobody notices it, and of the old one the API takes no more."""
    api, gateway, clients = lab
    deploy(lab)
    with Echoes(clients[0]) as echoes:
        with api.lock:
            first = api.last_epoch()
            if reason == "implausible":
                api.implausible.add(first)
                held = api.held[first]
            else:
                held = api.held[first] = (1000, 1)
        assert gateway.agent.wait(timeout=60) == 1
        assert gateway.is_up()
        gateway.start_agent()
        wait_for("a new epoch", lambda: api.last_epoch() != first)
        echoes.wait_more(40)
    assert echoes.lost == []
    assert [batch["seq"] for batch in api.batches if batch["epoch"]["id"] != first][0] == 1
    assert api.held[first] == held and {said for said, _ in api.conflicts} == {reason}
    api.conflicts.clear()


def test_I10_a_fenced_agent_stops(lab):
    api, gateway, _ = lab
    deploy(lab, connect=False)
    api.generation += 1
    assert gateway.agent.wait(timeout=60) == 1
    assert "fenced" in gateway.log.read_text()
    assert gateway.is_up()


def test_an_attempt_that_is_over_ends_for_good(lab):
    api, gateway, _ = lab
    deploy(lab, connect=False)
    api.refuse = (410, {})
    assert gateway.agent.wait(timeout=60) == 0
    assert not gateway.is_up()


def test_a_wrong_certificate_is_not_talked_to(lab):
    api, gateway, _ = lab
    other = gateway.base.parent / "other.pem"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=wiretoll-api", "-addext", "subjectAltName=DNS:wiretoll-api",
        "-keyout", gateway.base.parent / "other.key", "-out", other)
    api.ca_pem = other.read_text()
    gateway.write_bootstrap()
    gateway.start_wireguard()
    gateway.start_agent()
    wait_for("the refusal is logged", lambda: "could not enrol" in gateway.log.read_text())
    assert api.enrolments == []


def test_what_cannot_be_applied_is_told_and_the_rest_holds(lab):
    api, gateway, (first, second) = lab
    deploy(lab, connect=False)
    revision = api.set_state(peers=[first.peer(), second.peer(allowed_ips=["10.99.0.3/24"])])
    wait_for("the complaint", lambda: api.last()["cannot_apply"])
    assert "allowed_ips" in api.last()["cannot_apply"][0]["reason"]
    assert api.last()["applied_revision"] == revision - 1
    assert len(gateway.peers()) == 2


def test_changes_are_in_force_at_once(lab):
    api, gateway, (first, second) = lab
    deploy(lab, connect=False)
    times = []
    for turn in range(30):
        begin = time.monotonic()
        revision = api.set_state(peers=[first.peer(), second.peer(enabled=bool(turn % 2))])
        with api.lock:
            assert api.lock.wait_for(lambda: api.last()["applied_revision"] >= revision, timeout=60)
        times.append(time.monotonic() - begin)
        assert len(gateway.peers()) == 1 + turn % 2
    # Each time, were it not for what else the machine does.
    assert sorted(times)[7] < 0.1, times


def test_c3_an_endpoint_given_by_name_is_resolved_or_told(lab, tmp_path):
    api, gateway, (first, second) = lab
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n198.51.100.21 site.test\n")
    run("mount", "--bind", hosts, "/etc/hosts")  # this envelope's only
    try:
        deploy(lab, connect=False)
        api.wait_applied(api.set_state(peers=[first.peer(endpoint="site.test:51999"), second.peer(endpoint="no.test:1")]))
        wait_for("the endpoint", lambda: "198.51.100.21:51999" in run(*inside("gw", "wg", "show", "wg0", "endpoints")))
        # C3: the report says it as long as it is so, the log once.
        def told():
            return [entry for entry in api.last()["cannot_apply"] if entry["what"] == f"peer {second.id}: endpoint"]

        wait_for("the complaint", told)
        assert "could not resolve the endpoint no.test:1: " in told()[0]["reason"]
        seen = len(api.batches)
        wait_for("five more reports", lambda: len(api.batches) >= seen + 5)
        assert len(told()) == 1 and gateway.log.read_text().count("no.test:1") == 1
        hosts.write_text(hosts.read_text() + "198.51.100.22 no.test\n")
        wait_for("it is said no longer", lambda: not told())
        assert "198.51.100.22:1" in run(*inside("gw", "wg", "show", "wg0", "endpoints"))
    finally:
        run("umount", "/etc/hosts")


def test_I10_one_agent_at_a_time(lab):
    api, gateway, _ = lab
    deploy(lab, connect=False)
    second = subprocess.run(inside("gw", *unprivileged(BIN / "wiretoll-agent", "--base", gateway.base, "--bpf", gateway.bpf)),
                            capture_output=True, text=True, timeout=60)
    assert second.returncode == 1 and "could not lock" in second.stderr


def test_memory_stays_small(lab):
    api, gateway, _ = lab
    if "sanitize" in str(BIN):
        pytest.skip("sanitizers need more memory than the program")
    deploy(lab)
    time.sleep(3)
    status = open(f"/proc/{gateway.agent.pid}/status").read()
    assert int(status.split("RssAnon:")[1].split()[0]) < 6 * 1024


@pytest.mark.parametrize("arguments, status, words", [
    (["--help"], 0, "Usage: wiretoll-agent"),
    (["--version"], 0, "wiretoll-agent "),
    ([], 2, "--base DIR and --bpf DIR are required"),
    (["--base", "/nowhere"], 2, "--base DIR and --bpf DIR are required"),
    (["--base", "/nowhere", "--bpf", "/nowhere", "--log-level", "loud"], 2, "loud"),
    (["--base", "/nowhere", "--bpf", "/nowhere", "more"], 2, "more"),
    (["--base", "/nowhere", "--bpf", "/nowhere"], 1, "could not open /nowhere"),
])
def test_command_line(arguments, status, words):
    done = subprocess.run([BIN / "wiretoll-agent", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert words in (done.stdout if status == 0 else done.stderr)


def as_site(client, inner, endpoint, network):
    """The client becomes a site that is called and does not call: its outer address lies within what it is allowed."""
    run(*inside(client.namespace, "ip", "addr", "add", f"{endpoint}/32", "dev", "lo"))
    run("ip", "route", "add", f"{endpoint}/32", "via", {"c1": "198.51.100.21", "c2": "198.51.100.22"}[client.namespace], "dev", "pub")
    run(*inside(client.namespace, "ip", "route", "replace", "198.51.100.10/32", "via", "198.51.100.1", "src", endpoint))
    run(*inside(client.namespace, "ip", "addr", "add", f"{inner}/32", "dev", client.device))
    run(*inside(client.namespace, "wg", "set", client.device, "listen-port", "51999"))
    run(*inside(client.namespace, "wg", "set", client.device, "peer", client.gateway_key, "remove"))
    run(*inside(client.namespace, "wg", "set", client.device, "peer", client.gateway_key, "allowed-ips", "10.0.0.0/8"))
    return client.peer(endpoint=f"{endpoint}:51999", keepalive=1, allowed_ips=[f"{client.address}/32", *network])


def test_f8_an_endpoint_within_a_sites_own_and_anothers_allowed_ips(lab):
    """Both sites' outer addresses lie in the network of the first, which is routed into the tunnel; another peer loses nothing."""
    api, gateway, (first, second) = lab
    deploy(lab, connect=False)
    run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    run(*inside("gw", "ip", "route", "add", "default", "via", "198.51.100.1"))
    for client in (first, second):
        client.gateway_key = gateway.key()
        client.connect(gateway.key())
    peers = [as_site(first, "203.0.113.100", "203.0.113.5", ["203.0.113.0/25"]),
             as_site(second, "203.0.113.200", "203.0.113.6", ["203.0.113.200/32"])]
    networks = ["203.0.113.0/25", "203.0.113.200/32"]
    run(*inside("inst", "ip", "route", "add", "203.0.113.0/24", "via", "10.1.0.2"))
    # The routes first: the very first handshake finds them there, as after a restart.
    silent = [{**peer, "endpoint": None, "keepalive": 0} for peer in peers]
    api.wait_applied(api.set_state(**{**STATE, "firewall": {**STATE["firewall"], "remote_subnets": networks}, "routes": networks}, peers=silent))
    api.wait_applied(api.set_state(peers=peers))
    for client, inner in ((first, "203.0.113.100"), (second, "203.0.113.200")):
        wait_for("the gateway's handshake", lambda: int(run(*inside(
            client.namespace, "wg", "show", client.device, "latest-handshakes")).split()[1] or 0) > 0)
        # Both ways: what a site begins, and what the VPC begins; the inner packets go into the tunnel, the outer ones never.
        wait_for("the site reaches the VPC", lambda: echo(client.namespace, "10.1.0.10", source=inner) == 1)
        wait_for("the VPC reaches the site", lambda: echo("inst", inner) == 1)
    endpoints = run(*inside("gw", "wg", "show", "wg0", "endpoints"))
    assert "203.0.113.5:51999" in endpoints and "203.0.113.6:51999" in endpoints
    wait_truth(api, [first, second])
    assert all(min(api.counted(client.id)) > 0 for client in (first, second))
    # A change of one site's allowed IPs while the other's packets pass: not one of them is lost.
    with Echoes(second) as echoes:
        echoes.wait_more(50)
        changed = {**peers[0], "allowed_ips": [*peers[0]["allowed_ips"], "192.168.8.0/24"]}
        api.wait_applied(api.set_state(peers=[changed, peers[1]], routes=[*networks, "192.168.8.0/24"]))
        echoes.wait_more(50)
    assert echoes.lost == []
    wait_truth(api, [first, second])
