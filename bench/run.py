# SPDX-License-Identifier: BSD-2-Clause
"""Runs every part of the benchmark, makes ratios of its samples, and writes them with their targets.

The parts measure what they compare in turns (A B C, C B A, …), so a round's samples belong together: ratios and
differences are made round by round, and what is shown is their median and the distance between their quartiles. Where
a round is a block of a few milliseconds (A B B A), the quartiles are those of the medians of up to GROUP blocks. An interval
that holds the median in 95 of 100 resamplings says whether a target can be told from the noise. Where programs are loaded
again and again, a sample is the difference of one pair of loads, and the quartiles are those of the resamplings. A target that
is missed is a result; a count that is wrong ends the part, and this program, with an error.
"""

import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import draw

HERE = Path(__file__).resolve().parent
ENVELOPE = HERE.parent / "tests" / "envelope.sh"
SIZES = (1, 100, 1000, 10000, 100000)
LIMITS = (10**6, 10**7, 10**8, 10**9)
API_PARTS = ("whole", "ingest", "neighbour", "query", "crowd")
SHAPES = (("v4", "dense"), ("v6", "dense"), ("v4", "scattered"), ("v6", "scattered"))
NOTE = "<!-- written by make bench UPDATE_DOCS=1 -->"
TIMEOUT = 3600
STILL = 15  # seconds, after which a step is said to go on
GROUP = 16
RESAMPLINGS = 1000
LONG_ENOUGH = 600  # seconds, before which PostgreSQL's processes still fill their caches


def cost_steps(quick):
    for family, shape in SHAPES:
        for peers in SIZES:
            if quick and shape == "scattered" and peers not in (1000, 10000):
                continue
            rounds = (2 if peers == 100000 else 4) if quick else 7 if peers == 100000 else 11
            yield (["cost", "--family", family[1], "--peers", peers, "--rounds", rounds]
                   + (["--scattered"] if shape == "scattered" else []))


def forward_steps(quick):
    for peers, rounds in {1000: 4, 10000: 3}.items() if quick else {size: 12 if size in (1000, 10000) else 4 for size in SIZES}.items():
        yield ["forward", "--peers", peers, "--rounds", rounds]


def scrape_steps(quick):
    for peers in (10000, 100000):
        yield ["scrape", "--peers", peers, "--rounds", 5 if quick else 11]


def lengths_steps(quick, builds):
    if builds:
        earlier, now, *older = builds
        loads, rounds = (16, 24) if quick else (48, 40)
        yield ["lengths", "--peers", 1000, "--loads", loads, "--rounds", rounds, "--earlier", earlier, "--now", now,
               *(["--or", older[0]] if older else [])]


def neighbour_steps(quick, earlier):
    size = ["--rounds", 2, "--seconds", 4, "--peers", 10] if quick else ["--rounds", 5]
    yield ["neighbour.py", *size, *(["--base", earlier] if earlier else [])]


def crowd_steps(quick, long):
    fewer = ["--gateways", 1000] if quick else []  # that report as often as many do in a minute
    yield ["crowd.py", "reports", *fewer, *(["--period", 6] if quick else []), "--seconds", 1800 if long else 20]
    yield ["crowd.py", "polls", *fewer]


def steps(quick, long, builds, earlier):
    """Name of a part -> its command lines. A word that ends in .py is a program of its own, in this folder."""
    return {
        "cost": list(cost_steps(quick)),
        "lengths": list(lengths_steps(quick, builds)),
        "contend": [["contend", "--rounds", 5 if quick else 21]],
        "forward": list(forward_steps(quick)),
        "scrape": list(scrape_steps(quick)),
        "tunnel": [["tunnel", "--rounds", 32 if quick else 96, "--milliseconds", 25 if quick else 40]],
        "credit": [["credit", "--rounds", 3 if quick else 10]],
        "agent": [["agent.py", "--windows", 1 if quick else 6, "--changes", 60 if quick else 200]],
        "whole": [["whole.py"]],
        "ingest": [["ingest.py", "--rounds", 1 if quick else 3, "--shapes", "catch-up", "single"]],
        "neighbour": list(neighbour_steps(quick, earlier)),
        "query": [["query.py", *(["--rows", 350000, "--questions", 30] if quick else [])]],
        "crowd": list(crowd_steps(quick, long)),
    }


def say(words):
    print(words, file=sys.stderr, flush=True)


def choose(every, arguments):
    """The parts that are measured. What is not, although one might expect it, is said."""
    parts = arguments.parts or [part for part in JUDGES if not (arguments.quick and part in API_PARTS)]
    if arguments.quick and not arguments.parts:
        say(f"bench: QUICK=1 leaves out what needs the API: {', '.join(API_PARTS)}; PARTS=\"…\" measures these, in short, too")
    if "lengths" in parts and not arguments.builds:
        say(f"bench: lengths is left out: {arguments.base} is no commit of this history; BASE=COMMIT names another")
    if "neighbour" in parts and not arguments.earlier:
        say(f"bench: neighbour measures this build alone: {arguments.base} is no commit of this history; BASE=COMMIT names another")
    return {part: every[part] for part in JUDGES if part in parts and every[part]}


def finish(process, words, begun):
    """What it has printed. Now and then it is told that the step still goes on."""
    while True:
        try:
            return process.communicate(timeout=STILL)[0]
        except subprocess.TimeoutExpired:
            elapsed = time.monotonic() - begun
            say(f"    {words[0]}: {elapsed:.0f} s so far")
            if elapsed > TIMEOUT:
                process.terminate()
                process.wait()
                say(f"bench: it takes longer than {TIMEOUT} s and is ended")
                return ""


def run_step(program, words, place):
    """The lines that it has printed, or None if it has failed. `place`: which of how many steps it is."""
    command = [sys.executable, HERE / words[0], *words[1:]] if words[0].endswith(".py") else [program, *words]
    begun = time.monotonic()
    say(f"  {place} {' '.join(words)}")
    with subprocess.Popen([ENVELOPE, *command], stdout=subprocess.PIPE, text=True) as process:
        try:
            output = finish(process, words, begun)
        except BaseException:
            process.terminate()
            raise
    say(f"    {time.monotonic() - begun:.1f} s")
    if process.returncode != 0:
        say(f"bench: {' '.join(words)}: status {process.returncode}")
        return None
    return output.splitlines()


def measure(program, todo):
    """Name of a series -> its samples, of the parts and their steps; and the parts that have failed."""
    series, failed, number, count = {}, set(), 0, sum(map(len, todo.values()))
    for part, of_part in todo.items():
        for step in of_part:
            number += 1
            if part in failed:
                continue
            lines = run_step(program, [str(word) for word in step], f"{number}/{count}")
            if lines is None:
                failed.add(part)
                continue
            for line in lines:
                record = json.loads(line)
                series[record["series"]] = record["values"]
    return series, failed


def quartiles_apart(values):
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


def each(function, *samples):
    """Round by round; all parts of one comparison have as many."""
    return [function(*values) for values in zip(*samples)]


def of_groups(blocks):
    """The medians of groups of blocks that came one after another: of smaller ones where there are few blocks."""
    size = min(GROUP, max(len(blocks) // 4, 1))
    groups = [blocks[i:i + size] for i in range(0, len(blocks) - size + 1, size)]
    return [statistics.median(group) for group in groups]


def drawn_again(values):
    """Medians of the samples drawn again, with repetition, from the lowest on."""
    chance = random.Random(1)
    return sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(RESAMPLINGS))


def interval(values):
    """Between which the median lies in 95 of 100 resamplings; None for too few samples."""
    if len(values) < 5:
        return None
    medians = drawn_again(values)
    return [round(medians[RESAMPLINGS * 25 // 1000], 4), round(medians[RESAMPLINGS * 975 // 1000 - 1], 4)]


def noise(unit, median, spread, between, bound):
    """In words, why a result proves nothing, or None. A ratio's bound near one stands for its distance from one."""
    size = abs(bound - 1) if unit == "ratio" and 0.5 < bound < 2 else abs(bound)
    if spread > size > 0 and spread > abs(median - bound):
        return "the spread exceeds the target"
    if between and between[0] < bound < between[1]:
        return "within the noise"
    return None


def thousands(number):
    return f"{number:,}"


def some(peers):
    return f"{thousands(peers)} peer{'' if peers == 1 else 's'}"


class Results:
    """What has been measured, held against its targets."""

    def __init__(self, series):
        self.series = series
        self.rows = []

    def of(self, *parts):
        return self.series["/".join(map(str, parts))]

    def has(self, *parts):
        return "/".join(map(str, parts)) in self.series

    def add(self, name, unit, values, baseline=None, target=None, spread_of=None):
        """target: ("<=" or ">=" or "<" or "==", number), or None for what is only shown. baseline: samples. spread_of: what
        it makes of the samples is what spreads."""
        median = statistics.median(values)
        spread = quartiles_apart(spread_of(values) if spread_of else values)
        between = interval(values)
        met = doubt = None
        if target:
            sign, bound = target
            met = {"<=": median <= bound, ">=": median >= bound, "<": median < bound, "==": median == bound}[sign]
            doubt = noise(unit, median, spread, between, bound)
        self.rows.append({
            "name": name,
            "unit": unit,
            "median": round(median, 4),
            "spread": round(spread, 4),
            "interval": between,
            "baseline": None if baseline is None else round(statistics.median(baseline), 4),
            "target": f"{target[0]} {target[1]:,.10g}" if target else None,
            "met": met,
            "doubt": doubt,
        })

    def added(self, *place):
        """Nanoseconds that a program adds to the same driver in front of an empty one."""
        *where, what = place
        return each(lambda program, empty: program - empty, self.of("cost", *where, what),
                    self.of("cost", *where, "empty"))


def quotient(above, below):
    """A cost lost in noise, at or below nothing, is taken for a tenth of a nanosecond."""
    return above / max(below, 0.1)


def program_cost(results):
    bounds = {1: 8, 100: 8, 1000: 8, 10000: 10, 100000: 25}
    for family in ("v4", "v6"):
        for peers in SIZES:
            place = (family, "dense", peers)
            results.add(f"program, IP{family} dense, {some(peers)}: added to an empty program", "ns",
                        results.added(*place, "meter"), results.of("cost", *place, "bare"), ("<=", bounds[peers]))
        for peers in SIZES[:4]:
            place = (family, "dense", peers)
            bare = results.of("cost", *place, "bare")
            results.add(f"program, IP{family} dense, {some(peers)}: whole program ÷ an empty one", "ratio",
                        each(lambda add, alone: (alone + add) / alone, results.added(*place, "meter"), bare), bare,
                        ("<=", 2.0))
        one = results.added(family, "dense", 1, "meter")
        for peers, bound in ((10000, 2), (100000, 5)):
            results.add(f"program, IP{family} dense: added at {some(peers)} ÷ at 1", "ratio",
                        each(quotient, results.added(family, "dense", peers, "meter"), one), one, ("<=", bound))


def against_naive(results):
    for family in ("v4", "v6"):
        for peers, bound in ((1000, 12), (10000, 30), (100000, 50)):
            naive = results.added(family, "dense", peers, "naive")
            results.add(f"program, IP{family} dense, {some(peers)}: naive design's added ÷ ours", "ratio",
                        each(quotient, naive, results.added(family, "dense", peers, "meter")), naive, (">=", bound))


def scattered_cost(results):
    for family, peers, bound in (("v4", 1000, 35), ("v4", 10000, 65), ("v6", 1000, None), ("v6", 10000, 40)):
        place = (family, "scattered", peers)
        results.add(f"program, IP{family} sites, {some(peers)}: added to an empty program", "ns",
                    results.added(*place, "meter"), results.of("cost", *place, "bare"),
                    ("<=", bound) if bound else None)
    for family in ("v4", "v6"):
        trie = results.added(family, "scattered", 1000, "trie")
        results.add(f"program, IP{family} sites, 1,000 peers: the kernel's trie's added ÷ ours", "ratio",
                    each(quotient, trie, results.added(family, "scattered", 1000, "meter")), trie, (">=", 3))


def quota(results):
    for kind, what in (("limit", "limited"), ("a limit for every peer, too", "peers-limited")):
        for family in ("v4", "v6"):
            for peers in SIZES[:4]:
                place = ("cost", family, "dense", peers)
                free = results.of(*place, "meter")
                results.add(f"{kind}, IP{family} dense, {some(peers)}: added to the meter without", "ns",
                            each(lambda limited, unlimited: limited - unlimited, results.of(*place, what), free), free,
                            ("<=", 2))


def lengths(results):
    def of_pairs(rounds):
        """The median of each pair of loaded programs."""
        [loads] = results.of("lengths/loads")
        size = len(rounds) // round(loads)
        return [statistics.median(rounds[i:i + size]) for i in range(0, len(rounds), size)]

    def rows(shapes, label, bound):
        for shape, words in shapes.items():
            earlier = results.of("lengths", shape, "earlier")
            differences = each(lambda now, then: now - then, results.of("lengths", shape, "now"), earlier)
            results.add(f"{label}, {words}: beside the earlier build", "ns", of_pairs(differences), earlier,
                        ("<=", bound) if bound else None, spread_of=drawn_again)

    results.add("what a plain packet passes: instructions that are not the earlier build's (baseline: all)", "instructions",
                results.of("lengths/hook/differ"), results.of("lengths/hook/all"))

    rows({"plain4": "IPv4", "plain6": "IPv6"}, "a plain packet", 0.5)
    rows({"tcp4": "TCP, IPv4", "tcp6": "TCP, IPv6", "udp4": "UDP", "ipip": "TCP in IPIP", "gre": "TCP in GRE", "vxlan": "TCP in VXLAN",
          "srv6": "TCP in SRv6"}, "an aggregate of 45 segments", 40)
    rows({"three": "TCP in VXLAN in VXLAN in VXLAN"}, "an aggregate of 45 segments", None)


def contention(results):
    def added(cores, what):
        return each(lambda program, empty: program - empty, results.of("contend", cores, what),
                    results.of("contend", cores, "empty"))

    def growth(what):
        return each(quotient, added(2, what), added(1, what))

    results.add("two cores on one peer: added to each ÷ on one core (baseline: one shared atomic counter)", "ratio",
                growth("limited"), growth("shared"), ("<=", 1.2))
    results.add("two cores on one peer: counts lost", "packets", [0], None, ("==", 0))


def forwarding(results):
    def percent(a, b):
        return (a - b) / b * 100

    bounds = {1000: (4, 8, 2.5), 10000: (7, None, 2.5)}
    for peers in SIZES:
        if not results.has("forward", peers, "nothing"):
            continue
        one, both, nft = bounds.get(peers, (None, None, None))
        label = f"forwarding, {some(peers)}: "
        for hooks, words, bound in (("hook", "an empty program, one hook", one),
                                    ("hooks", "empty programs, both hooks", both)):
            empty = results.of("forward", peers, hooks, "without")
            results.add(label + "time added to " + words, "%",
                        each(percent, results.of("forward", peers, hooks, "meter"), empty), empty,
                        ("<=", bound) if bound else None, spread_of=of_groups)
        alone, meter = results.of("forward", peers, "alone", "without"), results.of("forward", peers, "alone", "meter")
        results.add(label + "time added to nothing attached, one hook", "%", each(percent, meter, alone), alone,
                    spread_of=of_groups)
        tcx = results.of("forward", peers, "xdp", "without")
        results.add(label + "time added by --attach xdp to the same count on tcx ingress", "%",
                    each(percent, results.of("forward", peers, "xdp", "meter"), tcx), tcx, spread_of=of_groups)
        ours = statistics.median(each(lambda a, b: a - b, meter, alone))
        nothing, nft_set = results.of("forward", peers, "nothing"), results.of("forward", peers, "nft-set")
        nft_added = each(lambda a, b: a - b, nft_set, nothing)
        results.add(label + "nft set with counters' added ÷ ours", "ratio",
                    [added / max(ours, 1) for added in nft_added], nft_added, (">=", nft) if nft else None)
        if results.has("forward", peers, "nft-rules"):
            results.add(label + "one nft rule a peer, whole time ÷ nothing attached", "ratio",
                        each(quotient, results.of("forward", peers, "nft-rules"), nothing), nothing)


def scraping(results):
    for peers in (10000, 100000):
        mapping = results.of("scrape", peers, "mapping")
        label = f"scrape, {some(peers)}: "
        results.add(label + "a peer and direction", "ns", mapping, None, ("<=", 5))
        batch = results.of("scrape", peers, "array-batch")
        results.add(label + "lookup_batch of a per-CPU array ÷ ours", "ratio", each(quotient, batch, mapping), batch,
                    (">=", 40))
    mapping = results.of("scrape", 10000, "mapping")
    for other, label in (("nft", "nft list"), ("wg", "wg show transfer")):
        values = results.of("scrape", 10000, other)
        results.add(f"scrape, 10,000 peers: {label} ÷ ours", "ratio", each(quotient, values, mapping), values,
                    (">=", 500))


def tunnel(results):
    for protocol, label in (("tcp", "TCP"), ("udp", "UDP in packets of 100 bytes")):
        plain = results.of("tunnel", protocol, "plain", "spent")
        results.add(f"tunnel, {label}: throughput of a second of CPU time with the meter ÷ without", "ratio",
                    each(lambda without, metered: without / metered, plain,
                         results.of("tunnel", protocol, "metered", "spent")), plain, (">=", 0.99), spread_of=of_groups)
        plain = results.of("tunnel", protocol, "plain", "rate")
        results.add(f"tunnel, {label}: throughput of a second of the clock with the meter ÷ without", "ratio",
                    each(quotient, results.of("tunnel", protocol, "metered", "rate"), plain), plain, spread_of=of_groups)
    total = results.of("accuracy", "total")
    results.add("accuracy, TCP with GSO: meter − interface", "bytes", results.of("accuracy", "bytes"), total, ("==", 0))
    results.add("accuracy, TCP with GSO: meter − interface", "packets", results.of("accuracy", "packets"), None,
                ("==", 0))


def credit(results):
    for limit in LIMITS:
        results.add(f"limit of {thousands(limit)} bytes, two cores: unused credit at the first refusal", "bytes",
                    results.of("credit", limit), [limit], ("<", max(10**6, limit // 1000)))
    results.add("limits, two cores: bytes admitted beyond one", "bytes", [0], None, ("==", 0))


def agent(results):
    results.add("agent, 1,000 active peers, a sample a second, a report in ten: CPU time of one core", "%",
                results.of("agent/cpu"), None, ("<", 0.2))
    results.add("agent, 1,000 active peers: anonymous memory (baseline: all that is resident)", "bytes",
                results.of("agent/anonymous"), results.of("agent/resident"), ("<", 6 << 20))
    results.add("peer change among 1,000: answered to the agent → reported as in force, 99 of 100 within (baseline: median)",
                "ms", results.of("change/slowest"), results.of("change/milliseconds"), ("<", 100))
    results.add("peer change among 1,000: another peer's packets lost (baseline: sent)", "packets",
                results.of("change/lost"), results.of("change/sent"), ("==", 0))
    few, many = (results.of("messages", peers, "count") for peers in (1000, 4000))
    results.add("peer change among 4,000: requests to WireGuard ÷ among 1,000 (baseline: requests)", "ratio",
                each(quotient, many, few), many, ("<=", 1))
    few, many = (results.of("messages", peers, "bytes") for peers in (1000, 4000))
    results.add("peer change among 4,000: bytes to WireGuard ÷ among 1,000 (baseline: bytes)", "ratio",
                each(quotient, many, few), many, ("<=", 1))


def whole(results):
    results.add("gateway deploy, netns driver: from the command until it is active", "ms",
                results.of("whole/deploy"), None, ("<", 1000))
    results.add("peer change through API, PostgreSQL and agent: answered → in WireGuard and meter, 99 of 100 within "
                "(baseline: median)", "ms", results.of("whole/change"), results.of("whole/change-median"), ("<", 100))
    results.add("peer change through API, PostgreSQL and agent: another peer's packets lost (baseline: sent)", "packets",
                results.of("whole/lost"), results.of("whole/sent"), ("==", 0))


def ingestion(results):
    for shape, words, bound in (("catch-up", "50 peers, 20 samples of each", 0.5),
                                ("single", "1,000 peers, one sample of each", 0.2)):
        label = f"ingestion, batches of {words}: "
        ours, copy, copies = (results.of("ingest", shape, what) for what in ("api", "copy", "copies"))
        results.add(label + "rows a second ÷ a bare COPY's (baseline: COPY's)", "ratio", each(lambda a, b: a / b, ours, copy), copy, (">=", bound))
        results.add(label + "rows a second ÷ those of two COPYs at once (baseline: theirs)", "ratio", each(lambda a, b: a / b, ours, copies), copies)
        results.add(label + "CPU time of API and PostgreSQL for a row (baseline: PostgreSQL's for a COPY's)", "us",
                    each(lambda a, b: a + b, results.of("ingest", shape, "cpu-api"), results.of("ingest", shape, "cpu-database")),
                    results.of("ingest", shape, "cpu-copy"))


def query(results):
    [rows] = results.of("query/rows")
    results.add(f"usage of one gateway's cycle by hour, {thousands(round(rows))} rows of history: 99 of 100 within (baseline: median)",
                "ms", results.of("query/slowest"), results.of("query/milliseconds"), ("<", 20))


def neighbour(results):
    for what, words in (("read", "another customer reads"), ("report", "another gateway reports")):
        label = f"beside 40 connections creating peers and a gateway's largest reports, {words}: 99 of 100 within, "
        for build, of_build in (("ours", ""), ("base", ", the earlier build")):
            if results.has("neighbour", build, what, "alone"):
                alone = results.of("neighbour", build, what, "alone")
                results.add(f"{label}÷ without these{of_build} (baseline: without)", "ratio",
                            each(quotient, results.of("neighbour", build, what, "crowded"), alone), alone,
                            ("<=", 2) if build == "ours" else None)
    for what, words in (("create", "time"), ("create-cpu", "CPU time of API and PostgreSQL")):
        ours = results.of("neighbour/ours", what)
        if not results.has("neighbour/base", what):
            results.add(f"a peer with automatic addresses: {words}", "ms", ours)
            continue
        base = results.of("neighbour/base", what)
        results.add(f"a peer with automatic addresses: {words}, the earlier build's ÷ ours (baseline: ours, ms)", "ratio",
                    each(quotient, base, ours), ours, (">=", 10) if what == "create" else None)


def crowd(results):
    [gateways], [period] = results.of("crowd/reports/gateways"), results.of("crowd/reports/period")
    whole = gateways == 10000  # what the targets are for
    label = f"{thousands(gateways)} gateways of 20 peers, a report in {period:g} s: "
    database, api = results.of("crowd/reports/database"), results.of("crowd/reports/api")
    results.add(label + "share of both CPUs (baseline: PostgreSQL's)", "%", each(lambda a, b: a + b, database, api), database,
                ("<", 70) if whole else None)
    results.add(label + "answered late, 99 of 100 within", "s", results.of("crowd/reports/late"), None, ("<", 1) if whole else None)
    first, [seconds] = results.of("crowd/reports/memory-first"), results.of("crowd/reports/seconds")
    results.add(label + "anonymous memory in the last quarter ÷ in the first (baseline: in the first)", "ratio",
                each(quotient, results.of("crowd/reports/memory-last"), first), first, ("<=", 1.1) if seconds >= LONG_ENOUGH else None)
    [polls] = results.of("crowd/polls/gateways")
    label = f"{thousands(polls)} suspended polls over TLS: "
    results.add(label + "the API's anonymous memory for them (baseline: all that is resident)",
                "bytes", results.of("crowd/polls/anonymous"), results.of("crowd/polls/resident"))
    results.add(label + "all served again after the replica is killed (baseline: at first)", "s",
                results.of("crowd/polls/again"), results.of("crowd/polls/first"), ("<", 60) if polls == 10000 else None)


JUDGES = {
    "cost": (program_cost, against_naive, scattered_cost, quota),
    "lengths": (lengths,),
    "contend": (contention,),
    "forward": (forwarding,),
    "scrape": (scraping,),
    "tunnel": (tunnel,),
    "credit": (credit,),
    "agent": (agent,),
    "whole": (whole,),
    "ingest": (ingestion,),
    "neighbour": (neighbour,),
    "query": (query,),
    "crowd": (crowd,),
}


def judge(series, parts):
    results = Results(series)
    for part in parts:
        for rows in JUDGES[part]:
            rows(results)
    return results.rows


def machine():
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"cpu": model.group(1) if model else platform.machine(), "cpus": os.cpu_count(),
            "kernel": platform.release(), "load": round(os.getloadavg()[0], 2),
            "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}


def shown(number):
    if number is None:
        return ""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}" if abs(number) < 10 else f"{number:.1f}"


def table(rows):
    lines = ["| what | median | spread | baseline | target | met |", "| --- | ---: | ---: | ---: | --- | --- |"]
    for row in rows:
        met = {True: "yes", False: "**no**", None: ""}[row["met"]] + (f", but {row['doubt']}" if row["doubt"] else "")
        target = (row["target"] or "").replace("<=", "≤").replace(">=", "≥").replace("==", "=")
        unit = "" if row["unit"] == "ratio" else " " + row["unit"]
        lines.append(f"| {row['name']} | {shown(row['median'])}{unit} | {shown(row['spread'])} "
                     f"| {shown(row['baseline'])} | {target} | {met} |")
    return "\n".join(lines)


def summary(rows):
    held = [row["met"] for row in rows if row["met"] is not None]
    doubtful = sum(row["doubt"] is not None for row in rows)
    return f"{sum(held)} of {len(held)} targets met" + (f"; {doubtful} results are doubtful for noise" if doubtful else "")


def write_docs(folder, report):
    """The pictures, and the table between the two notes of the page beside the folder."""
    draw.write_all(folder, report["series"])
    page = folder.with_suffix(".md")
    before, _, after = page.read_text().split(NOTE)
    where = report["machine"]
    intro = (f"A {where['run']} run on {where['cpus']} CPUs ({where['cpu']}), Linux {where['kernel']}, {where['when']}, "
             f"load {where['load']} at the start, {where['minutes']:.0f} minutes; {summary(report['results'])}.")
    page.write_text(f"{before}{NOTE}\n{intro}\n\n{table(report['results'])}\n{NOTE}{after}")


def check(arguments):
    """Ends this if what is asked for cannot be done."""
    unknown = [part for part in arguments.parts if part not in JUDGES]
    if unknown:
        sys.exit(f"make bench: PARTS: {' '.join(unknown)} is no part; accepted are {' '.join(JUDGES)}")
    if arguments.docs and arguments.parts:
        sys.exit("make bench: UPDATE_DOCS=1 writes the whole table: not with PARTS")
    if os.geteuid() != 0:
        sys.exit("make bench: needs root, for BPF and network namespaces: run 'sudo make bench'")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--long", action="store_true", help="half an hour of reports")
    parser.add_argument("--docs", type=Path, help="also write pictures into this folder and the table beside it")
    parser.add_argument("--builds", nargs="+", metavar="FILE", help="object files of the programs, for lengths: the earlier build's, "
                        "this one's, and those of this one for kernels that do not take the former")
    parser.add_argument("--earlier", type=Path, help="where the programs of an earlier build are, for neighbour")
    parser.add_argument("--base", default="what is given", help="the commit of the earlier build, as it was asked for")
    parser.add_argument("--parts", nargs="*", default=[], help="only these")
    parser.add_argument("--check", action="store_true", help="only look whether all this can be done")
    arguments = parser.parse_args()
    check(arguments)
    if arguments.check:
        return
    every = steps(arguments.quick, arguments.long, arguments.builds, arguments.earlier and arguments.earlier.resolve())
    todo, where, begun = choose(every, arguments), machine(), time.monotonic()
    if not todo:
        sys.exit("bench: nothing is left to measure")
    series, failed = measure(arguments.program.resolve(), todo)
    where |= {"run": "quick" if arguments.quick else "long" if arguments.long else "full",
              "minutes": round((time.monotonic() - begun) / 60, 1)}
    report = {"results": judge(series, [part for part in todo if part not in failed]), "machine": where, "series": series}
    arguments.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    print(table(report["results"]))
    print(f"{summary(report['results'])}; {where['minutes']} minutes")
    if failed:
        sys.exit(f"bench: no results of {', '.join(sorted(failed))}" + ("; docs/performance.md is left as it was" if arguments.docs else ""))
    if arguments.docs:
        write_docs(arguments.docs, report)


if __name__ == "__main__":
    main()
