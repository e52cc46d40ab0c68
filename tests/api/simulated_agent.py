# SPDX-License-Identifier: BSD-2-Clause
"""Gateways as deployment leaves them, made by SQL, and agents that speak docs/agent-protocol.md to the real API."""

import base64
import hashlib
import json
import random
import secrets
import time
import uuid
from datetime import datetime, timedelta, timezone

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
FIELDS = ("upload_bytes", "download_bytes", "upload_packets", "download_packets", "undelivered_bytes", "refused_bytes")


def now():
    return datetime.now(timezone.utc)


def hour_of(instant):
    return instant.replace(minute=0, second=0, microsecond=0)


def text_of(instant):
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def cycle_of(instant):
    return instant.year * 100 + instant.month


def crc32c_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def key():
    return base64.b64encode(secrets.token_bytes(32)).decode()


def wire_form(body):
    """As real agents write a batch; every fourth in another form that means the same."""
    return json.dumps(body, separators=(", ", ": ") if str(body.get("seq"))[-1] in "48" else (",", ":")).encode()


def token_hash(token):
    return hashlib.blake2b(token.encode(), digest_size=32).digest()


class World:
    """One user and one location of its own, so that tests of a session never meet."""

    def __init__(self, api, overage="charge_overage", accounting="both", rate="0.1", credit_value="7.2", since=None):
        self.api = api
        self.begin = hour_of(now()) - 40 * HOUR if since is None else since
        self.user = str(uuid.uuid4())
        api.sql("INSERT INTO gateway.app_user (id, name, role) VALUES (%s, %s, 'user')", self.user, "u" + self.user[:8])
        api.sql("INSERT INTO gateway.account (owner, max_gateways) VALUES (%s, 0)", self.user)
        [[self.location]] = api.sql("INSERT INTO gateway.location (name) VALUES (%s) RETURNING id::text", "l" + self.user[:8])
        self.rate_version(self.begin, overage, accounting, rate, credit_value)

    def rate_version(self, hour, overage, accounting="both", rate="0.1", credit_value="7.2", announced=True):
        self.api.sql("INSERT INTO gateway.rate_version (location, from_hour, credit_value, bandwidth_rate, accounting, overage, announced)"
                     " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                     self.location, hour, credit_value, rate, accounting, overage, announced)

    def plan(self, included_gb, credit_value=None):
        [[plan]] = self.api.sql("INSERT INTO gateway.plan (name, cpu, ram_mb, storage_gb, included_gb, credit_value)"
                                " VALUES (%s, 1, 256, 1, %s, %s) RETURNING id::text",
                                secrets.token_hex(8), included_gb, credit_value)
        return plan

    def token(self, role="user"):
        user = self.user
        if role != "user":
            [[user]] = self.api.sql("INSERT INTO gateway.app_user (name, role) VALUES (%s, %s) RETURNING id::text",
                                    secrets.token_hex(8), role)
        token = secrets.token_urlsafe(32)
        self.api.sql("INSERT INTO gateway.token (hash, kind, user_id, expires) VALUES (%s, 'session', %s, now() + interval '1 hour')",
                     token_hash(token), user)
        return token

    def get(self, path, role="user"):
        status, answer = self.api.request("GET", path, token=self.token(role))
        assert status == 200, answer
        return answer

    def gateway(self, included_gb="10", created=None, plan_price=None):
        return Gateway(self, self.plan(included_gb, plan_price), created or self.begin)


class Gateway:
    def __init__(self, world, plan, created):
        self.world, self.api, self.owner = world, world.api, world.user
        self.id = str(uuid.uuid4())
        self.name = "g" + self.id[:8]
        vpc, public, private = (str(uuid.uuid4()) for _ in range(3))
        self.api.sql("INSERT INTO gateway.vpc (owner, id, location, name) VALUES (%s, %s, %s, %s)",
                     self.owner, vpc, world.location, "v" + vpc[:8])
        self.api.sql("INSERT INTO gateway.subnet (owner, id, vpc, cidr, public) VALUES (%s, %s, %s, '198.51.100.0/24', true)",
                     self.owner, public, vpc)
        self.api.sql("INSERT INTO gateway.subnet (owner, id, vpc, cidr, public) VALUES (%s, %s, %s, '10.1.0.0/24', false)",
                     self.owner, private, vpc)
        self.api.sql("INSERT INTO gateway.gateway (owner, id, name, vpc, public_subnet, location, plan, tunnel_subnet,"
                     " tunnel_subnet6, created) VALUES (%s, %s, %s, %s, %s, %s, %s, '10.99.0.0/24', 'fd12:3456:789a:1::/64', %s)",
                     self.owner, self.id, self.name, vpc, public, world.location, plan, created)
        self.api.sql("UPDATE gateway.account SET gateways = gateways + 1 WHERE owner = %s", self.owner)
        self.api.sql("INSERT INTO gateway.job (gateway, owner, attempt, goal, deadline)"
                     " VALUES (%s, %s, 1, 'active', now() + interval '5 minutes')", self.id, self.owner)
        [[self.bucket]] = self.api.sql("SELECT billing.take_bucket(%s, %s)::text", self.owner, self.id)

    def row(self, columns):
        [row] = self.api.sql(f"SELECT {columns} FROM gateway.gateway WHERE owner = %s AND id = %s", self.owner, self.id)
        return row[0] if len(row) == 1 else row

    def bucket_row(self, columns):
        [row] = self.api.sql(f"SELECT {columns} FROM billing.bucket WHERE owner = %s AND id = %s", self.owner, self.bucket)
        return row[0] if len(row) == 1 else row

    def used(self):
        """In all its cycles: hours past may be of the month before."""
        [[used]] = self.api.sql("SELECT sum(used)::bigint FROM billing.bucket WHERE owner = %s AND holder = %s", self.owner, self.id)
        return used

    def peer(self):
        [[peer]] = self.api.sql("INSERT INTO gateway.peer (owner, gateway, kind, name, public_key) VALUES (%s, %s, 'road_warrior', %s, %s)"
                                " RETURNING id::text", self.owner, self.id, "p" + secrets.token_hex(6), secrets.token_bytes(32))
        return peer

    def one_time_token(self, attempt=1, minutes=15):
        token = secrets.token_urlsafe(32)
        self.api.sql("INSERT INTO gateway.token (hash, kind, owner, gateway, attempt, expires)"
                     " VALUES (%s, 'enroll', %s, %s, %s, now() + %s * interval '1 minute')",
                     token_hash(token), self.owner, self.id, attempt, minutes)
        return token

    def ledger(self, kind):
        return self.api.sql("SELECT utc_hour, part, bytes, amount::text, lower(span), upper(span) FROM billing.ledger"
                            " WHERE owner = %s AND gateway = %s AND kind = %s ORDER BY utc_hour, part", self.owner, self.id, kind)

    def actions(self):
        return self.api.sql("SELECT kind, key FROM billing.action WHERE owner = %s AND gateway = %s ORDER BY created, kind", self.owner, self.id)

    def complete_delete(self):
        self.api.sql("SELECT gateway.complete_delete(%s)", self.id)


class Agent:
    """One agent: an enrolled gateway and its current epoch, with totals as a kernel would hold them."""

    def __init__(self, gateway, attempt=1, mask="both"):
        self.gateway, self.api, self.attempt, self.mask = gateway, gateway.api, attempt, mask
        self.public_key = key()
        self.one_time_token = gateway.one_time_token(attempt)
        status, answer = self.enroll()
        assert status == 201, answer
        self.token, self.generation = answer["token"], answer["generation"]
        self.active_since = None
        self.new_epoch()

    def enroll(self, **changes):
        body = {"gateway": self.gateway.id, "attempt": self.attempt, "one_time_token": self.one_time_token,
                "public_key": self.public_key, "protocol": 1}
        return self.api.request("POST", "/v1/agent/enroll", {**body, **changes})

    def new_epoch(self):
        self.epoch, self.boot_id = str(uuid.uuid4()), str(uuid.uuid4())
        self.seq = self.counted = 0
        self.totals = {}
        self.grant = None
        self.cycle_counted = 0

    def state(self, have=0):
        return self.api.request("GET", f"/v1/agent/state?have={have}", token=self.token)

    def take_grant(self):
        """As the kernel does: a new cycle begins at what has been counted by then."""
        status, answer = self.state()
        assert status == 200, answer
        [grant] = answer["grants"]
        if self.grant is None or self.grant["cycle"] != grant["cycle"]:
            self.cycle_counted = 0
        self.grant = grant
        return grant

    def grow(self, slot, peer, hour, incarnation=1, **growth):
        """Counts traffic and returns the record that tells it."""
        totals = self.totals.setdefault((slot, incarnation), dict.fromkeys(FIELDS, 0))
        for field, amount in growth.items():
            totals[field] += amount
        if slot:
            counted = (growth.get("upload_bytes", 0) * (self.mask != "downloads")
                       + growth.get("download_bytes", 0) * (self.mask != "uploads"))
            self.counted += counted
            self.cycle_counted += counted
        return {"slot": slot, "incarnation": incarnation, "peer": peer, "hour": text_of(hour_of(hour)),
                **{field: str(value) for field, value in totals.items()}}

    def batch(self, records=(), covered=None, states=(), exhausted=False, final=False, **changes):
        """The body of the next batch as an object; covered and states in datetimes."""
        self.seq += 1
        covered = covered or (now(), now())
        body = {
            "generation": self.generation,
            "epoch": {"id": self.epoch, "boot_id": self.boot_id, "final": final},
            "seq": self.seq, "covered_from": text_of(covered[0]), "covered_to": text_of(covered[1]),
            "states": [{"from": text_of(begin), "to": text_of(end), "state": state} for begin, end, state in states],
            "active_since": self.active_since and text_of(self.active_since),
            "public_key": self.public_key, "applied_revision": 1, "cannot_apply": [], "counted": str(self.counted),
            "grant": self.grant and {"cycle": self.grant["cycle"], "grant_seq": self.grant["grant_seq"],
                                     "cycle_counted": str(self.cycle_counted), "exhausted": exhausted},
            "records": list(records), "status": [], "now": text_of(now()),
        }
        return {**body, **changes}

    def send(self, body, crc=None, token=None, kept_from=None, over=False):
        raw = body if isinstance(body, bytes) else wire_form(body)
        headers = {"Wiretoll-Protocol": "1", "Wiretoll-Batch-CRC32C": str(crc32c(raw) if crc is None else crc)}
        if kept_from is not None:
            headers["Wiretoll-Kept-From"] = str(kept_from)
        if over:
            headers["Wiretoll-Epoch-Over"] = "true"
        return self.api.request("POST", "/v1/agent/report", raw, token=token or self.token, headers=headers)

    def report(self, *arguments, **options):
        body, begun = self.batch(*arguments, **options), time.monotonic()
        status, answer = self.send(body)
        # On a busy machine the time that it tells may be seconds old when it is read: then it is told anew.
        while status == 400 and answer["field"] == "active_since" and time.monotonic() < begun + 60:
            body["now"] = text_of(now())
            status, answer = self.send(body)
        assert status == 200, answer
        return answer

    def activate(self, since=None):
        """The first report, active since then; and the grant."""
        self.active_since = since or now()
        begin = self.active_since
        self.report(covered=(begin, begin + MICROSECOND), states=[(begin, begin + MICROSECOND, "active")])
        self.take_grant()


def active_agent(world, since=None, mask="both", **options):
    agent = Agent(world.gateway(**options), mask=mask)
    agent.activate(since)
    return agent


def split(total, parts, rng=random):
    """`total` as that many non-negative integers."""
    cuts = sorted(rng.randint(0, total) for _ in range(parts - 1))
    return [b - a for a, b in zip([0, *cuts], [*cuts, total])]
