/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What has been counted for each public key, over restarts, re-used slots and reboots: a file that is
 * replaced as a whole. A record's total says which reading of its slot it includes, so that whoever reads
 * slot and file later knows the total of that moment; nothing is lost between two writings, and nothing added
 * twice.
 */
#ifndef WIRETOLL_STANDALONE_HISTORY_H
#define WIRETOLL_STANDALONE_HISTORY_H

#include "base/cidr.h"
#include "base/json.h"
#include "base/key.h"
#include "meter/audit.h"
#include "meter/meter.h"
#include "standalone/amount.h"

/* Bytes up and down. */
struct volume {
	uint64_t upload_bytes, download_bytes;
};

/* A limit and what the kernel was last told about it. */
struct limit {
	bool set;
	struct amount amount;
	/* The cycle that the grant in force belongs to. cycle 0: none yet. */
	uint64_t cycle;
	enum period cycle_period;
	int64_t cycle_began;
	/* Not in the file: what the grant is worth (the amount and what was given back), and from when on in
	 * boot time the next period's is good. 0: none was laid down. */
	uint64_t told;
	int64_t told_next_boot_ns;
	/* Nor this: where the line of counted was when the period that began last was noted. */
	uint64_t turned_at;
};

/* What WireGuard has sent towards a peer, compared with what was counted on its way there (M4). */
struct delivery {
	uint64_t undelivered; /* settled: only grows */
	/* Where the comparison began, and what had been found before. */
	uint64_t base_bytes, base_packets, base_sent, base_undelivered;
	uint64_t last_sent;
	/* A sample that is old enough to be compared after 100 s; not in the file. */
	int64_t sampled_boot_ns;
	uint64_t sampled_bytes, sampled_packets;
};

struct record {
	struct key public_key; /* zero: what belongs to no peer */
	char *name;            /* NULL: none */
	bool present;          /* WireGuard has this peer */
	uint32_t slot;         /* 0: none (the unattributed one has slot 0) */
	uint32_t incarnation;
	struct meter_totals total;           /* as of the reading `cell` of its slot */
	struct meter_totals cell;            /* of the history's epoch */
	struct volume before_attach;         /* WireGuard's counters when this epoch met the peer */
	struct volume period_began[PERIODS]; /* the totals when each period began */
	uint64_t period_undelivered[PERIODS];
	struct limit limit;
	struct delivery delivery;
	bool rx_short; /* the meter counted uploads that WireGuard never received; it stays for the epoch */
	struct cidr *allowed_ips;
	size_t n_allowed_ips;
	/* Not in the file: */
	struct audit audit;
	struct meter_totals before_dump; /* the total before WireGuard was asked */
	bool told;                       /* of rx_short */
	bool limited;                    /* refused at the moment */
	int64_t retired_boot_ns;         /* since when it is not present, yet has its slot */
};

struct history {
	char interface[16];
	char wireguard[16];  /* the name by which WireGuard answers; empty: the interface's */
	uint64_t reattached; /* how often the meter was attached anew, as somebody had detached it */
	char place[48];      /* of the pins whose cells the records include */
	uint8_t epoch[16];   /* zero: none */
	uint32_t accounting; /* WT_UPLOADS | WT_DOWNLOADS */
	int64_t period_began[PERIODS];
	struct volume interface_began[PERIODS];
	uint64_t interface_undelivered[PERIODS];
	struct limit limit; /* of the interface */
	/* By public key; the first is the unattributed one. */
	struct record **records;
	size_t n_records, size;
};

/* An empty history. Returns -ENOMEM. */
WT_MUST_CHECK int history_create(const char *interface, struct history *ret_history);
void history_free(struct history *history);

/* Reads a file. -ENOENT when there is none, -EBADMSG with a message when it is not one of ours. */
WT_MUST_CHECK int history_load(const char *path, struct history *ret_history, struct json_problem *problem);

/* Replaces the file, durably. */
WT_MUST_CHECK int history_save(const struct history *history, const char *path);

/* NULL when there is none. */
struct record *history_find(const struct history *history, const struct key *public_key);

/* The record, a new one if there is none. NULL without memory. */
struct record *history_take(struct history *history, const struct key *public_key);

/* All slots of the epoch are void: their counts are in the totals. */
void history_end_epoch(struct history *history);

/* The meter was handed over: all slots are as they were, and count from 0. */
void history_next_epoch(struct history *history, const uint8_t epoch[static 16]);

/* Brings a record up to a reading of its slot; returns whether anything was new. */
bool record_add(struct record *record, const struct meter_totals *cell);

/* What WireGuard's own count says of the record: audit_verdict_name(). */
const char *record_audit(const struct record *record);

/* The sums over all records: what crossed the interface, and what was undelivered. */
struct volume history_sum(const struct history *history);
uint64_t history_undelivered(const struct history *history);

/* Whether a period has begun by now. A clock that goes back begins none. */
bool history_is_due(const struct history *history, int64_t utc_ns);

/*
 * Begins the periods that have begun by now: their use counts from the totals of this moment. Returns whether
 * one has.
 */
bool history_turn(struct history *history, int64_t utc_ns);

/* The bytes of a volume that a mask counts. */
uint64_t volume_counted(const struct volume *volume, uint32_t accounting);

/* Used of a limit in its period, by the mask in force, less what was not delivered. */
uint64_t record_used(const struct history *history, const struct record *record);
uint64_t history_used(const struct history *history);

#endif
