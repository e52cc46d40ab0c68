# SPDX-License-Identifier: BSD-2-Clause
"""The command line against the real API. What it has done is read back through the API itself."""

import json
import os
import pty
import re
import secrets
import select
import stat
import subprocess
import time
import types
import uuid
from pathlib import Path

import pytest
from simulated_agent import Agent, token_hash

REPOSITORY = Path(__file__).resolve().parents[2]
WIRETOLL = Path(os.environ.get("WIRETOLL_BIN", REPOSITORY / "build/bin")).resolve() / "wiretoll"


class Cli:
    """A login of its own: one configuration file."""

    def __init__(self, folder):
        self.config = folder / "login" / "config.json"
        self.env = {"PATH": os.environ["PATH"], "WIRETOLL_CONFIG": str(self.config)}

    def run(self, *arguments, stdin="", status=0):
        done = subprocess.run([WIRETOLL, *map(str, arguments)], input=stdin, capture_output=True, text=True,
                              timeout=60, env=self.env)
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return types.SimpleNamespace(out=done.stdout, err=done.stderr)

    def json(self, *arguments, stdin=""):
        return json.loads(self.run(*arguments, "--json", stdin=stdin).out)

    def login(self, api, token):
        self.run("login", api.url, "--ca-fingerprint", api.ca_fingerprint, stdin=token + "\n")

    def on_terminal(self, *arguments, answers):
        """Runs with a terminal; answers are pairs (what is asked, what is typed). Returns status and output."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(WIRETOLL, [str(WIRETOLL), *arguments], self.env)
        answers, output, deadline = list(answers), b"", time.monotonic() + 60
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                read = os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
            if not read:
                break
            output += read
            if answers and answers[0][0].encode() in output:
                os.write(terminal, answers.pop(0)[1].encode())
        os.close(terminal)  # one that still waits for an answer ends with it
        status = os.waitpid(pid, 0)[1]
        return os.waitstatus_to_exitcode(status), output.decode()


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path)


@pytest.fixture
def admin(api, cli):
    cli.login(api, api.one_time_admin_token())
    return cli


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def read(api, path):
    status, answer = api.request("GET", path, token=api.admin_token)
    assert status == 200, (path, answer)
    return answer


@pytest.fixture
def cloud(api, admin):
    """A location that has gateways on, with a plan, a hypervisor, a user and a VPC of that user's."""
    names = types.SimpleNamespace(**{kind: unique(kind) for kind in ("image", "plan", "group", "location", "host", "user", "vpc")})
    admin.run("image", "create", names.image, "--purpose", "vpn_gateway", "--path", "/", "--enabled", "on")
    admin.run("plan", "create", names.plan, "--cpu", 1, "--ram-mb", 64, "--storage-gb", 1, "--included-gb", "0.01")
    admin.run("plan-group", "create", names.group, "--plans", names.plan)
    admin.run("location", "create", names.location, "--credit-value", "7.44", "--bandwidth-rate", "0.1", "--accounting", "both",
              "--overage", "charge_overage", "--plan-group", names.group, "--vpn", "on")
    admin.run("hypervisor", "create", names.host, "--location", names.location, "--driver", "netns", "--cpu", 8, "--ram-mb", 4096,
              "--storage-gb", 100)
    admin.run("user", "create", names.user, "--email", f"{names.user}@example.org", "--role", "user")
    admin.run("vpc", "create", names.vpc, "--owner", names.user, "--location", names.location,
              "--subnet", "10.1.0.0/24,bridge=br-vpc,range=10.1.0.2-10.1.0.9,route-netns=i1,route-netns=i2",
              "--public-subnet", "198.51.100.0/24,bridge=br-pub,range=198.51.100.10-198.51.100.200,router=198.51.100.1")
    return names


@pytest.fixture
def customer(api, admin, cloud, tmp_path):
    """The user of `cloud`, logged in with a token that the admin has made."""
    login = Cli(tmp_path / "customer")
    login.login(api, admin.run("user", "login-token", cloud.user).out.strip())
    return login


@pytest.fixture
def gateway(customer, cloud):
    return customer.json("gateway", "create", "--vpc", cloud.vpc, "--plan", cloud.plan, "--name", unique("gw"))


def claim(api, cloud, gateway):
    """What the worker does first."""
    host = read(api, f"/v1/hypervisors/{cloud.host}")["id"]
    claimed = api.sql("SELECT gateway::text FROM gateway.claim_job('test', %s, interval '1 minute')", host)
    assert claimed == [(gateway,)]


def deploy(api, cloud, gateway):
    """What the worker and an agent do for a gateway that waits for them. Returns the agent."""
    claim(api, cloud, gateway)

    def one_time_token(attempt):
        token = secrets.token_urlsafe(32)
        assert api.sql("SELECT gateway.set_enroll_token('test', %s, %s, %s, now() + interval '1 minute')", gateway, attempt,
                       token_hash(token)) == [(True,)]
        return token

    agent = Agent(types.SimpleNamespace(api=api, id=gateway, one_time_token=one_time_token))
    agent.activate()
    return agent


def new_key():
    private = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout
    return subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout.strip()


# ---- login ----------------------------------------------------------------------------------------------


def test_login_stores_url_ca_and_token_for_the_owner_alone(api, cli):
    cli.login(api, api.one_time_admin_token())
    assert stat.S_IMODE(cli.config.stat().st_mode) == 0o600
    assert stat.S_IMODE(cli.config.parent.stat().st_mode) == 0o700
    stored = json.loads(cli.config.read_text())
    der = subprocess.run(["openssl", "x509", "-outform", "der"], input=stored["ca_pem"].encode(), capture_output=True, check=True)
    digest = subprocess.run(["sha256sum"], input=der.stdout, capture_output=True, check=True).stdout.split()[0].decode()
    assert digest == api.ca_fingerprint.replace(":", "").lower()
    assert api.request("GET", "/v1/me", token=stored["token"])[0] == 200


def test_login_takes_the_token_from_a_file(api, cli, tmp_path):
    token = tmp_path / "token"
    token.write_text(api.one_time_admin_token())
    cli.run("login", api.url, "--ca-fingerprint", api.ca_fingerprint, "--token-file", token)
    assert cli.json("whoami")["role"] == "admin"


def test_login_without_a_terminal_needs_the_fingerprint(api, cli):
    said = cli.run("login", api.url, stdin=api.one_time_admin_token() + "\n", status=1).err
    assert "--ca-fingerprint" in said
    assert not cli.config.exists()


def test_login_with_another_fingerprint_sends_no_token(api, cli):
    token = api.one_time_admin_token()
    said = cli.run("login", api.url, "--ca-fingerprint", "00" * 32, stdin=token + "\n", status=1).err
    assert api.ca_fingerprint.replace(":", "").lower() in said
    assert not cli.config.exists()
    cli.login(api, token)  # it was never traded


def test_login_on_a_terminal_shows_the_fingerprint_and_asks(api, cli):
    fingerprint = api.ca_fingerprint.replace(":", "").lower()
    status, shown = cli.on_terminal("login", api.url, answers=[("[y/N]", "n\n")])
    assert status == 1 and fingerprint in shown and not cli.config.exists()

    token = api.one_time_admin_token()
    status, shown = cli.on_terminal("login", api.url, answers=[("[y/N]", "y\n"), ("token: ", token + "\n")])
    assert status == 0 and token not in shown
    assert cli.json("whoami")["role"] == "admin"


def test_a_used_token_is_refused(api, cli):
    token = api.one_time_admin_token()
    cli.login(api, token)
    cli.config.unlink()
    said = cli.run("login", api.url, "--ca-fingerprint", api.ca_fingerprint, stdin=token + "\n", status=1).err
    assert said.startswith("wiretoll: ") and token not in said
    assert not cli.config.exists()


def test_only_the_pinned_ca_is_trusted(admin, tmp_path):
    other = tmp_path / "other.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
                    tmp_path / "other.key", "-out", other, "-subj", "/CN=other", "-days", "1"], check=True, capture_output=True)
    stored = json.loads(admin.config.read_text())
    admin.config.write_text(json.dumps({**stored, "ca_pem": other.read_text()}))
    said = admin.run("whoami", status=1).err  # C5
    assert "is not of the CA that is trusted" in said and "wiretoll login" in said and "SSL" not in said and "openssl" not in said.lower()


def test_logout_revokes_the_token(api, admin):
    token = json.loads(admin.config.read_text())["token"]
    admin.run("logout")
    assert not admin.config.exists()
    assert api.request("GET", "/v1/me", token=token)[0] == 401
    assert "not logged in" in admin.run("whoami", status=1).err


# ---- plain nouns ----------------------------------------------------------------------------------------


PLAIN = [
    ("plan", "/v1/plans", ["--cpu", 2, "--ram-mb", 512, "--storage-gb", 4, "--included-gb", "10.5"],
     {"cpu": 2, "ram_mb": 512, "storage_gb": 4, "included_gb": "10.5"}, ["--cpu", 3, "--unlimited"], {"cpu": 3, "included_gb": None}),
    ("image", "/v1/images", ["--purpose", "vpn_gateway", "--path", "/", "--enabled", "on"], {"purpose": "vpn_gateway", "enabled": True},
     ["--enabled", "off"], {"enabled": False}),
    ("user", "/v1/users", ["--email", "{name}@example.org", "--role", "user"], {"role": "user", "max_gateways": 5},
     ["--max-gateways", 0, "--no-email"], {"max_gateways": 0, "email": None}),
    ("location", "/v1/locations", ["--credit-value", "7.2", "--bandwidth-rate", "0.1", "--accounting", "both", "--overage", "revoke_access", "--site-ranges", "10.0.0.0/8,fd00::/8"],
     {"accounting": "both", "overage": "revoke_access", "vpn_enabled": False, "site_ranges": ["10.0.0.0/8", "fd00::/8"]}, [], None),
]


def as_number(value):
    """Decimals compare by value: the database may add zeros."""
    from decimal import Decimal
    return Decimal(value) if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value) else value


@pytest.mark.parametrize("noun, path, fields, expected, edits, edited", PLAIN, ids=[row[0] for row in PLAIN])
def test_plain_nouns_are_created_shown_edited_and_deleted(api, admin, noun, path, fields, expected, edits, edited):
    name = unique(noun)
    made = admin.json(noun, "create", name, *[str(field).format(name=name) for field in fields])
    stored = read(api, f"{path}/{made['id']}")
    assert stored["name"] == name
    assert {key: as_number(stored[key]) for key in expected} == {key: as_number(value) for key, value in expected.items()}
    assert admin.json(noun, "show", name) == stored
    assert name in admin.run(noun, "show", name).out
    assert name in [item["name"] for item in admin.json(noun, "list")]
    assert name in admin.run(noun, "list").out
    if edits:
        admin.run(noun, "edit", name, *edits)
        stored = read(api, f"{path}/{made['id']}")
        assert {key: stored[key] for key in edited} == edited
    admin.run(noun, "delete", name)
    assert api.request("GET", f"{path}/{made['id']}", token=api.admin_token)[0] == 404
    assert name in admin.run(noun, "show", name, status=1).err


def test_plan_groups_keep_their_order(api, admin):
    plans = [unique("plan") for _ in range(3)]
    for plan in plans:
        admin.run("plan", "create", plan, "--cpu", 1, "--ram-mb", 64, "--storage-gb", 1, "--unlimited")
    ids = [admin.json("plan", "show", plan)["id"] for plan in plans]
    made = admin.json("plan-group", "create", unique("group"), "--plans", ",".join(reversed(plans)))
    assert read(api, f"/v1/plan-groups/{made['id']}")["plans"] == ids[::-1]


def test_a_body_comes_from_a_file_or_standard_input_and_options_go_over_it(admin, tmp_path):
    body = {"name": unique("plan"), "cpu": 1, "ram_mb": 64, "storage_gb": 1, "included_gb": "2"}
    made = admin.json("plan", "create", "--json-file", "-", "--cpu", 4, stdin=json.dumps(body))
    assert (made["name"], made["cpu"]) == (body["name"], 4)
    file = tmp_path / "body.json"
    file.write_text(json.dumps({**body, "name": unique("plan")}))
    assert admin.json("plan", "create", "--json-file", file)["cpu"] == 1
    file.write_text("[]")
    assert "object" in admin.run("plan", "create", "--json-file", file, status=1).err


def test_lists_follow_the_pages_and_stop_at_the_limit(api, admin):
    names = {unique("many") for _ in range(203)}
    for name in names:
        body = {"name": name, "cpu": 1, "ram_mb": 1, "storage_gb": 1, "included_gb": None}
        assert api.request("POST", "/v1/plans", body, api.admin_token)[0] == 201
    listed = [item["name"] for item in admin.json("plan", "list")]
    assert names <= set(listed) and len(listed) == len(set(listed))
    assert len(admin.json("plan", "list", "--limit", 201)) == 201
    assert len(admin.json("plan", "list", "--limit", 2)) == 2


def test_c11_a_list_that_was_cut_says_so(admin):
    for _ in range(2):
        admin.run("plan", "create", unique("plan"), "--cpu", 1, "--ram-mb", 1, "--storage-gb", 1, "--unlimited")
    said = admin.run("plan", "list", "--limit", 1, "--json")
    assert len(json.loads(said.out)) == 1 and "more than these 1" in said.err
    everything = admin.run("plan", "list", "--json")
    assert everything.err == ""
    assert admin.run("plan", "list", "--limit", len(json.loads(everything.out))).err == ""
    assert "--limit" in admin.run("plan", "list", "--limit", 0, status=2).err


def test_c10_lists_show_names(admin, cloud):
    assert re.search(rf"^{cloud.host} +{cloud.location} +netns", admin.run("hypervisor", "list").out, re.MULTILINE)
    assert re.search(rf"^{cloud.group} +{cloud.plan} ", admin.run("plan-group", "list").out, re.MULTILINE)


@pytest.mark.parametrize("command", [["gateway", "show"], ["plan", "show"], ["peer", "list"], ["gateway", "log"], ["gateway", "delete"], ["plan", "delete"]])
def test_c2_an_empty_name_names_nothing(admin, command):
    said = admin.run(*command, "", status=2)
    assert "is empty" in said.err and said.out == ""


def test_c2_an_empty_option_names_nobody(admin):
    for command in (["usage", "--user", ""], ["report", "--user="], ["report", "--cycle", ""]):
        assert "not empty" in admin.run(*command, status=2).err


def test_c6_a_bridge_in_a_location_without_hypervisors(admin, cloud):
    location = unique("empty")
    admin.run("location", "create", location, "--credit-value", 0, "--bandwidth-rate", 0, "--accounting", "both", "--overage", "none")
    said = admin.run("vpc", "create", unique("vpc"), "--owner", cloud.user, "--location", location, "--subnet", "10.9.0.0/24,bridge=br9", status=1)
    assert "has no hypervisor yet" in said.err and "br9" in said.err
    other = admin.run("vpc", "create", unique("vpc"), "--owner", cloud.user, "--location", location, "--subnet",
                      f"10.9.0.0/24,bridge=br9,hypervisor={cloud.host}", status=1)
    assert cloud.host in other.err and "not in the VPC's location" in other.err


def test_vpcs_take_subnets_as_options(api, cloud):
    private, public = sorted(read(api, f"/v1/vpcs/{cloud.vpc}")["subnets"], key=lambda subnet: subnet["public"])
    assert private["cidr"] == "10.1.0.0/24" and private["gateway_range"] == "10.1.0.2-10.1.0.9"
    assert private["attachment"] == {"hypervisor": cloud.host, "bridge": "br-vpc", "route_netns": ["i1", "i2"]}
    assert public["cidr"] == "198.51.100.0/24" and public["router"] == "198.51.100.1"


def test_vpcs_are_put_by_the_clouds_own_id_and_editing_keeps_their_subnets(api, admin, cloud):
    vpc, name = unique("cloud-id"), unique("vpc")
    made = [admin.json("vpc", "put", vpc, "--name", name, "--owner", cloud.user, "--location", cloud.location, "--subnet",
                       "10.7.0.0/24,bridge=br7,range=10.7.0.2-10.7.0.3") for _ in range(2)]
    assert made[0]["id"] == made[1]["id"]
    before = read(api, f"/v1/vpcs/{name}")
    renamed = unique("renamed")
    admin.run("vpc", "edit", name, "--name", renamed)
    after = read(api, f"/v1/vpcs/{before['id']}")
    assert after == {**before, "name": renamed, "subnets": after["subnets"]}
    assert [subnet["attachment"] for subnet in after["subnets"]] == [subnet["attachment"] for subnet in before["subnets"]]
    assert [subnet["gateway_range"] for subnet in after["subnets"]] == ["10.7.0.2-10.7.0.3"]
    assert "vpc put" in admin.run("vpc", "edit", cloud.vpc, "--name", unique("vpc"), status=1).err


# ---- gateways and peers ---------------------------------------------------------------------------------


def test_gateways_are_created_listed_and_refused_twice(api, customer, cloud, gateway):
    stored = read(api, f"/v1/gateways/{gateway['id']}")
    assert stored["status"] == "deploying" and stored["vpc_name"] == cloud.vpc
    assert [item["id"] for item in customer.json("gateway", "list")] == [gateway["id"]]
    assert "10 MB" in customer.run("gateway", "list").out
    said = customer.run("gateway", "create", "--vpc", cloud.vpc, "--plan", cloud.plan, status=1)
    assert said.err.startswith("wiretoll: This VPC already has a VPN gateway") and not said.out


def test_waiting_ends_at_its_time_limit_with_the_status(customer, cloud):
    said = customer.run("gateway", "create", "--vpc", cloud.vpc, "--plan", cloud.plan, "--wait", "--timeout", 1, status=1).err
    assert "still deploying" in said


def test_extra_gb_and_suspension_are_the_admins(api, admin, customer, gateway):
    admin.run("gateway", "extra", gateway["name"], "0.005")
    assert read(api, f"/v1/gateways/{gateway['id']}")["bandwidth"]["extra_bytes"] == "5000000"
    assert "15 MB" in customer.run("gateway", "show", gateway["name"]).out
    admin.run("gateway", "suspend", gateway["name"])
    assert "admin" in read(api, f"/v1/gateways/{gateway['id']}")["suspended_reasons"]
    admin.run("gateway", "resume", gateway["name"])
    assert read(api, f"/v1/gateways/{gateway['id']}")["suspended_reasons"] == []
    customer.run("gateway", "extra", gateway["name"], "1", status=1)


def test_the_log_of_a_deployment_is_for_the_admin(api, admin, customer, cloud, gateway):
    claim(api, cloud, gateway["id"])
    assert api.sql("SELECT gateway.log_job('test', %s, 1, 'agent', 'says hello')", gateway["id"]) == [(True,)]
    assert re.search(r"Z +1 +agent +says hello\n", admin.run("gateway", "log", gateway["name"]).out)
    customer.run("gateway", "log", gateway["name"], status=1)


def test_c1_a_failed_gateway_is_deployed_again(api, customer, cloud, gateway):
    claim(api, cloud, gateway["id"])
    api.sql("SELECT gateway.fail_job(%s, 'no room')", gateway["id"])
    assert read(api, f"/v1/gateways/{gateway['id']}")["status"] == "error"
    customer.run("gateway", "retry", gateway["name"])
    assert read(api, f"/v1/gateways/{gateway['id']}")["status"] == "deploying"


def test_deleting_a_gateway_that_deploys(api, customer, gateway):
    customer.run("gateway", "delete", gateway["name"])
    status, answer = api.request("GET", f"/v1/gateways/{gateway['id']}", token=api.admin_token)
    assert status == 404 or answer["status"] in ("deleting", "deleted")


def test_peers_are_added_edited_switched_and_deleted(api, customer, gateway):
    key, name = new_key(), gateway["name"]
    added = customer.json("peer", "add", f"{name}/laptop", "--public-key", key, "--dns", "10.1.0.1", "--keepalive", 15)
    stored = read(api, f"/v1/gateways/{gateway['id']}/peers/{added['id']}")
    assert (stored["kind"], stored["public_key"], stored["dns"], stored["keepalive"]) == ("road_warrior", key, ["10.1.0.1"], 15)
    assert customer.json("peer", "show", f"{name}/laptop") == stored
    assert "laptop" in customer.run("peer", "list", name).out
    customer.run("peer", "disable", f"{name}/laptop")
    assert read(api, f"/v1/gateways/{gateway['id']}/peers/{added['id']}")["enabled"] is False
    customer.run("peer", "enable", f"{name}/laptop")
    customer.run("peer", "edit", f"{name}/laptop", "--dns", "", "--name", "notebook")
    stored = read(api, f"/v1/gateways/{gateway['id']}/peers/{added['id']}")
    assert (stored["enabled"], stored["dns"], stored["name"]) == (True, [], "notebook")
    customer.run("peer", "delete", f"{name}/notebook")
    assert customer.json("peer", "list", name) == []


def test_sites_take_a_preshared_key_from_a_file_and_never_show_it(customer, gateway, tmp_path):
    secret = subprocess.run(["wg", "genpsk"], capture_output=True, text=True, check=True).stdout.strip()
    file = tmp_path / "psk"
    file.write_text(secret + "\n")
    site = f"{gateway['name']}/office"
    said = customer.run("peer", "add", site, "--kind", "site", "--public-key", new_key(), "--allowed-ips", "192.168.7.0/24,192.168.8.0/24",
                        "--endpoint", "203.0.113.7:51820", "--preshared-key-file", file)
    stored = customer.json("peer", "show", site)
    assert stored["has_preshared_key"] is True and sorted(stored["allowed_ips"]) == ["192.168.7.0/24", "192.168.8.0/24"]
    assert secret not in said.out + said.err + json.dumps(stored)
    file.write_text(secret[:-3])
    said = customer.run("peer", "edit", site, "--preshared-key-file", file, status=1).err
    assert "preshared key" in said and secret[:-3] not in said


def test_c9_a_site_loses_its_endpoint_and_its_preshared_key(customer, gateway):
    site = f"{gateway['name']}/office"
    customer.run("peer", "add", site, "--kind", "site", "--public-key", new_key(), "--allowed-ips", "192.168.7.0/24", "--endpoint",
                 "203.0.113.7:51820", "--generate-preshared-key")
    assert customer.json("peer", "show", site)["has_preshared_key"] is True
    changed = customer.json("peer", "edit", site, "--no-endpoint", "--no-preshared-key")
    assert (changed["endpoint"], changed["has_preshared_key"]) == (None, False)
    said = customer.run("peer", "edit", site, "--no-preshared-key", "--generate-preshared-key", status=2).err
    assert "--no-preshared-key" in said


def test_overlapping_prefixes_are_refused_with_both_names(customer, gateway):
    for peer, prefix, status in (("a", "192.168.0.0/16", 0), ("b", "192.168.7.0/24", 1)):
        said = customer.run("peer", "add", f"{gateway['name']}/{peer}", "--kind", "site", "--public-key", new_key(), "--allowed-ips",
                            prefix, status=status).err
    assert "192.168.0.0/16" in said and "192.168.7.0/24" in said


def test_bad_values_are_named(customer, gateway, cloud):
    said = customer.run("peer", "add", f"{gateway['name']}/x", "--public-key", "short", status=1).err
    assert "public_key" in said
    said = customer.run("gateway", "create", "--vpc", "no-such-vpc", "--plan", cloud.plan, status=1).err
    assert "no-such-vpc" in said


def test_usage_and_report_of_a_new_gateway(customer, gateway, cloud):
    assert customer.run("usage", gateway["name"]).out.startswith("FROM")
    assert isinstance(customer.json("usage", gateway["name"], "--interval", "total"), list)
    report = customer.json("report")
    assert as_number(report["totals"]["total_credits"]) == 0
    assert "VPN Gateways" in customer.run("report").out
    assert "," in customer.run("report", "--csv").out.splitlines()[0]


@pytest.mark.parametrize("months, state", [(-1, "final"), (-13, "final"), (0, "open")])
def test_c7_an_empty_month_has_its_state(customer, gateway, months, state):
    number = time.gmtime().tm_year * 12 + time.gmtime().tm_mon - 1 + months
    cycle = f"{number // 12}-{number % 12 + 1:02}"
    assert customer.json("report", "--cycle", cycle)["state"] == state


@pytest.mark.parametrize("cycle", ["9999-12", "2026-13", "2026-00", "26-11", "2026-+1", "1969-12", " 2026-1"])
def test_c7_a_month_that_is_none_or_to_come_is_refused(customer, cycle):
    said = customer.run("report", "--cycle", cycle, status=1).err
    assert f'cycle is "{cycle}"' in said and "current one" in said


def test_the_ledger_is_for_billing(admin, customer):
    customer.run("ledger", status=1)
    assert isinstance(admin.json("ledger", "--limit", 5), list)


def test_four_commands_from_nothing_to_a_tunnel(api, customer, cloud, tmp_path):  # I2, X7
    name = unique("gw")
    waiting = subprocess.Popen([WIRETOLL, "gateway", "create", "--vpc", cloud.vpc, "--name", name, "--wait"], env=customer.env,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while api.request("GET", f"/v1/gateways/{name}", token=api.admin_token)[0] != 200:
        assert time.monotonic() < deadline and waiting.poll() is None, waiting.communicate()
        time.sleep(0.02)
    gateway = read(api, f"/v1/gateways/{name}")["id"]
    assert "deploying" in waiting.stderr.readline()
    agent = deploy(api, cloud, gateway)
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0 and "active" in out, err

    whole = customer.json("peer", "add", f"{name}/tablet", "--keygen")  # C8
    private = re.search(r"^PrivateKey = (\S{44})$", whole.pop("config"), re.MULTILINE)[1]
    assert whole == read(api, f"/v1/gateways/{gateway}/peers/tablet")
    assert whole["public_key"] == subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout.strip()

    config = customer.run("peer", "add", f"{name}/laptop", "--keygen").out
    private = re.search(r"^PrivateKey = (\S{44})$", config, re.MULTILINE)[1]
    public = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, text=True, check=True).stdout.strip()
    peer = read(api, f"/v1/gateways/{gateway}/peers/laptop")
    assert peer["public_key"] == public
    assert customer.run("peer", "config", f"{name}/laptop").out.replace("[YOUR_PRIVATE_KEY]", private) == config

    agent.report([agent.grow(1, peer["id"], agent.active_since, upload_bytes=1_500_000, download_bytes=84),
                  agent.grow(0, None, agent.active_since, upload_bytes=40)])
    used = {item["peer"]: (item["upload_bytes"], item["download_bytes"]) for item in customer.json("usage", name)}
    assert used == {peer["id"]: ("1500000", "84"), None: ("40", "0")}
    shown = customer.run("usage", name).out
    assert re.search(r"laptop +1\.5 MB +84 B\n", shown) and re.search(r"\(unattributed\) +40 B +0 B\n", shown)
    assert "1.5 MB / 10 MB" in customer.run("gateway", "show", name).out
    shown = customer.run("gateway", "top", name).out
    assert "laptop" in shown and "(unattributed)" in shown


def test_a_peer_whose_configuration_cannot_be_had_is_taken_back(customer, gateway):
    said = customer.run("peer", "add", f"{gateway['name']}/laptop", "--keygen", status=1)
    assert "removed again" in said.err and not said.out
    assert customer.json("peer", "list", gateway["name"]) == []


def test_a_secret_in_a_file_that_everybody_may_read_is_warned_of(api, customer, cloud, gateway, tmp_path):
    deploy(api, cloud, gateway["id"])
    for mode, warned in ((0o644, True), (0o600, False)):
        file = tmp_path / f"{mode:o}.conf"
        file.touch(mode)
        file.chmod(mode)
        with file.open("w") as output:
            done = subprocess.run([WIRETOLL, "peer", "add", f"{gateway['name']}/p{mode:o}", "--keygen"], env=customer.env, stdout=output,
                                  stderr=subprocess.PIPE, text=True, timeout=60)
        assert done.returncode == 0 and ("warning" in done.stderr) == warned
        assert "PrivateKey" in file.read_text()


def test_m5_sessions_are_listed_and_ended(api, admin, cloud, customer, tmp_path):
    other = Cli(tmp_path / "other")
    other.login(api, admin.run("user", "login-token", cloud.user).out.strip())
    listed = customer.json("session", "list")
    assert len(listed) == 2 and [session["current"] for session in listed].count(True) == 1
    assert {session["id"] for session in admin.json("session", "list", "--user", cloud.user)} == {session["id"] for session in listed}
    theirs = next(session["id"] for session in listed if not session["current"])
    customer.run("session", "end", theirs)
    other.run("whoami", status=1)
    customer.run("whoami")
    assert "not the id of a session" in customer.run("session", "end", theirs, status=1).err
    token = admin.run("user", "login-token", cloud.user).out.strip()
    unused, = [item for item in admin.json("session", "list", "--user", cloud.user) if item["kind"] == "one_time_token"]
    admin.run("session", "end", unused["id"])
    late = Cli(tmp_path / "late")
    late.run("login", api.url, "--ca-fingerprint", api.ca_fingerprint, stdin=token + "\n", status=1)


def test_c13_health_names_the_newest_migration_and_a_kind_may_be_shortened(api, customer, gateway):
    newest = max(int(file.name.split("_")[0]) for file in (REPOSITORY / "api/store/migrations").glob("*.sql"))
    assert api.request("GET", "/v1/health")[1]["schema"] == newest
    assert "--kind site" in customer.run("help").out
    for kind in ("site", "site-to-site", "site_to_site"):
        made = customer.json("peer", "add", f"{gateway['name']}/{kind}", "--kind", kind, "--public-key", new_key(), "--allowed-ips",
                             f"192.168.{len(kind)}{'0' if '_' in kind else '1'}.0/24")
        assert made["kind"] == "site_to_site"


# ---- help and wrong usage -------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["help"], ["plan", "--help"], ["plan", "create", "--help"], ["login", "-h"], ["--version"]])
def test_help_goes_to_standard_output(cli, arguments):
    said = cli.run(*arguments)
    assert "wiretoll" in said.out and said.err == ""


@pytest.mark.parametrize("arguments, named", [
    ([], "Usage: wiretoll COMMAND"),
    (["plan"], "needs a verb"),
    (["plan", "destroy"], "destroy"),
    (["plans", "list"], "plans"),
    (["plan", "create", "--colour", "red"], "--colour"),
    (["plan", "create", "--included-gb", "1e3"], "--included-gb"),
    (["plan", "create", "--unlimited", "--included-gb", "1"], "set twice"),
    (["location", "create", "--overage", "all"], "none|charge_overage|revoke_access"),
    (["vpc", "create", "--subnet", "10.1.0.1/24"], "10.1.0.1/24"),
    (["gateway", "show"], "NAME"),
    (["gateway", "show", "a", "b"], "NAME"),
    (["login", "http://127.0.0.1"], "https://"),
])
def test_wrong_usage_ends_with_2(cli, arguments, named):
    said = cli.run(*arguments, status=2)
    assert named in said.err and said.out == ""
    assert not arguments or len(said.err.splitlines()) <= 3, "C12: the problem and where help is, not the help"


@pytest.mark.parametrize("arguments", [["peer", "show", "laptop"], ["peer", "add", "prod/laptop"], ["usage"], ["plan", "edit", "small"],
                                       ["gateway", "extra", "prod", "1e3"]])
def test_arguments_that_do_not_go_together_end_with_2(admin, arguments):
    assert "Usage: wiretoll" in admin.run(*arguments, status=2).err
