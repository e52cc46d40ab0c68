/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The agent as a whole, and what its parts ask of each other. A life: enrol → wait for the device → attach or
 * adopt the meter → report the epoch → follow the desired state → … → leave. A lost device, or an epoch that
 * the API refuses, ends the process: its next start is the one place that begins epochs.
 */
#ifndef WIRETOLL_AGENT_AGENT_H
#define WIRETOLL_AGENT_AGENT_H

#include "agent/batch.h"
#include "agent/config.h"
#include "agent/desired.h"
#include "agent/endpoints.h"
#include "agent/http.h"
#include "agent/loop.h"
#include "agent/plan.h"
#include "agent/slots.h"
#include "agent/states.h"
#include "agent/table.h"
#include "journal/journal.h"
#include "meter/meter.h"
#include "net/net.h"
#include "wg/wg.h"

struct agent;

/* A batch that is in the journal and to be sent, or sent again. */
struct pending {
	uint64_t sequence; /* in the journal */
	uint8_t epoch[UUID_SIZE];
	uint64_t seq;
	uint32_t checksum;
	uint32_t checksum_before; /* of the bytes that were sent before they were renewed; 0: never */
	uint64_t kept_from;       /* the journal has nothing of this epoch before this number; 0: not asked */
};

/* Of asking the API: at one of its addresses after the other, until one answers. */
struct attempts {
	size_t api;        /* index in use */
	unsigned failures; /* in a row */
	loop_tag retry;    /* 0: none is waited for */
};

/* An epoch, and the last of its batches that the API holds. */
struct held_epoch {
	uint8_t id[UUID_SIZE];
	uint64_t seq;
};

/* Who is told of what the uplink hears. */
struct uplink_events {
	/* The API holds the meter's epoch up to this batch; `first`: it had nothing of it before. */
	void (*acknowledged)(struct agent *agent, uint64_t seq, bool first);
	void (*drained)(struct agent *agent); /* nothing is pending */
	void (*failed)(struct agent *agent);  /* a try has failed */
	void (*gone)(struct agent *agent);    /* the API knows this gateway, or this attempt, no more */
	/* The API holds less than was sent: queues the rest again. -ENOENT: nothing of it is kept. */
	int (*gap)(struct agent *agent, const struct held_epoch *held);
	void (*answered)(struct agent *agent, const json_t *answer); /* before anything else */
};

struct uplink {
	const struct uplink_events *events;
	struct pending *pending; /* oldest first */
	size_t n_pending, size;
	struct http_request *request;
	char *payload; /* in flight, as the journal has it; the body points into it */
	struct batch_summary summary;
	const char *body;
	size_t length;
	struct attempts attempts;
	int64_t renewed_boot_ns; /* when a refused batch was last renewed */
	/* The API's database was put back to an earlier point each time that this number rises. */
	int64_t restored; /* -1: not known yet */
	bool refilling;   /* what it took away is still being sent */
	struct http_request *held_request;
};

/* Who is told of what the API wants. */
struct follow_events {
	/* Takes the state over; `grants_are_ours`: they are of the meter's epoch. */
	void (*state)(struct agent *agent, struct desired *desired, bool grants_are_ours);
	void (*gone)(struct agent *agent); /* the API knows this gateway, or this attempt, no more */
};

struct follow {
	const struct follow_events *events;
	struct http_request *request;
	bool request_knows_epoch; /* the API knew the epoch when it was asked: its ceilings are of this epoch
				   */
	struct attempts attempts;
	uint64_t have;
};

struct report {
	uint64_t next_seq;
	int64_t covered_to_ns;     /* UTC: where the next batch begins */
	int64_t boot_to_ns;        /* the same on the boot clock */
	int64_t next_boot_ns;      /* when the next one is due */
	int64_t watch_until_ns;    /* UTC: every second until then */
	bool due;                  /* wanted while another was being written */
	bool whole_due;            /* the next one says all slots: the API leaves a batch out */
	struct batch_list writing; /* built, and not in the journal yet */
	uint64_t sequence;         /* in the journal, of its first part */
	bool final;
	struct states states;
	bool exhausted; /* as last seen */
	loop_tag retry;
	bool complained;
	bool sparing; /* the journal runs short of room: a batch for each hour only */
};

/* What changed each second, in a journal of its own until a batch says it. */
struct samples {
	struct journal *journal;
	char *record;
	size_t size;
	bool writing;
	bool all_due;      /* the next one says all slots: the last write failed, or the samples are many */
	bool whole;        /* the one being written does */
	uint64_t sequence; /* its number */
	uint64_t counted;  /* the interface's, as last written */
	uint64_t covered;  /* up to this record, the batch that is being written says all */
	bool complained;
};

/* The next cycle's grant, as it was laid down. */
struct turn {
	struct meter_grant grant;
	int64_t at_ns; /* UTC; 0: only the kernel's instant is known, since before this process */
	loop_tag timer;
};

/* See sums.c. */
struct sums_base {
	uint64_t keys;                /* which peers there are */
	struct reconcile_link beside; /* modulo 2^64; with what they have counted it is the sum */
};

struct sums {
	bool known;
	struct sums_base now, next; /* before the last change of the peers, and after */
	struct reconcile_link told; /* the last sum: none is smaller */
};

/* See reconcile.c. */
struct reconcile {
	int64_t hour_ns;                /* the UTC hour that was told last */
	struct reconcile_link begin;    /* the interface, before an epoch that is about to begin */
	struct wg_device *begin_device; /* and WireGuard; NULL: it could not be asked */
	bool read_before;
	struct reconcile_link before;     /* the interface, before the sample */
	struct reconcile_journal written; /* what the batch that is being written comes to */
	struct reconcile_journal durable; /* what the last one in the journal came to */
};

/*
 * What one meter counts, from its first packet to its final batch. The agent's own goes on for as long as it
 * runs; one that is over is another, for as long as it takes to seal it.
 */
struct epoch {
	struct meter *meter;     /* NULL before there is one */
	struct meter *successor; /* that has taken over from it: it is being sealed; borrowed */
	struct slots slots;
	struct table table;
	struct report report;
	struct reconcile reconcile;
	struct sums sums;
	struct turn turn;
	bool granted; /* a grant of it is in force */
	bool known;   /* the API has acknowledged a batch of it */
};

enum leaving {
	STAYING,
	LEAVING_STOPPED, /* told to stop: metering goes on */
	LEAVING_GONE,    /* the gateway is deleted */
};

struct agent {
	const char *base;
	const char *pin_folder; /* below the BPF file system's root, so that it can be made and removed */
	struct config config;
	struct key private_key, public_key;
	struct loop *loop;
	struct http *http;
	struct journal *journal;
	struct samples samples;
	int clock_fd;          /* becomes readable when the wall clock is set */
	int64_t utc_offset_ns; /* of the wall clock from the boot clock, at the last sample */
	struct net *net, *link_watch;
	int ifindex;
	struct wg *wg;
	struct epoch epoch;
	int signal_fd;

	struct endpoints endpoints; /* last known ones */
	struct endpoints resolved;  /* of endpoints given by name */
	struct desired *desired;    /* the latest; NULL before the first */
	struct desired *applied;    /* the same when all of it is in force, else NULL */
	bool firewall_stands;
	bool up;
	uint64_t applied_revision;
	json_t *cannot_apply; /* array, or NULL: nothing */
	bool shadowed;        /* a program before the meter's may end the chain: said in the reports */
	int64_t settle_ns;    /* see meter/audit.h */
	loop_tag settling;
	loop_tag repairing;
	unsigned repairs; /* in a row */
	int resolver_pipe[2];

	struct uplink uplink;
	struct follow follow;
	enum leaving leaving;
	int exit_status;
	unsigned start_failures;
};

/* agent.c: ends the loop; nothing is answered any more. */
void agent_exit(struct agent *agent, int status);
bool upgrade_can_grow(const struct agent *agent);
/* Ends the process; the next one begins a new epoch, with a larger meter if asked, and the interface stays
 * up. */
void upgrade_begin_anew(struct agent *agent, bool larger);

/* start.c: device and meter. */
WT_MUST_CHECK int start_device(struct agent *agent); /* -ENODEV: not there yet */
WT_MUST_CHECK int start_meter(struct agent *agent);

/* restore.c: what is known of an epoch that goes on. */
WT_MUST_CHECK int restore_owners(const struct agent *agent,
				 struct epoch *epoch); /* slots, as meter, files and journal know them */
WT_MUST_CHECK int restore_table(struct epoch *epoch);  /* as the meter has it */
void restore_state(struct agent *agent, struct epoch *epoch); /* of the interface and its grant */

/* enroll.c: trades the one-time token, then calls `done`. */
void enroll_begin(struct agent *agent, void (*done)(struct agent *agent));

/* sample.c: reads all that the meter has counted. */
void sample_take(struct agent *agent, struct epoch *epoch);

/* schedule.c: timers, hour edges, steps of the clock and the ring buffer. */
WT_MUST_CHECK int schedule_begin(struct agent *agent);

/* report.c: batches, from samples into the journal. Made now, or once the last one is in the journal. */
void report_make(struct agent *agent);
void report_make_at(struct agent *agent, int64_t utc_to_ns);
void report_state(struct agent *agent, enum gateway_state state);
void report_watch_limit(struct agent *agent); /* whether it is reached, or no longer */
bool report_is_writing(const struct agent *agent);
/* All parts at once, to the journal and into the queue; blocking. */
WT_MUST_CHECK int report_append(struct agent *agent, const struct batch_list *list);
/* Blocking, for an epoch that is over at start. */
WT_MUST_CHECK int report_append_final(struct agent *agent, struct epoch *epoch);

/*
 * reconcile.c: counts made elsewhere, in the first batch of each hour; around the sample and into its batch.
 * They begin with the epoch: to be called right before and after.
 */
void reconcile_before_epoch(struct agent *agent);
void reconcile_begin_epoch(struct agent *agent);
void reconcile_before_sample(const struct agent *agent, struct epoch *epoch);
void reconcile_fill(struct agent *agent, struct epoch *epoch, struct batch_head *head);
void reconcile_durable(struct agent *agent, uint64_t seq);

/*
 * sums.c: WireGuard's own counters over all peers, those that have left too, since the epoch began. `before`
 * was dumped before it did. sums_take() follows each dump, and returns false where the sum is not known;
 * sums_told() makes it durable. What changes the peers is announced, with a dump; before a removal that is
 * one in which those that leave pass nothing any more. -ENOENT: nothing is known of this epoch.
 */
void sums_begin_epoch(struct agent *agent, const struct wg_device *before);
WT_MUST_CHECK int sums_load(struct agent *agent);
bool sums_take(struct agent *agent, const struct wg_device *device, struct reconcile_link *ret_sum);
void sums_told(struct agent *agent);
void sums_restarted(struct agent *agent); /* a peer's counters fell */
void sums_expect_removal(struct agent *agent, const struct wg_device *device, const struct plan *plan);
void sums_expect_addition(struct agent *agent, const struct wg_device *device, const struct plan *plan);

/*
 * samples.c: the journal of samples. samples_write() appends what has changed since the last one; nothing is
 * allocated for it. Between report_make() and the moment the batch is durable, samples_cover() and
 * samples_give_up() say which ones it makes superfluous.
 */
WT_MUST_CHECK int samples_open(struct agent *agent);
void samples_close(struct agent *agent);
void samples_write(struct agent *agent);
void samples_cover(struct agent *agent);
void samples_give_up(struct agent *agent);

/*
 * upgrade.c: puts a new meter in the place of an outdated one, or one that upgrade_begin_anew() has marked.
 * An epoch that was taken over, now or by a process that died then, is sealed with its last counts. `last` is
 * the journal's last batch.
 */
WT_MUST_CHECK int upgrade_meter(struct agent *agent, const struct batch_summary *last);
WT_MUST_CHECK int upgrade_take_sealed(struct agent *agent, const struct batch_summary *last);

/*
 * seal.c: ends an epoch at start. The device that the pins belong to is gone, and they tell its last counts;
 * or nothing is pinned, as after a reboot, and the journal's last sample does.
 */
WT_MUST_CHECK int seal_stale(struct agent *agent, const struct batch_summary *last);
WT_MUST_CHECK int seal_forgotten(struct agent *agent, const struct batch_summary *last);
/* Goes on behind the journal's last batch, if that is of the meter's epoch. */
void seal_or_continue(const struct agent *agent, struct epoch *epoch, const struct batch_summary *last);
/* Behind it: the last counts of an epoch that is over, into the journal. */
WT_MUST_CHECK int seal_write_down(struct agent *agent, struct epoch *epoch);

/*
 * fair.c: each peer's audit. fair_expect() precedes the steps of a plan: from there on, peers that are made
 * begin at 0 in WireGuard. fair_take() follows each dump, with the boot time between the last sample of the
 * meter and the dump.
 */
void fair_expect(struct agent *agent, const struct desired *desired, const struct plan *plan);
void fair_take(struct agent *agent, uint32_t slot, const struct wg_peer *live, int64_t boot_ns);
void fair_finish(struct agent *agent, int64_t boot_ns); /* after the last peer of a dump */

/* status.c: what WireGuard says about the peers, as far as it is news; NULL when it cannot be asked. */
json_t *status_collect(struct agent *agent);

/* uplink.c: from the journal to the API. */
WT_MUST_CHECK int uplink_add(struct agent *agent, uint64_t sequence, const struct batch_summary *summary);
void uplink_send(struct agent *agent);
bool uplink_is_idle(const struct agent *agent);

/* replay.c: what a restart takes from the journal. -ENOENT: it is empty. */
WT_MUST_CHECK int replay_pending(struct agent *agent, struct batch_summary *ret_last);
WT_MUST_CHECK int replay_slots(struct journal *journal, struct slots *slots,
			       const uint8_t epoch[static UUID_SIZE]);

/*
 * refill.c: an API that holds less than it did. Queues again what the journal keeps behind it, acknowledged
 * or not, oldest first.
 */
/* The epoch given, behind `seq`. -ENOENT: nothing of it is kept. */
WT_MUST_CHECK int refill_epoch(struct agent *agent, const struct held_epoch *held);
/* Takes the answer's `restored`; when it has risen, asks what is held and queues the rest of all epochs. */
void refill_notice(struct agent *agent, const json_t *answer);
void refill_load(struct agent *agent);
void refill_through(struct agent *agent); /* from the uplink: nothing is pending */

/* follow.c: the long poll. */
void follow_begin(struct agent *agent);
void follow_again(struct agent *agent); /* asks anew for everything */
void follow_stop(struct agent *agent);

/* apply.c: takes the state over, and frees what it was before. */
enum applied {
	APPLIED,
	APPLY_IN_PART, /* what could not be is in the reports */
	APPLY_GONE,    /* nothing was: the gateway is deleted */
	APPLY_SEALED, /* nor here: nothing follows the final batch of an epoch, and this one's gateway goes on
		       */
};
WT_MUST_CHECK enum applied apply_desired(struct agent *agent, struct desired *desired, bool grants_are_ours);

/* service.c: tells the API of the meter's epoch, and follows what it wants. */
void service_begin(struct agent *agent);

/* leave.c: the ends. */
void leave_gone(struct agent *agent); /* deleted: the last batch is sent, then exit status 0 */
void leave_over(struct agent *agent); /* the API knows this attempt no more */
void leave_stopped(struct agent *agent);
void leave_sent(struct agent *agent);   /* from the uplink: nothing is pending */
void leave_failed(struct agent *agent); /* from the uplink: a try has failed */

/* peers.c: the peers' part of it. Returns the error that remains after repeating. */
WT_MUST_CHECK int peers_apply(struct agent *agent, const struct desired *desired);
void peers_release_acknowledged(struct agent *agent, uint64_t seq);

/*
 * network.c: interface, addresses, routes, firewall; each does only what differs from what was applied.
 * network_close() shuts all but the API, unless the interface is up and its firewall stands. Before the first
 * connection: connection tracking, which begins with the firewall, would take an answer that is on its way
 * for a new connection and refuse it.
 */
WT_MUST_CHECK int network_close(struct agent *agent, char *error, size_t error_size);
WT_MUST_CHECK int network_before_up(struct agent *agent, const struct desired *desired);
WT_MUST_CHECK int network_after_up(struct agent *agent, const struct desired *desired);

/* resolve.c: host names of endpoints, in threads of their own. */
WT_MUST_CHECK int resolve_open(struct agent *agent);
void resolve_begin(struct agent *agent, const uint8_t peer_id[static UUID_SIZE], const char *endpoint);

/*
 * turn.c: the next cycle's grant. turn_resume() goes on with what lies in the kernel since before this
 * process; turn_clock_set() follows a step of the clock.
 */
WT_MUST_CHECK int turn_prepare(struct agent *agent, const struct meter_grant *grant, int64_t at_ns);
WT_MUST_CHECK int turn_resume(struct agent *agent);
void turn_clock_set(struct agent *agent);

/* cannot.c: says in the log, and in the reports until the next state, what could not be applied. */
void cannot_clear(struct agent *agent);
void cannot_add(struct agent *agent, const char *what, const char *format, ...) WT_PRINTF(3, 4);
bool cannot_has(const struct agent *agent, const char *what);
void cannot_remove(struct agent *agent, const char *what); /* it holds no longer */

/*
 * attempts.c: a failed one is told in the log if it is the first in a row, "could not WHAT, trying again: …",
 * and `again` is called in a while: full jitter below 0.2 s, doubling with each failure to 10 s.
 */
void attempts_failed(struct agent *agent, struct attempts *attempts, const char *what, const char *reason,
		     loop_fn again, void *data);
/* Where the next one goes; the caller fills in the rest. */
struct http_call attempts_call(const struct agent *agent, const struct attempts *attempts);

/*
 * epoch_file.c: BASE/NAME, a JSON object of the epoch. -ENOENT: it is of another, or not there.
 * Writing replaces it by the fields of `content`, which it takes over, and the epoch; NULL is a lack of
 * memory.
 */
WT_MUST_CHECK int epoch_file_read(const struct agent *agent, const struct epoch *epoch, const char *name,
				  json_t **ret_object);
WT_MUST_CHECK int epoch_file_write(const struct agent *agent, const struct epoch *epoch, const char *name,
				   json_t *content);
WT_MUST_CHECK int epoch_file_remove(const struct agent *agent, const char *name);

/*
 * bases.c: what reused slots began at, and what was found undelivered, in BASE/slots.json. Once it is saved,
 * batches say it.
 */
WT_MUST_CHECK int bases_save(const struct agent *agent, struct epoch *epoch);
WT_MUST_CHECK int bases_load(const struct agent *agent, struct epoch *epoch);

#endif
