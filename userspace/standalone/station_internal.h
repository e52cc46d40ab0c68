/* SPDX-License-Identifier: BSD-2-Clause */
/* What the station's files share. */
#ifndef WIRETOLL_STANDALONE_STATION_INTERNAL_H
#define WIRETOLL_STANDALONE_STATION_INTERNAL_H

#include "net/net.h"
#include "standalone/netns.h"
#include "standalone/place.h"
#include "standalone/station.h"
#include "wg/wg.h"

#include <net/if.h>

struct placed_prefix {
	struct cidr prefix;
	struct wt_attribution attribution;
};

/* A slot in use whose peer the history does not know: it was lost, or is an older one. */
struct orphan {
	uint8_t peer_id[16];
	uint32_t slot;
	uint32_t incarnation;
};

struct station {
	struct place place;
	char interface[IF_NAMESIZE]; /* its name now */
	char wireguard[IF_NAMESIZE]; /* the name by which WireGuard answers */
	bool elsewhere;              /* in a network namespace that could not be entered */
	int64_t search_after_ns;     /* the next try, in boot time */
	struct net *links;           /* tells of changes to interfaces and their filters */
	struct netns_watch netns;
	bool deletion_told; /* of the network namespace */
	char news[320];     /* to be told once */
	char history_path[PATH_MAX];
	int history_lock;
	int hold; /* of the BPF file system, while there may be no pins */
	struct meter *meter;
	struct wg *wg;
	const struct names *names; /* NULL: those that the records have */
	struct history history;
	bool view;
	bool dirty;       /* the history is to be saved at once */
	bool counted;     /* or later: only counts have grown, which the kernel has, too */
	bool attached;    /* by us, at the beginning */
	bool had_history; /* before */
	bool moved;       /* allowed IPs have changed */
	bool regrant;     /* limits are to be told to the kernel, whatever it has */
	bool limited;
	int shadowed;
	int64_t save_after_ns; /* when only counts have grown, in boot time */
	int64_t dump_after_ns; /* when WireGuard is asked next, in boot time */
	size_t unplaced;
	int64_t grow_after_ns;          /* after one that failed, in boot time */
	uint32_t last_slot;             /* assigned */
	struct placed_prefix *prefixes; /* in the table, by cidr_compare() */
	size_t n_prefixes;
	struct orphan *orphans;
	size_t n_orphans;
};

/* What stands for a public key in the meter's owners. */
void station_peer_id(const struct key *public_key, uint8_t ret_id[static 16]);

/*
 * station_file.c. Brings a record, or all, to their slots' readings now; saves the history; whether its slots
 * are this meter's. JSON and Prometheus cannot tell every name that the kernel allows: the last one that they
 * can stays.
 */
void station_read(struct station *station, struct record *record);
void station_read_all(struct station *station);
WT_MUST_CHECK int station_save(struct station *station, struct json_problem *problem);
bool station_is_epoch(const struct station *station);
void station_take_name(struct station *station, const char *name);
/* Makes "WHAT: the error's text" the problem, and returns the error. */
int station_fail(struct json_problem *problem, int r, const char *what);

/*
 * history_place.c. Finds, locks and reads the history: in the folder `state`, or else where the meter has it,
 * or by the interface's name; -EBUSY, with a message, when another process writes it. Only its lock, at once.
 * The pointer to it, once it is saved, which ends what it continues. Its file's name follows the interface's.
 */
WT_MUST_CHECK int station_load_history(struct station *station, const char *state,
				       struct json_problem *problem);
WT_MUST_CHECK int station_lock_history(struct station *station, struct json_problem *problem);
WT_MUST_CHECK int station_point(struct station *station, struct json_problem *problem);
WT_MUST_CHECK int station_rename_history(struct station *station, struct json_problem *problem);
/* follow.c. How long WireGuard is not asked again after an answer that took so much CPU time. */
int64_t station_dump_pause_ns(int64_t cpu_ns);

/* Removes what an interface of this name, in this network namespace, has left behind; -ENOENT: no history. */
WT_MUST_CHECK int station_forget_history(const char *interface);
/*
 * Removes what is this place's besides the pins, and what all share if nobody needs it. A history in a folder
 * of the user's own stays anyway. It takes place_lock().
 */
void station_clear_place(struct station *station, bool keep_history);

/*
 * station_end.c. Takes what an ended meter has counted, and takes it away; `meter` is consumed. Ends this
 * one's meter: last counts into the history, which may stay, nothing else does. The station has no meter
 * then.
 */
WT_MUST_CHECK int station_seal(struct station *station, struct meter *meter, const struct place *place,
			       struct json_problem *problem);
WT_MUST_CHECK int station_remove(struct station *station, bool keep_history, struct json_problem *problem);

/*
 * station_attach.c. Attaches a meter with room for the peers that there are; makes the history this meter's;
 * reads back what its tables hold. The meter was detached: its counts are kept, and another begins, in the
 * same way, without one on errors.
 */
WT_MUST_CHECK int station_attach(struct station *station, enum meter_attach how,
				 struct json_problem *problem);
WT_MUST_CHECK int station_take_epoch(struct station *station, struct json_problem *problem);
WT_MUST_CHECK int station_restore(struct station *station, struct json_problem *problem);
WT_MUST_CHECK int station_attach_anew(struct station *station, struct json_problem *problem);

/*
 * presence.c. Looks where the interface is, follows its name and its network namespace, and attaches the
 * meter anew where somebody has detached it. -ENODEV when the interface is gone, or its network namespace is
 * kept by this process alone: the meter has ended then. -ENOTRECOVERABLE when only another process can go on.
 */
WT_MUST_CHECK int station_look_around(struct station *station, struct json_problem *problem);

/*
 * collect.c. Seals and removes what is left in other places than this one (NULL: in all) of ended meters.
 * What cannot be is left for the next time.
 */
void station_collect(const struct place *own);

/*
 * upgrade.c. Takes the last counts of an epoch that a hand-over has sealed; hands the meter over, for
 * programs of another version, or for more slots (0: as many), or when the device nearly fills it.
 */
WT_MUST_CHECK int station_take_sealed(struct station *station, struct json_problem *problem);
WT_MUST_CHECK int station_hand_over(struct station *station, uint32_t capacity, struct json_problem *problem);
WT_MUST_CHECK int station_upgrade(struct station *station, struct json_problem *problem);
WT_MUST_CHECK int station_grow(struct station *station, const struct wg_device *device,
			       struct json_problem *problem);

/* slots.c. After an adoption: which slot is whose, and what the table holds. */
WT_MUST_CHECK int slots_restore(struct station *station);
/* Gives the record a slot; -ENOSPC when there is none. Its owner is stored by slots_own(), once the history
 * says so. */
WT_MUST_CHECK int slots_assign(struct station *station, struct record *record);
WT_MUST_CHECK int slots_own(struct station *station, const struct record *record);
/*
 * Frees the slots of peers that are gone for long enough at this boot time, once the saved history has their
 * last counts: whether there are such, and to do it.
 */
bool slots_are_due(const struct station *station, int64_t now);
WT_MUST_CHECK int slots_release(struct station *station, int64_t now);

/* prefixes.c. Brings the table to what the device says, for all peers that have a slot. */
WT_MUST_CHECK int prefixes_restore(struct station *station);
WT_MUST_CHECK int prefixes_apply(struct station *station, const struct wg_device *device);

/*
 * delivery.c. A dump's counter of what was sent towards a peer, taken before the record was read: where that
 * begins with a slot, and each time after. Returns whether more is known not to have been delivered. A
 * counter that falls has begun anew.
 */
void delivery_begin(struct record *record, uint64_t sent);
bool delivery_follow(struct record *record, uint64_t sent, int64_t boot_ns);

/*
 * alarm.c. Before WireGuard is asked, all counts are read; after it has answered, and the records were read
 * again, each peer's are compared. Returns whether there is an alarm that was not. When prefixes have changed
 * hands, nothing is concluded from before: a packet may have been counted for its earlier owner.
 */
void alarm_prepare(struct station *station);
void alarm_forget(struct station *station);
bool alarm_follow(struct record *record, const struct wg_peer *peer, int64_t boot_ns);

/*
 * grants.c. Tells the kernel the limits, where they differ from what it has. To be called with all records
 * read. grants_read() only finds out what is refused. grants_note() reads all counts, and how much of them is
 * the grants' cycles', just before a period begins.
 */
WT_MUST_CHECK int grants_apply(struct station *station);
void grants_read(struct station *station);
void grants_note(struct station *station);

#endif
