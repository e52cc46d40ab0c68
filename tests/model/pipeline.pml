// SPDX-License-Identifier: BSD-2-Clause
/*
 * The way of a byte from the kernel's counter to the bill, for spin: sample, journal, fdatasync, send, commit,
 * acknowledge. Everything may stop at every step: an agent is killed, the kernel goes down and takes with it
 * what was not synced, the API dies before or after its commit. What is sent once may arrive never, late, often
 * and in any order; so may answers. A second agent may take the journal over while the first one goes on.
 *
 * A total is a number of bytes; a batch is known by its content, (total, final). Time is left out: what a
 * sample's interval may lose is what was counted since the last synced batch.
 *
 * Claims: never more is billed than passed; once all is acknowledged, what is missing of it is no more than
 * was not yet synced when the kernel went down, and nothing while it stays up (I7, I8); nobody but the newest
 * agent moves a cursor, and no number stands for two contents (I10).
 *
 * TRAFFIC, EPOCHS (up to 3), BATCHES (of an epoch) and AGENTS set the size. ROLLBACK lets the machine return to a
 * snapshot: then only that nothing is billed twice is claimed. RESTORE lets the database return to a backup.
 * BUG leaves out one precaution each; the model must find that each is needed.
 */
#ifndef TRAFFIC
#define TRAFFIC 2
#endif
#ifndef EPOCHS
#define EPOCHS 2
#endif
#ifndef BATCHES
#define BATCHES 3
#endif
#ifndef AGENTS
#define AGENTS 1
#endif
#ifndef BUG
#define BUG 0
#endif

#define BUG_ACKNOWLEDGED_EARLY 1 /* the API answers before its commit is durable */
#define BUG_CLAIMED_FIRST      2 /* that a batch was seen is durable before what it adds */
#define BUG_UNGUARDED_TOTAL    3 /* a total is set to what comes, in whatever order it comes */
#define BUG_READ_AND_CLEAR     4 /* the sampler takes the count out of the kernel */
#define BUG_BY_MAGNITUDE       5 /* a counter began anew if its total is smaller, not if its epoch is another */
#define BUG_SENT_EARLY         6 /* a batch is sent before the journal holds it */
#define BUG_NO_FENCE           7 /* agents of any generation are believed */
#define BUG_ANY_CONTENT        8 /* a known number is taken for a repeat, whatever it stands for */

#define J(a, e)         ((a) * EPOCHS + (e))
#define B(a, e, s)      (J(a, e) * (BATCHES + 1) + (s))
#define CONTENT(t, f)   ((t) * 2 + (f))
#define TOTAL(c)        ((c) / 2)

/* The kernel: what has passed in truth, and the counter of each epoch. */
byte passed;
byte counter[EPOCHS];
byte epoch;
/* What may be missing: not synced when the kernel went down. */
byte excused;

/* An agent's disk: batches written, how many of them are synced, and what they say. */
byte written[AGENTS * EPOCHS];
byte synced[AGENTS * EPOCHS];
byte journal[AGENTS * EPOCHS * (BATCHES + 1)];
/* An agent's memory: whether it runs, the batch that it has built, how far it may send, and what is acknowledged. */
bool runs[AGENTS];
bool fenced[AGENTS];
bool built[AGENTS];
byte batch[AGENTS];
byte ready[AGENTS * EPOCHS];
byte acknowledged[AGENTS * EPOCHS];

/* Between them, for ever: the contents sent under each number, and the numbers that an answer said were taken. */
int sent[AGENTS * EPOCHS * (BATCHES + 1)];
bool answered[AGENTS * EPOCHS * (BATCHES + 1)];

/* The database. */
byte newest;
byte held[EPOCHS];
byte content[EPOCHS * (BATCHES + 1)];
byte total[EPOCHS];
byte billed;
bool quarantined[EPOCHS];
#ifdef RESTORE
bool backed_up;
bool restored;
byte old_held[EPOCHS];
byte old_total[EPOCHS];
byte old_billed;
#endif
#ifdef ROLLBACK
bool snapshot_taken;
bool rolled_back;
byte snapshot_counter;
byte snapshot_written;
byte snapshot_content[BATCHES + 1];
#endif

/* Scratch; 0 between steps. */
byte a, e, s, c;

#define HELD(e, s) content[(e) * (BATCHES + 1) + (s)]

inline clear()
{
	a = 0;
	e = 0;
	s = 0;
	c = 0
}

#define ALL_ACKNOWLEDGED(a, e) (acknowledged[J(a, e)] == written[J(a, e)])

/* The total that the journal of an agent says last of an epoch. */
#define LAST(a, e) (written[J(a, e)] -> TOTAL(journal[B(a, e, written[J(a, e)])]) : 0)
#define LAST_SYNCED(a, e) (synced[J(a, e)] -> TOTAL(journal[B(a, e, synced[J(a, e)])]) : 0)

inline forget_memory(a)
{
	runs[a] = false;
	built[a] = false;
	batch[a] = 0;
	for (e : 0 .. EPOCHS - 1) {
		ready[J(a, e)] = 0;
		/* Acknowledgements are not synced for themselves: any of them may be gone. */
		if
		:: acknowledged[J(a, e)] = 0
		:: true
		fi;
		for (s : 1 .. BATCHES) {
			answered[B(a, e, s)] = false
		}
	}
}

/* What the disk holds is read back and counts as journaled. */
inline start(a)
{
	runs[a] = true;
	for (e : 0 .. EPOCHS - 1) {
		if
		:: e < epoch && written[J(a, e)] > 0 && written[J(a, e)] < BATCHES &&
		   journal[B(a, e, written[J(a, e)])] % 2 == 0 ->
			/* The boot is over: the epoch is sealed from the journal. */
			s = written[J(a, e)] + 1;
			journal[B(a, e, s)] = CONTENT(LAST(a, e), 1);
			written[J(a, e)] = s;
			synced[J(a, e)] = s
		:: else
		fi;
		ready[J(a, e)] = written[J(a, e)]
	}
}

inline build(a)
{
	if
	:: BUG == BUG_READ_AND_CLEAR ->
		batch[a] = CONTENT(LAST(a, epoch) + counter[epoch], 0);
		counter[epoch] = 0
	:: else -> batch[a] = CONTENT(counter[epoch], 0)
	fi;
	built[a] = true;
	if
	:: BUG == BUG_SENT_EARLY ->
		sent[B(a, epoch, written[J(a, epoch)] + 1)] =
			sent[B(a, epoch, written[J(a, epoch)] + 1)] | (1 << batch[a])
	:: else
	fi
}

inline write(a)
{
	written[J(a, epoch)]++;
	journal[B(a, epoch, written[J(a, epoch)])] = batch[a];
	built[a] = false;
	batch[a] = 0
}

/* Puts a new map in place of one whose numbers the API cannot follow. */
inline abandon(a)
{
	excused = excused + counter[epoch];
	acknowledged[J(a, epoch)] = written[J(a, epoch)];
	built[a] = false;
	batch[a] = 0;
	if
	:: epoch < EPOCHS - 1 -> epoch++
	:: else -> fenced[a] = true; runs[a] = false
	fi
}

/* The first epoch of which something is not acknowledged is told first. */
#define IS_NEXT(a, e, s) (runs[a] && acknowledged[J(a, e)] + 1 == s && s <= ready[J(a, e)] && \
			  (e == 0 || ALL_ACKNOWLEDGED(a, e - 1)))

/* An answer comes to the process that asked, or is lost on its way, or the API dies instead of giving it. */
inline answer_taken(a, e, s, c)
{
	if
	:: runs[a] && journal[B(a, e, s)] == c -> answered[B(a, e, s)] = true
	:: true
	fi
}

inline answer_conflict(a, e, s)
{
	quarantined[e] = true;
	if
	:: IS_NEXT(a, e, s) && e == epoch -> abandon(a)
	:: IS_NEXT(a, e, s) && e < epoch -> acknowledged[J(a, e)] = written[J(a, e)]
	:: true
	fi
}

inline answer_gap(a, e, s)
{
	if
	:: IS_NEXT(a, e, s) -> acknowledged[J(a, e)] = held[e]
	:: true
	fi
}

inline bill(e, s, c)
{
	if
	:: BUG == BUG_BY_MAGNITUDE ->
		billed = billed + (TOTAL(c) >= total[0] -> TOTAL(c) - total[0] : TOTAL(c));
		total[0] = TOTAL(c)
	:: else ->
		billed = billed + TOTAL(c) - total[e];
		total[e] = TOTAL(c)
	fi;
	held[e] = s;
	HELD(e, s) = c
}

/* The next batch in order, and an API that may die at any moment. */
inline take(a, e, s, c)
{
	assert(a == newest);
	if
	:: BUG == BUG_ACKNOWLEDGED_EARLY ->
		answer_taken(a, e, s, c);
		if
		:: bill(e, s, c)
		:: true
		fi
	:: BUG == BUG_CLAIMED_FIRST ->
		if
		:: bill(e, s, c); answer_taken(a, e, s, c)
		:: held[e] = s; HELD(e, s) = c
		fi
	:: else -> bill(e, s, c); answer_taken(a, e, s, c)
	fi
}

/* One transaction. */
inline receive(a, e, s, c)
{
	if
	:: BUG != BUG_NO_FENCE && a != newest ->
		if
		:: fenced[a] = true; runs[a] = false
		:: true
		fi
	:: else ->
		if
		:: BUG == BUG_UNGUARDED_TOTAL ->
			assert(a == newest);
			billed = billed + (TOTAL(c) > total[e] -> TOTAL(c) - total[e] : 0);
			total[e] = TOTAL(c);
			held[e] = s;
			HELD(e, s) = c;
			answer_taken(a, e, s, c)
		:: else ->
			if
			:: s == held[e] + 1 && (TOTAL(c) >= total[e] || BUG == BUG_BY_MAGNITUDE) && !quarantined[e] ->
				take(a, e, s, c)
			:: s <= held[e] && (HELD(e, s) == c || BUG == BUG_ANY_CONTENT) -> answer_taken(a, e, s, c)
			:: s > held[e] + 1 && !quarantined[e] -> answer_gap(a, e, s)
			:: else -> answer_conflict(a, e, s)
			fi
		fi
	fi
}

/* All that was counted is journaled, and all that is journaled is acknowledged. */
#ifdef RESTORE
/* The agent learns of it by its next batch. */
#define IS_HELD(a) (held[epoch] >= written[J(a, epoch)])
#else
#define IS_HELD(a) true
#endif
#ifdef ROLLBACK
#define NOTHING_LEFT(a) false
#else
#define NOTHING_LEFT(a) (runs[a] && !built[a] && \
			 (BUG == BUG_READ_AND_CLEAR -> counter[epoch] == 0 : LAST(a, epoch) == counter[epoch]) && \
			 ALL_ACKNOWLEDGED(a, 0) && ALL_ACKNOWLEDGED(a, EPOCHS / 2) && \
			 ALL_ACKNOWLEDGED(a, EPOCHS - 1) && \
			 IS_HELD(a))
#endif

init {
	runs[0] = true;
	do
	/* A byte passes. */
	:: atomic { passed < TRAFFIC -> passed++; counter[epoch]++ }

	/* An agent samples, writes, syncs. */
	:: atomic { select (a : 0 .. AGENTS - 1);
		if
		:: runs[a] && !built[a] && written[J(a, epoch)] < BATCHES - 1 && counter[epoch] > 0 &&
		   (LAST(a, epoch) != counter[epoch] || BUG == BUG_READ_AND_CLEAR) -> build(a)
		:: built[a] -> write(a)
		:: runs[a] && synced[J(a, epoch)] < written[J(a, epoch)] ->
			synced[J(a, epoch)] = written[J(a, epoch)];
			ready[J(a, epoch)] = written[J(a, epoch)]
		:: else
		fi;
		clear() }

	/* It sends, and reads answers. */
	:: atomic { select (a : 0 .. AGENTS - 1); select (e : 0 .. EPOCHS - 1);
		s = acknowledged[J(a, e)] + 1;
		if
		:: s <= BATCHES ->
			if
			:: IS_NEXT(a, e, s) && !(sent[B(a, e, s)] & (1 << journal[B(a, e, s)])) ->
				sent[B(a, e, s)] = sent[B(a, e, s)] | (1 << journal[B(a, e, s)])
			:: IS_NEXT(a, e, s) && answered[B(a, e, s)] ->
				assert(HELD(e, s) == journal[B(a, e, s)]);
				acknowledged[J(a, e)] = s
			:: else
			fi
		:: else
		fi;
		clear() }

	/* Something that was sent arrives, for the first time or again. */
	:: atomic { select (a : 0 .. AGENTS - 1); select (e : 0 .. EPOCHS - 1); select (s : 1 .. BATCHES);
		select (c : 0 .. 2 * TRAFFIC + 1);
		if
		:: sent[B(a, e, s)] & (1 << c) -> receive(a, e, s, c); assert(billed <= passed)
		:: else
		fi;
		clear() }

	/* An agent is killed, and started. */
	:: atomic { select (a : 0 .. AGENTS - 1);
		if
		:: runs[a] -> forget_memory(a)
		:: !runs[a] && !fenced[a] && a <= newest -> start(a)
		:: else
		fi;
		clear() }

	/* The kernel goes down: agents and counters are gone, and any of what was not synced. */
	:: atomic { epoch < EPOCHS - 1 ->
		excused = excused + counter[epoch] - LAST_SYNCED(newest, epoch);
		for (a : 0 .. AGENTS - 1) {
			forget_memory(a);
			if
			:: written[J(a, epoch)] > synced[J(a, epoch)] ->
				journal[B(a, epoch, written[J(a, epoch)])] = 0;
				written[J(a, epoch)] = synced[J(a, epoch)]
			:: synced[J(a, epoch)] = written[J(a, epoch)]
			fi
		}
		epoch++;
		clear() }

#if AGENTS > 1
	/* Another agent enrols with a copy of the journal; the first does not know yet. */
	:: atomic { newest == 0 ->
		newest = 1;
		for (e : 0 .. EPOCHS - 1) {
			written[J(1, e)] = written[J(0, e)];
			synced[J(1, e)] = written[J(0, e)];
			for (s : 1 .. BATCHES) {
				journal[B(1, e, s)] = journal[B(0, e, s)]
			}
		}
		start(1);
		clear() }
#endif

#ifdef RESTORE
	:: atomic { !backed_up ->
		backed_up = true;
		for (e : 0 .. EPOCHS - 1) {
			old_held[e] = held[e];
			old_total[e] = total[e]
		}
		old_billed = billed;
		clear() }
	/* Nothing waits for an answer of before. */
	:: atomic { backed_up && !restored ->
		restored = true;
		for (e : 0 .. EPOCHS - 1) {
			for (s : 1 .. BATCHES) {
				for (a : 0 .. AGENTS - 1) {
					answered[B(a, e, s)] = false
				}
				if
				:: s > old_held[e] -> HELD(e, s) = 0
				:: else
				fi
			}
			held[e] = old_held[e];
			total[e] = old_total[e]
		}
		billed = old_billed;
		clear() }
	/* Its next batch is a gap there, and what the database lacks is sent again. */
	:: atomic { restored && runs[newest] && acknowledged[J(newest, epoch)] > held[epoch] ->
		acknowledged[J(newest, epoch)] = held[epoch] }
#endif

#ifdef ROLLBACK
	:: atomic { !snapshot_taken && epoch == 0 && runs[0] && !built[0] ->
		snapshot_taken = true;
		snapshot_counter = counter[0];
		snapshot_written = written[J(0, 0)];
		for (s : 1 .. BATCHES) {
			snapshot_content[s] = journal[B(0, 0, s)]
		}
		clear() }
	:: atomic { snapshot_taken && !rolled_back && epoch == 0 ->
		rolled_back = true;
		forget_memory(0);
		counter[0] = snapshot_counter;
		written[J(0, 0)] = snapshot_written;
		synced[J(0, 0)] = snapshot_written;
		for (s : 1 .. BATCHES) {
			journal[B(0, 0, s)] = snapshot_content[s]
		}
		acknowledged[J(0, 0)] = 0;
		clear() }
#endif

	/* Looked at whenever the agent has nothing left to tell: nothing is missing but what is excused. */
	:: atomic { NOTHING_LEFT(newest) ->
		assert(billed + excused >= passed);
		break }
	od
}
