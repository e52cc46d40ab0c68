# SPDX-License-Identifier: BSD-2-Clause
"""What most tests of the API begin with: an offer, users, VPCs, gateways. Every call makes new things."""

import base64
import hashlib
import itertools
import json
import secrets
import uuid

NUMBERS = itertools.count(1)


def public_key():
    """Nearly any number of 255 bits is a public key of somebody."""
    return base64.b64encode(secrets.token_bytes(31) + bytes([secrets.randbelow(128)])).decode()


def token_hash(token):
    return hashlib.blake2b(token.encode(), digest_size=32).digest()


class World:
    def __init__(self, api):
        self.api = api

    def call(self, method, path, body=None, token=None, status=200, headers=None):
        got, answer = self.api.request(method, path, body, token or self.api.admin_token, headers)
        assert got == status, f"{method} {path}: {got} instead of {status}: {answer}"
        return answer

    def refused(self, method, path, body=None, token=None, status=422, says=(), field=None, headers=None):
        """The request is refused with a problem document whose detail says all of this."""
        answer = self.api.exchange(method, path, body, token or self.api.admin_token, headers)
        assert answer.headers["Content-Type"] == "application/problem+json", answer.body
        problem = json.loads(answer.body)
        assert answer.status == problem["status"] == status, problem
        assert problem["title"] and problem["type"] == "about:blank"
        for text in [says] if isinstance(says, str) else says:
            assert text in problem["detail"], f"{text!r} is not in {problem['detail']!r}"
        if field:
            assert problem["field"] == field, problem
        return problem

    def name(self, prefix):
        return f"{prefix}-{next(NUMBERS)}"

    def image(self, **fields):
        return self.call("POST", "/v1/images", {"name": self.name("image"), "path": "/images/x.qcow2", **fields}, status=201)

    def plan(self, **fields):
        return self.call("POST", "/v1/plans", {"name": self.name("plan"), "cpu": 1, "ram_mb": 512, "storage_gb": 4,
                                               "included_gb": "10", **fields}, status=201)

    def group(self, *plans):
        return self.call("POST", "/v1/plan-groups", {"name": self.name("group"), "plans": [p["id"] for p in plans]}, status=201)

    def location(self, *plans, **fields):
        """With VPN gateways on, one plan (unless some are given) and one hypervisor."""
        if not self.api.sql("SELECT 1 FROM gateway.image WHERE enabled AND purpose = 'vpn_gateway'"):
            self.image()
        group = self.group(*(plans or [self.plan()]))
        location = self.call("POST", "/v1/locations", {"name": self.name("location"), "vpn_enabled": True, "credit_value": "0",
                                                       "bandwidth_rate": "0", "plan_group": group["id"], **fields}, status=201)
        self.hypervisor(location)
        return location

    def hypervisor(self, location):
        return self.call("POST", "/v1/hypervisors", {"name": self.name("host"), "location": location["id"], "driver": "netns",
                                                     "cpu": 64, "ram_mb": 65536, "storage_gb": 1000}, status=201)

    def user(self, role="user", **fields):
        """A user; its token is in the field token."""
        user = self.call("POST", "/v1/users", {"name": self.name("user"), "role": role, **fields}, status=201)
        user["token"] = self.api.token_of(user["id"])
        return user

    def subnets(self, private="10.1.0.0/24", addresses=20):
        number = next(NUMBERS)
        public = f"198.{18 + number // 250}.{number % 250}"
        return [
            {"cidr": private, "public": False, "gateway_range": f"{private.split('/')[0]}/28",
             "attachment": {"bridge": "vpc0", "route_netns": []}},
            {"cidr": f"{public}.0/24", "public": True, "gateway_range": f"{public}.10-{public}.{9 + addresses}",
             "router": f"{public}.1", "attachment": {"bridge": "pub0"}},
        ]

    def vpc(self, owner, location, **fields):
        return self.call("POST", "/v1/vpcs", {"name": self.name("vpc"), "owner": owner["id"], "location": location["id"],
                                              "subnets": self.subnets(), **fields}, status=201)

    def gateway(self, owner=None, **fields):
        """With a user (in the field user), a location and a VPC of its own, unless they are given."""
        user = owner or self.user()
        if "vpc" not in fields:
            fields["vpc"] = self.vpc(user, self.location())["id"]
        gateway = self.call("POST", "/v1/gateways", fields, user["token"], 201)
        gateway["user"] = user
        return gateway

    def peer(self, gateway, **fields):
        return self.call("POST", f"/v1/gateways/{gateway['id']}/peers",
                         {"name": self.name("peer"), "public_key": public_key(), **fields}, gateway["user"]["token"], 201)

    def site(self, gateway, *allowed_ips, **fields):
        return self.peer(gateway, kind="site_to_site", allowed_ips=list(allowed_ips), **fields)

    def deployed(self, gateway):
        """As if a worker and an agent had brought it up."""
        self.api.sql("UPDATE gateway.gateway SET status = 'active', public_key = %s, public_ip = '198.51.100.10', "
                     "active_since = now(), last_report = now() WHERE id = %s", secrets.token_bytes(32), gateway["id"])

    def agent_token(self, gateway):
        token = secrets.token_urlsafe(32)
        self.api.sql("UPDATE gateway.gateway SET generation = 1 WHERE id = %s", gateway["id"])
        self.api.sql("INSERT INTO gateway.token (hash, kind, owner, gateway, attempt, generation, expires) "
                     "VALUES (%s, 'agent', %s, %s, 1, 1, 'infinity')", token_hash(token), gateway["owner"], gateway["id"])
        return token

    def unknown(self):
        return str(uuid.uuid4())
