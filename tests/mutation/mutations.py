# SPDX-License-Identifier: BSD-2-Clause
"""Bugs that meters have been found with, as edits of this tree, each with the tests that must notice it.

An edit is (file, text, other text); the text must be in the file exactly once, so that a mutation never quietly changes
nothing after the code has moved.
"""

INTAKE = "api/billing/intake.c"
REPORTS = "api/store/migrations/0007_reports.sql"
MAPS = "userspace/meter/maps.c"

BEGIN = """\tif (r == 0)
\t\tr = db_begin(db);
\tfor (size_t i = 0; i < N_REPORT_TABLES && r == 0; i++)
"""
OPEN_READING = "void meter_read(const struct meter *meter, uint32_t slot, struct meter_totals *ret_totals)\n{\n"
END_READING = """\t\ttotals.refused_packets += LOAD(count->packets);
\t}
\t*ret_totals = totals;
"""
REFUSED = """        OR (NOT r.more AND (r.counted < w.held_counted OR coalesce(w.grant_cycle < w.held_cycle, false)
                            OR coalesce(w.grant_cycle = w.held_cycle AND r.cycle_counted < w.held_cycle_counted, false))));
"""
ANY_TOTAL = (REPORTS, "    WHERE r.n = w.n AND w.verdict IS NULL AND (\n        r.shrunk\n",
             "    WHERE false AND r.n = w.n AND w.verdict IS NULL AND (\n        r.shrunk\n")


def durably_claimed():
    """A transaction of its own that notes the batch as seen, before the one that counts it."""
    return BEGIN[:BEGIN.index("\tfor")] + """\tif (r == 0)
\t\tr = copy_table(db, REPORT_IN, requests, n);
\tif (r == 0)
\t\tr = DB_EXECUTE(db, "INSERT INTO billing.claim SELECT r.epoch, r.seq, pg_backend_pid() FROM pg_temp.report_in r "
\t\t\t\t   "ON CONFLICT DO NOTHING");
\tif (r >= 0)
\t\tr = db_commit(db);
""" + BEGIN


MUTATIONS = {
    "a batch is known before it is written": {
        "edits": [
            (INTAKE, BEGIN, durably_claimed()),
            (REPORTS, "-- What the kernel gave back after it was charged",
             "CREATE TABLE billing.claim (epoch uuid, seq bigint, pid integer, PRIMARY KEY (epoch, seq));\n"
             "GRANT ALL ON billing.claim TO wiretoll_api;\n-- What the kernel gave back after it was charged"),
            (REPORTS, "               WHEN r.seq <= e.last_seq THEN 'held'\n",
             "               WHEN r.seq <= e.last_seq OR EXISTS (SELECT FROM billing.claim k WHERE k.epoch = r.epoch AND k.seq = r.seq\n"
             "                   AND k.pid <> pg_backend_pid()) THEN 'held'\n"),
        ],
        "programs": ["wiretoll-api"],
        "tests": ["tests/soak/test_commit.py", "-k", "middle and API"],
    },
    "a total is set to what comes": {
        "edits": [
            (REPORTS, "WHEN e.boot_id <> r.boot_id OR b.crc <> r.crc THEN", "WHEN e.boot_id <> r.boot_id THEN"),
            (REPORTS, "               WHEN r.seq <= e.last_seq THEN 'held'\n", ""),
            (REPORTS, "               WHEN r.seq <> e.last_seq + 1 AND r.seq IS DISTINCT FROM r.kept_from THEN 'gap'\n", ""),
            (REPORTS, "r.epoch, r.seq, r.crc FROM report_in r JOIN report_work w ON w.n = r.n WHERE w.verdict IS NULL;",
             "r.epoch, r.seq, r.crc FROM report_in r JOIN report_work w ON w.n = r.n WHERE w.verdict IS NULL ON CONFLICT DO NOTHING;"),
            (REPORTS, "           s.up, s.down, s.up_packets, s.down_packets, s.undelivered, s.refused, s.split\n"
                      "    FROM sample_in s JOIN report_work w ON w.n = s.n;\n",
             "           s.up, s.down, s.up_packets, s.down_packets, s.undelivered, s.refused, s.split\n"
             "    FROM sample_in s JOIN report_work w ON w.n = s.n ON CONFLICT DO NOTHING;\n"),
            ANY_TOTAL,
        ],
        "programs": ["wiretoll-api"],
        "tests": ["tests/api/test_agent_api.py", "-k", "repeats or shrinks"],
    },
    "the sampler reads and clears": {
        "edits": [
            (MAPS, "slots * WT_KINDS, PROT_READ, &meter->counts},", "slots * WT_KINDS, both, &meter->counts},"),
            (MAPS, OPEN_READING, "static struct meter_totals taken[1 << 16];\n\n" + OPEN_READING),
            (MAPS, END_READING, END_READING.replace("\t*ret_totals = totals;\n", """\
\tfor (uint32_t cpu = 0; slot < meta->capacity && cpu < meta->cpus; cpu++)
\t\tfor (int kind = 0; kind < WT_KINDS; kind++)
\t\t\tmemset((void *)&meter->counts[wt_count_index(cpu, kind, slot, meta->stride)], 0,
\t\t\t       sizeof(struct wt_count));
\ttaken[slot].upload_bytes += totals.upload_bytes;
\ttaken[slot].upload_packets += totals.upload_packets;
\ttaken[slot].download_bytes += totals.download_bytes;
\ttaken[slot].download_packets += totals.download_packets;
\ttaken[slot].refused_bytes += totals.refused_bytes;
\ttaken[slot].refused_packets += totals.refused_packets;
\t*ret_totals = taken[slot];
""")),
        ],
        "programs": ["wiretoll-agent"],
        "tests": ["tests/net/test_agent.py", "-k", "killed_agent_goes_on or kills_at_any_moment"],
    },
    "a smaller total is a counter that began anew": {
        "edits": [
            ANY_TOTAL,
            (REPORTS, "    SET up = s.up - b.up, down = s.down - b.down,",
             "    SET up = CASE WHEN s.up < b.up THEN s.up ELSE s.up - b.up END,\n"
             "        down = CASE WHEN s.down < b.down THEN s.down ELSE s.down - b.down END,"),
        ],
        "programs": ["wiretoll-api"],
        "tests": ["tests/api/test_agent_api.py", "-k", "shrinks and bytes"],
    },
    "a batch is acknowledged before it is durable": {
        "edits": [
            (INTAKE, BEGIN, BEGIN.replace("\tfor (", "\tif (r == 0)\n\t\tr = DB_EXECUTE(db, \"SET LOCAL synchronous_commit TO off\");\n\tfor (")
             .replace("i = 0; i < N_REPORT_TABLES && r == 0;", "i = 0; i < N_REPORT_TABLES && r >= 0;")),
        ],
        "programs": ["wiretoll-api"],
        "tests": ["tests/soak/test_commit.py", "-k", "acknowledged_is_durable"],
    },
}
