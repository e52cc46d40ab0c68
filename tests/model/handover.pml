// SPDX-License-Identifier: BSD-2-Clause
/*
 * Credit through a hand-over, for spin: userspace/meter/carry.c and handover.c against CPUs that admit packets as
 * bpf/credit.h does. Two programs draw on pools of their own; which one a packet runs through is decided when it
 * comes. The process that hands over may be killed between any two steps, and the next one goes on from what is in
 * the maps and pins alone. Each access to shared memory is a step of its own, but for what one CPU alone touches.
 *
 * CPUS, PACKETS (of each CPU), CEILING and KILLS set the size. BUG leaves out one of the precautions each; the model
 * must find that each is needed.
 */
#ifndef CPUS
#define CPUS 2
#endif
#ifndef PACKETS
#define PACKETS 2
#endif
#ifndef CEILING
#define CEILING 4
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef BUG
#define BUG 0
#endif

#define LARGEST   2 /* packet */
#define MAX_LEASE 1
#define OLD       0
#define NEW       1
#define NONE      255

#define BUG_WHOLE         1 /* all that is left is lent, while the old programs may draw it */
#define BUG_HOLD_NO_WAIT  2 /* what began before the stand-in may still draw beyond it */
#define BUG_BLIND_LEND    3 /* what had been drawn beyond the stand-in is lent once more */
#define BUG_SWAP_NO_WAIT  4 /* the old counts are read while one may still be added */
#define BUG_KEEP_LATCH    5 /* the stand-in's end is taken for the limit's */

typedef Pool {
	/* The state word: a value of it is known by its sequence and latch. */
	byte sequence;
	bool exhausted;
	byte live;
	/* Grants: where each ends on the line of counted, and what a stand-in stands for. */
	byte end[3];
	bool held[3];
	bool held_exhausted[3];
	byte drawn;
	byte counted[CPUS];
	byte lease[CPUS];
	byte lease_sequence[CPUS];
};

/* The new line of counted begins at `carried`, beyond all that the old one may reach. */
Pool pools[2];
byte carried;
byte hook = OLD;
bool is_next, is_done; /* the pins' stages: renamed, ended */
bool inside[CPUS];
byte runs[CPUS];
byte total; /* admitted by both: for the claims */

#define P pools[p]

proctype cpu(byte me)
{
	byte packets, bytes, p, end, drawn, need, lease, state_sequence, state_live;
	bool state_exhausted;

	do
	:: packets == PACKETS -> break
	:: else ->
		atomic { packets++; p = hook; inside[me] = true };
		if
		:: bytes = 1
		:: bytes = LARGEST
		fi;
		do
		:: true ->
			d_step {
				state_sequence = P.sequence; state_exhausted = P.exhausted; state_live = P.live
			};
			if
			:: state_exhausted -> break
			:: else
			fi;
			if
			:: P.lease_sequence[me] != state_sequence ->
				d_step {
					P.drawn = P.drawn - P.lease[me]; P.lease[me] = 0; P.lease_sequence[me] = state_sequence
				}
			:: else
			fi;
			if
			:: P.lease[me] >= bytes -> goto admitted
			:: else
			fi;
			end = P.end[state_live];
			if
			:: P.sequence == state_sequence && P.exhausted == state_exhausted ->
				need = bytes - P.lease[me];
				drawn = P.drawn;
				if
				:: drawn + need > end ->
					d_step {
						if
						:: P.sequence == state_sequence && !P.exhausted -> P.exhausted = true
						:: else
						fi
					}
				:: else ->
					lease = 0;
					if
					:: drawn + need + MAX_LEASE <= end -> lease = MAX_LEASE
					:: true
					fi;
					d_step {
						if
						:: P.drawn == drawn ->
							P.drawn = drawn + need + lease;
							P.lease[me] = P.lease[me] + need + lease;
							drawn = NONE
						:: else
						fi
					};
					if
					:: drawn == NONE -> goto admitted
					:: else
					fi
				fi
			:: else
			fi;
			atomic { end = 0; drawn = 0; need = 0; lease = 0 }
		od;
		goto judged;
admitted:
		skip;
		d_step {
			P.lease[me] = P.lease[me] - bytes;
			P.counted[me] = P.counted[me] + bytes;
			total = total + bytes;
			/* The limit is never passed. */
			assert(total <= CEILING)
		};
judged:
		bytes = 0;
		d_step {
			inside[me] = false; runs[me]++;
			end = 0; drawn = 0; need = 0; lease = 0; p = 0;
			state_sequence = 0; state_exhausted = false; state_live = 0
		}
	od
}

/* Until all that had begun has ended. */
inline wait_for_programs()
{
	d_step {
		c = 0;
		do
		:: c < CPUS -> seen[c] = runs[c]; was_inside[c] = inside[c]; c++
		:: else -> break
		od;
		c = 0
	};
	do
	:: c < CPUS ->
		if
		:: !was_inside[c] || runs[c] != seen[c] -> c++
		fi
	:: else -> break
	od;
	c = 0
}

inline read_old()
{
	d_step {
		state_sequence = pools[OLD].sequence; state_exhausted = pools[OLD].exhausted; live = pools[OLD].live
	}
}

#define OLD_IS_THE_SAME (pools[OLD].sequence == state_sequence && pools[OLD].exhausted == state_exhausted)

/* Killed here, maybe. */
inline may_die()
{
	if
	:: kills < KILLS -> kills++; goto recover
	:: true
	fi
}

proctype process()
{
	byte kills, c, live, place, drawn, kept, sum, state_sequence;
	bool state_exhausted, swapped;
	byte seen[CPUS];
	bool was_inside[CPUS];

begin:
	/* carry_hold() */
	do
	:: true ->
		read_old();
		assert(!pools[OLD].held[live]);
		drawn = pools[OLD].drawn;
		place = (live + 1) % 3;
		d_step {
			pools[OLD].end[place] = pools[OLD].end[live];
			if
			:: drawn < pools[OLD].end[live] ->
				pools[OLD].end[place] = pools[OLD].end[live] - (pools[OLD].end[live] - drawn) / 2
			:: else
			fi;
			pools[OLD].held[place] = true;
			pools[OLD].held_exhausted[place] = state_exhausted
		};
		may_die();
		d_step {
			swapped = OLD_IS_THE_SAME;
			if
			:: swapped -> pools[OLD].live = place; pools[OLD].sequence++; pools[OLD].exhausted = state_exhausted
			:: else
			fi
		};
		if
		:: swapped -> break
		:: else
		fi
	od;
	may_die();
	if
	:: BUG != BUG_HOLD_NO_WAIT -> wait_for_programs()
	:: else
	fi;
	/* carry_lend() */
	read_old();
	kept = pools[OLD].end[live];
	drawn = pools[OLD].drawn;
	d_step {
		if
		:: drawn > kept && BUG != BUG_BLIND_LEND -> kept = drawn
		:: else
		fi;
		if
		:: BUG == BUG_WHOLE -> kept = drawn
		:: else
		fi;
		carried = CEILING;
		pools[NEW].drawn = carried;
		pools[NEW].end[0] = carried + CEILING - kept;
		pools[NEW].live = 0;
		pools[NEW].exhausted = pools[OLD].held_exhausted[live];
		pools[NEW].sequence = 1;
		drawn = 0; kept = 0
	};
	may_die();
	is_next = true;
complete:
	may_die();
	hook = NEW;
	may_die();
	if
	:: BUG != BUG_SWAP_NO_WAIT -> wait_for_programs()
	:: else
	fi;
	/* carry_finish() */
	read_old();
	assert(pools[OLD].held[live]);
	do
	:: c < CPUS -> sum = sum + pools[OLD].counted[c]; c++
	:: else -> break
	od;
	c = 0;
	do
	:: true ->
		d_step { state_sequence = pools[NEW].sequence; state_exhausted = pools[NEW].exhausted; place = pools[NEW].live };
		if
		:: place != 0 -> break
		:: else ->
			pools[NEW].end[1] = carried - sum + CEILING;
			may_die();
			d_step {
				swapped = pools[NEW].sequence == state_sequence && pools[NEW].exhausted == state_exhausted;
				if
				:: swapped ->
					pools[NEW].live = 1;
					pools[NEW].sequence++;
					pools[NEW].exhausted = state_exhausted && (BUG == BUG_KEEP_LATCH || pools[OLD].held_exhausted[live])
				:: else
				fi
			}
		fi
	od;
	sum = 0;
	may_die();
	is_done = true;
	goto ended;

recover:
	skip;
	d_step {
		c = 0; live = 0; place = 0; drawn = 0; kept = 0; sum = 0; state_sequence = 0; state_exhausted = false; swapped = false
	};
	if
	:: is_next -> goto complete
	:: else
	fi;
	/* carry_release() */
	do
	:: true ->
		read_old();
		if
		:: !pools[OLD].held[live] -> break
		:: else ->
			place = live;
			d_step {
				if
				:: OLD_IS_THE_SAME ->
					/* The stand-in is in the place behind the one that it stands for. */
					pools[OLD].live = (live + 2) % 3;
					pools[OLD].exhausted = state_exhausted && pools[OLD].held_exhausted[live];
					pools[OLD].sequence++
				:: else
				fi
			}
		fi
	od;
	place = 0;
	d_step {
		do
		:: place < 3 -> pools[OLD].held[place] = false; place++
		:: else -> break
		od;
		place = 0
	};
	goto begin;

ended:
	skip
}

init
{
	byte c, sum, held;

	atomic {
		pools[OLD].end[0] = CEILING;
		do
		:: c < CPUS -> run cpu(c); c++
		:: else -> break
		od;
		c = 0;
		run process()
	};
	_nr_pr == 1;
	d_step {
		do
		:: c < CPUS -> sum = sum + pools[NEW].counted[c]; held = held + pools[NEW].lease[c]; c++
		:: else -> break
		od;
		c = 0;
		assert(is_done && hook == NEW);
		/* What is counted and leased is what was drawn, and what is left is what has not been admitted. */
		assert(pools[NEW].drawn == carried + sum + held);
		assert(pools[NEW].end[1] - carried - sum == CEILING - total);
		/* A limit is exhausted only if no packet fits beside what other CPUs hold. */
		assert(!pools[NEW].exhausted || CEILING - total < LARGEST + (CPUS - 1) * MAX_LEASE)
	}
}
