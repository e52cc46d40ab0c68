# SPDX-License-Identifier: BSD-2-Clause
"""`wiretoll up` with the real agent: a gateway from the order to nothing, through the ends of everything around it."""

import json
import os
import signal
import socket
import ssl
import urllib.request
from pathlib import Path

import pytest

from deploy_lab import PATIENCE, Snapshot, make_networks, run, wait_for
from test_deploy_up import PORT, Up, remnants


class Api:
    def __init__(self, up):
        self.context = ssl.create_default_context(cafile=str(up.state / "api/ca.pem"))
        self.context.check_hostname = False
        self.token = None
        self.token = self.call("POST", "/v1/login", {"one_time_token": (up.state / "admin-token").read_text().strip()})["token"]

    def call(self, method, path, body=None):
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(f"https://127.0.0.1:{PORT}{path}", method=method, headers=headers,
                                         data=json.dumps(body).encode() if body is not None else None)
        with urllib.request.urlopen(request, context=self.context, timeout=PATIENCE) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    def order_gateway(self):
        """An operator's offer and a customer's VPC, and the gateway in it."""
        image = self.call("POST", "/v1/images", {"name": "gateway", "purpose": "vpn_gateway", "path": "/", "enabled": True})
        plan = self.call("POST", "/v1/plans", {"name": "small", "cpu": 1, "ram_mb": 512, "storage_gb": 4, "included_gb": "1"})
        group = self.call("POST", "/v1/plan-groups", {"name": "plans", "plans": [plan["id"]]})
        self.call("POST", "/v1/locations", {
            "name": "L", "vpn_enabled": True, "credit_value": "5", "bandwidth_rate": "0.1", "accounting": "both",
            "overage": "none", "image": image["id"], "plan_group": group["id"]})
        user = self.call("POST", "/v1/users", {"name": "alice", "email": "alice@example.net", "role": "user"})
        self.call("POST", "/v1/hypervisors", {"name": socket.gethostname(), "location": "L", "driver": "netns", "cpu": 8,
                                              "ram_mb": 8192, "storage_gb": 100})
        self.call("POST", "/v1/vpcs", {"name": "prod", "owner": user["id"], "location": "L", "subnets": [
            {"cidr": "10.1.0.0/24", "public": False, "gateway_range": "10.1.0.2-10.1.0.9", "router": None,
             "attachment": {"bridge": "vpc1", "route_netns": ["i1"]}},
            {"cidr": "198.51.100.0/24", "public": True, "gateway_range": "198.51.100.10-198.51.100.19", "router": None,
             "attachment": {"bridge": "public", "route_netns": []}}]})
        return self.call("POST", "/v1/gateways", {"vpc": "prod", "plan": "small", "name": "gw"})["id"]

    def status(self, gateway):
        return self.call("GET", f"/v1/gateways/{gateway}")["status"]


@pytest.fixture(scope="module")
def networks():
    make_networks()


@pytest.fixture
def ordered(networks):
    before = Snapshot()
    # Gateways reach the API at the host's address on the public bridge.
    up = Up(f"/run/whole-{len(os.listdir('/run'))}", ["127.0.0.1", "198.51.100.1"]).start()
    api = Api(up)
    gateway = api.order_gateway()
    wait_for("the gateway is active", lambda: api.status(gateway) == "active")
    yield up, api, gateway
    print(up.out.read_text())
    for log in (up.state / "log").glob("*/agent.log"):
        print(log.read_text())
    run(*up.command("--down"))
    if up.process:
        assert up.process.wait(PATIENCE) == 0
    assert remnants() == [] and Snapshot() == before


def programs(up, gateway):
    return [int((up.run_folder / "gw" / gateway / f"{name}.pid").read_text().split()[0]) for name in ("agent", "wireguard")]


def wg0(gateway):
    return run("ip", "-n", f"wt-{gateway[:8]}-1", "-o", "link", "show", "wg0", check=False)


def test_deleted_and_nothing_is_left(ordered):
    up, api, gateway = ordered
    assert ",UP" in wg0(gateway)
    folder = up.state / "gw" / gateway
    assert not (folder / "bootstrap.json").exists(), "the token is traded"
    api.call("DELETE", f"/v1/gateways/{gateway}")
    wait_for("it is deleted", lambda: api.call("GET", "/v1/gateways")["items"] == [])
    assert not folder.exists() and f"wt-{gateway[:8]}-1" not in os.listdir("/run/netns")
    assert "agent of gateway" in up.out.read_text() and "is done" in up.out.read_text(), "it said its last word"


def test_goes_on_without_the_control_plane(ordered):
    up, api, gateway = ordered
    pids = programs(up, gateway)
    up.stop(signal.SIGKILL)
    wait_for("the control plane is gone", lambda: not [p for p in remnants() if "wiretoll-agent" not in p])
    assert programs(up, gateway) == pids and all(Path(f"/proc/{pid}").exists() for pid in pids)
    assert ",UP" in wg0(gateway)
    up.start()
    wait_for("adoption", lambda: up.out.read_text().count("info: adopted") == 2)
    assert programs(up, gateway) == pids
    assert api.status(gateway) == "active"


def test_comes_back_after_down(ordered):
    up, api, gateway = ordered
    key = api.call("GET", f"/v1/gateways/{gateway}")["public_key"]
    run(*up.command("--down"))
    assert up.process.wait(PATIENCE) == 0 and remnants() == []
    assert f"wt-{gateway[:8]}-1" not in os.listdir("/run/netns")
    up.start()
    wait_for("the device is up again", lambda: ",UP" in wg0(gateway))
    assert api.call("GET", f"/v1/gateways/{gateway}")["public_key"] == key
