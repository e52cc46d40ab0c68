# SPDX-License-Identifier: BSD-2-Clause
"""What is read of usage and money (B6, B7), and what no bug and no race may pass."""

import csv
import io
import random
import threading
import time
from collections import defaultdict
from datetime import datetime, timedelta
from fractions import Fraction

import pytest
from psycopg2 import errors

from billing_model import GB, Traffic, at_once, base_hours, complete_elsewhere, hour_price, month_of, overage, past_hours, wait
from simulated_agent import HOUR, Agent, Gateway, World, active_agent, cycle_of, hour_of, now, text_of


# ---- what is read -----------------------------------------------------------------------------------------------------------

def feed(world, after=0, limit=3):
    """All of it, page by page, by a billing service."""
    token, items = world.token("billing"), []
    while True:
        status, page = world.api.request("GET", f"/v1/ledger?after={after}&limit={limit}", token=token)
        assert status == 200, page
        items += page["items"]
        if page["next"] is None:
            return items
        assert page["next"] == page["items"][-1]["id"]
        after = page["next"]


def test_report_ledger_and_model_are_one(api):  # B6, I20
    rng = random.Random(20)
    hours = past_hours(5)
    world = World(api, rate="0.123456789", credit_value="9.876543211")
    limit = GB
    expected = defaultdict(lambda: [0, Fraction(0), 0, Fraction(0)])
    gateways = []
    for _ in range(3):
        agent = active_agent(world, since=hours[0] + timedelta(minutes=7), included_gb="1", created=hours[0])
        gateways.append(agent.gateway)
        traffic = Traffic(agent, hours, rng, batches=10)
        traffic.deliver()
        end = hours[-1] + HOUR
        agent.report(covered=(hours[0], end), states=[(agent.active_since, end, "active")])
        for begin in base_hours([(agent.active_since, end)]):
            row = expected[cycle_of(begin), agent.gateway.id]
            row[0] += 1
            row[1] += hour_price(Fraction("9.876543211"), begin)
        _, _, fees = overage(traffic.hourly, limit, {hour: ("charge_overage", "0.123456789") for hour in hours})
        for hour, fee in fees.items():
            row = expected[cycle_of(hour), agent.gateway.id]
            row[2] += int(fee * GB / Fraction("0.123456789"))
            row[3] += fee
    gateways[0].complete_delete()
    wait(lambda: api.sql("SELECT count(*) FROM billing.ledger WHERE owner = %s AND feed_id IS NULL", world.user) == [(0,)])
    lines = [item for item in feed(world, limit=200) if item["owner"] == world.user and item["type"] == "ledger"]
    for cycle in {cycle for cycle, _ in expected}:
        text = f"{cycle // 100}-{cycle % 100:02d}"
        report = world.get(f"/v1/users/{world.user}/report?cycle={text}")
        assert report["cycle"] == text and report["user"] == world.user
        by_id = {row["gateway"]: row for row in report["gateways"]}
        assert {g.id for g in gateways} >= set(by_id)
        for row in by_id.values():
            hours_, base, bytes_, bandwidth = expected[cycle, row["gateway"]]
            mine = [line for line in lines if line["gateway"] == row["gateway"] and line["cycle"] == cycle]
            assert row["hours"] == hours_ == sum(line["kind"] == "base" for line in mine)
            assert Fraction(row["base_credits"]) == base == sum(Fraction(line["amount"]) for line in mine if line["kind"] == "base")
            assert int(row["bandwidth_bytes"]) == bytes_
            assert Fraction(row["bandwidth_credits"]) == bandwidth
            assert Fraction(row["total_credits"]) == base + bandwidth == sum(Fraction(line["amount"]) for line in mine)
        totals = report["totals"]
        assert Fraction(totals["total_credits"]) == sum(Fraction(row["total_credits"]) for row in by_id.values())
        assert totals["hours"] == sum(row["hours"] for row in by_id.values())
        text = world.get(f"/v1/users/u{world.user[:8]}/report?format=csv&cycle={text}", role="billing")
        *rows, total = csv.DictReader(io.StringIO(text))
        assert {row["gateway"]: row["total_credits"] for row in rows} == {key: row["total_credits"] for key, row in by_id.items()}
        assert (total["name"], total["total_credits"], total["hours"]) == ("total", totals["total_credits"], str(totals["hours"]))


def test_the_feed_misses_nothing_while_it_is_written(api):  # B7
    world = World(api)
    gateway = world.gateway()
    seen, stop = [], threading.Event()
    begin = int(api.sql("SELECT coalesce(max(id), 0) FROM billing.feed")[0][0])

    def write(worker):
        connection = api.postgres.connect()
        rng = random.Random(worker)
        for i in range(15):
            with connection, connection.cursor() as cursor:
                cursor.execute("INSERT INTO billing.action (owner, bucket, gateway, kind, key) VALUES (%s, %s, %s, 'charge', %s)",
                               (gateway.owner, gateway.bucket, gateway.id, f"{worker}-{i}"))
                time.sleep(rng.random() * 0.15)
        connection.close()

    def follow():
        after = begin
        while True:
            last = stop.is_set()
            items = feed(world, after, limit=7)
            seen.extend(items)
            after = int(items[-1]["id"]) if items else after
            if last and not items:
                return
            time.sleep(0.02)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    reader = threading.Thread(target=follow)
    for thread in [reader, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    wait(lambda: api.sql("SELECT count(*) FROM billing.action WHERE owner = %s AND feed_id IS NULL", world.user) == [(0,)])
    stop.set()
    reader.join()
    ids = [int(item["id"]) for item in seen]
    assert ids == sorted(set(ids))
    mine = [item["key"] for item in seen if item["owner"] == world.user]
    assert sorted(mine) == sorted(f"{worker}-{i}" for worker in range(4) for i in range(15))


def test_usage_by_interval_and_peer(api):
    hours = past_hours(30)
    world = World(api)
    agent = active_agent(world, since=hours[0])
    traffic = Traffic(agent, hours, random.Random(3), batches=40)
    traffic.deliver()
    gateway = agent.gateway
    names = dict(api.sql("SELECT id::text, name FROM gateway.peer WHERE gateway = %s", gateway.id))

    def read(path):
        items, after = [], ""
        while True:
            page = world.get(f"{path}&limit=7{after}")
            items += page["items"]
            if page["next"] is None:
                return items
            after = f"&after={page['next']}"

    def group(key, by_peer):
        totals = defaultdict(lambda: [0, 0])
        for (peer, hour), (up, down) in traffic.usage.items():
            if by_peer or peer:
                totals[key(hour), peer if by_peer else None][0] += up
                totals[key(hour), peer if by_peer else None][1] += down
        return {key: value for key, value in totals.items() if any(value)}

    starts = {"hour": hour_of, "day": lambda hour: hour.replace(hour=0), "cycle": lambda hour: month_of(hour)[0]}
    for interval, start in starts.items():
        for by in ("peer", "gateway"):
            items = read(f"/v1/gateways/{gateway.id}/usage?interval={interval}&by={by}")
            got = {(datetime.fromisoformat(item["from"].replace("Z", "+00:00")), item["peer"]):
                   [int(item["upload_bytes"]), int(item["download_bytes"])] for item in items}
            assert {key: value for key, value in got.items() if any(value)} == group(start, by == "peer")
            assert all(item["peer_name"] == names.get(item["peer"]) for item in items)
    [total] = read(f"/v1/users/{world.user}/usage?interval=total")
    assert [int(total["upload_bytes"]), int(total["download_bytes"])] == [
        sum(value[i] for (peer, _), value in traffic.usage.items() if peer) for i in (0, 1)]
    assert total["gateway"] == gateway.id
    cut = read(f"/v1/gateways/{gateway.id}/usage?interval=hour&by=gateway&from={text_of(hours[4])}&to={text_of(hours[9])}")
    assert {item["from"] for item in cut} <= {text_of(hour) for hour in hours[4:9]}


def test_money_is_shown_to_its_owner_only(api):
    world, stranger = World(api), World(api)
    gateway = world.gateway()
    for path in (f"/v1/gateways/{gateway.id}/usage", f"/v1/gateways/{gateway.name}/usage", f"/v1/users/{world.user}/usage",
                 f"/v1/users/{world.user}/report"):
        assert api.request("GET", path, token=stranger.token())[0] == 404
        assert api.request("GET", path, token=world.token())[0] == 200
        assert api.request("GET", path, token=world.token("billing"))[0] == 200
        assert api.request("GET", path)[0] == 401
    assert api.request("GET", "/v1/ledger", token=world.token())[0] == 403


@pytest.mark.parametrize("query, field", [("interval=week", "interval"), ("from=now", "from"), ("limit=0", "limit"), ("limit=201", "limit"),
                                          ("by=name", "by"), ("to=2026-13-01", "to"), ("after=x", "after"),
                                          ("after=,,", "after"), (f"after=-infinity,{36 * '0'},{36 * '0'}", "after")])
def test_queries_are_checked(api, query, field):
    world = World(api)
    status, answer = api.request("GET", f"/v1/gateways/{world.gateway().id}/usage?{query}", token=world.token())
    assert (status, answer["field"]) == (422, field)
    for path, field in (("report?cycle=2026-13", "cycle"), ("report?cycle=202611", "cycle"), ("report?format=pdf", "format")):
        status, answer = api.request("GET", f"/v1/users/{world.user}/{path}", token=world.token())
        assert (status, answer["field"]) == (422, field)
    status, answer = api.request("GET", "/v1/ledger?after=x", token=world.token("billing"))
    assert (status, answer["field"]) == (422, "after")


def test_names_find_living_gateways_first(api):
    world, other = World(api), World(api)
    old, new, third = world.gateway(), world.gateway(), other.gateway()
    old.complete_delete()
    api.sql("UPDATE gateway.gateway SET name = 'twice-' || %s WHERE id IN (%s, %s, %s)", world.user[:8], old.id, new.id, third.id)
    path = f"/v1/gateways/twice-{world.user[:8]}/usage"
    agent = Agent(new)
    agent.activate()
    agent.report([agent.grow(1, new.peer(), now(), upload_bytes=1)])
    assert world.get(path)["items"][0]["gateway"] == new.id
    assert api.request("GET", path, token=world.token("admin"))[0] == 404  # two owners have one
    third.complete_delete()
    assert world.get(path, role="admin")["items"][0]["gateway"] == new.id


# ---- what no bug and no race may pass ---------------------------------------------------------------------------------------

def refused(connection, error, statement, *values):
    with pytest.raises(error):
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)


LINE = ("INSERT INTO billing.ledger (owner, gateway, kind, utc_hour, part, span, cycle, bytes, rate, rate_version, amount, hour_index,"
        " month_hours) SELECT owner, gateway, %s, utc_hour, %s, span, cycle, %s, %s, rate_version, %s, %s, %s FROM billing.ledger"
        " WHERE gateway = %s AND kind = 'base'")


def test_the_ledger_defends_itself(api):
    gateway = active_agent(World(api)).gateway
    connection = api.postgres.connect("wiretoll_api")
    refused(connection, errors.UniqueViolation, LINE, "base", 1, None, 1, 1, 1, 720, gateway.id)
    refused(connection, errors.CheckViolation, LINE, "base", 2, None, 1, 1, 1, 720, gateway.id)
    refused(connection, errors.CheckViolation, LINE, "bandwidth", 1, 10**9, "0.1", "0.100000000000000001", None, None, gateway.id)
    refused(connection, errors.CheckViolation, LINE, "bandwidth", 1, 0, "0.1", "0", None, None, gateway.id)
    for statement in ("UPDATE billing.ledger SET amount = 0", "DELETE FROM billing.ledger", "DELETE FROM billing.action",
                      "UPDATE billing.usage_record SET d_up = 0", "DELETE FROM billing.counter"):
        refused(connection, errors.InsufficientPrivilege, statement)
    connection.close()


def test_the_workers_role_sees_no_money(api):
    gateway = World(api).gateway()
    connection = api.postgres.connect("wiretoll_deploy")
    for statement in ("SELECT billing.tick()", "SELECT * FROM billing.ledger", "SELECT * FROM gateway.token",
                      f"SELECT gateway.complete_delete('{gateway.id}')", f"SELECT gateway.agent_state('{gateway.owner}', '{gateway.id}')"):
        refused(connection, errors.InsufficientPrivilege, statement)
    connection.close()


def test_every_function_pins_its_search_path(api):
    assert api.sql("SELECT p.oid::regprocedure FROM pg_proc p WHERE p.prokind <> 'a' AND p.pronamespace IN ('gateway'::regnamespace, 'billing'::regnamespace)"
                   " AND p.prosqlbody IS NULL AND NOT coalesce(p.proconfig @> ARRAY ['search_path=pg_catalog, pg_temp'], false)") == []


def test_everything_at_once(api):
    """Reports, creations, deletions and the turn of a cycle of one owner: no deadlock is seen and no byte is lost."""
    world = World(api, overage="revoke_access")
    agents = [active_agent(world) for _ in range(4)]
    for agent in agents:
        agent.peer = agent.gateway.peer()

    def reports(agent):
        for i in range(25):
            agent.report([agent.grow(1, agent.peer, now(), upload_bytes=i)])

    def come_and_go():
        for _ in range(8):
            gateway = Gateway(world, world.plan("1"), world.begin)
            complete_elsewhere(api, gateway)

    def turn():
        for _ in range(30):
            api.sql("UPDATE billing.cycle SET rolled = false WHERE id = %s", cycle_of(now()))
            time.sleep(0.05)

    at_once(*[lambda agent=agent: reports(agent) for agent in agents], come_and_go, turn)
    assert [agent.gateway.bucket_row("used") for agent in agents] == [300] * 4
    assert [agent.seq for agent in agents] == [26] * 4
    assert api.sql("SELECT gateways FROM gateway.account WHERE owner = %s", world.user) == [(4,)]


def test_one_clock_at_a_time(api):
    """Were two to seal at once, an id could appear below one that has been read."""
    first, second = (api.postgres.connect("wiretoll_api") for _ in range(2))

    def tick(connection):
        with connection.cursor() as cursor:
            cursor.execute("SELECT billing.tick()")
            return cursor.fetchone()[0]

    def holds():
        if tick(first):
            return True
        first.rollback()
        return False

    try:
        wait(holds)
        assert tick(second) is False
        first.commit()
        second.rollback()
        wait(lambda: tick(second))
    finally:
        first.close()
        second.close()
