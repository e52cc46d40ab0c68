/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One interface's meter with all that makes it stand alone: pins, history, the interface's peers as they come
 * and go, and limits. The station may end at any moment: counting goes on, and the next one continues.
 */
#ifndef WIRETOLL_STANDALONE_STATION_H
#define WIRETOLL_STANDALONE_STATION_H

#include "standalone/history.h"
#include "standalone/names.h"

struct station;

struct peer_limit {
	struct key public_key;
	struct amount amount;
};

/* What is wanted. Limits that are not named here are lifted, unless `keep`. */
struct station_options {
	const char *interface;
	enum meter_attach attach;
	const char *
		state; /* folder of the history; NULL: where the meter had it, else one that ends at reboot */
	bool keep;     /* limits, accounting and names as they were left */
	uint32_t accounting; /* WT_UPLOADS | WT_DOWNLOADS */
	bool limit_interface;
	struct amount interface_limit;
	const struct peer_limit *limits;
	size_t n_limits;
	const struct names *names; /* NULL: none */
};

/*
 * Adopts the interface's meter, or attaches one, and brings it up to date. -EBUSY when another process runs
 * it. All errors come with a message.
 */
WT_MUST_CHECK int station_open(const struct station_options *options, struct station **ret_station,
			       struct json_problem *problem);

/*
 * Only to look at the pinned meter, also while another process runs it: station_sample() is all that works
 * then. -ENOENT when none is attached.
 */
WT_MUST_CHECK int station_view(const char *interface, struct station **ret_station,
			       struct json_problem *problem);

/* Writes down what is not written yet, for the end of a process that had time for it. */
WT_MUST_CHECK int station_finish(struct station *station, struct json_problem *problem);

/* Ends this process's part; counting goes on. NULL is accepted. */
void station_close(struct station *station);

/*
 * Detaches the interface's meter and removes its pins, after its last counts went into the history. A history
 * of no folder of its own goes, too, unless it is to be kept. The interface may be named by its meter's id.
 * -ENOENT when none is attached, -ENODEV without such an interface, -EBUSY when a process runs it.
 */
WT_MUST_CHECK int station_stop(const char *interface, bool keep_history, struct json_problem *problem);

/*
 * Takes up what has changed at the interface and, where that is due, at WireGuard. -ENODEV when the interface
 * is gone (the last counts are then in the history), -ENOTRECOVERABLE when only another process can go on;
 * other errors may pass: the next call tries again. To be called each STATION_FOLLOW_NS, and when
 * station_links_fd() is readable and station_links_changed() says so.
 */
#define STATION_FOLLOW_NS (1 * NSEC_PER_SEC)
WT_MUST_CHECK int station_follow(struct station *station, struct json_problem *problem);
int station_links_fd(const struct station *station);
bool station_links_changed(struct station *station);

/* What has happened to the interface since the last call, for people, once; NULL: nothing. */
const char *station_take_news(struct station *station);

/*
 * Reads all counts; writes the history if they changed (that of very many peers less often, but within a
 * minute: what is not written is in the kernel); begins periods and their grants.
 */
WT_MUST_CHECK int station_sample(struct station *station, struct json_problem *problem);

/* Nanoseconds since 1970 UTC at which a station_sample() is due to begin a period: the end of the day. */
int64_t station_turns_at_ns(void);

/* What the last sample found. */
const struct history *station_history(const struct station *station);
bool station_is_limited(const struct station *station);  /* the whole interface is refused */
int station_shadowed(const struct station *station);     /* 1, 0 or -errno as meter_is_shadowed() */
bool station_is_attached(const struct station *station); /* by the last sample, on its interface */
const char *station_attachment(const struct station *station);
uint64_t station_unparsed_packets(const struct station *station);
bool station_was_attached(const struct station *station); /* anew, by station_open() */
bool station_had_history(const struct station *station);  /* before station_open() */
size_t station_unplaced(const struct station *station); /* peers that found no slot, and prefixes no place */

/* A peer with more uploads counted than WireGuard has received, each once; NULL when there is no more. */
const struct record *station_next_alarm(struct station *station);

/* Polls readable when a limit was reached; station_sample() takes the event. */
int station_event_fd(const struct station *station);

#endif
