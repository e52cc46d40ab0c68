// SPDX-License-Identifier: BSD-2-Clause
/*
 * The lease protocol of bpf/credit.h and userspace/meter/limit.c, for spin: CPUs that admit packets against the
 * pools of a peer and of the interface, and a process that lays the next cycle's grant down, raises, lowers
 * and turns. Each access to shared memory is a step of its own; what only one CPU touches goes with the step
 * before it: so the packets for which the leases at hand are good need no steps of their own, and a lease is
 * known by the sequence that it was drawn under, however both are stored. Sizes of packets and leases, the
 * last resort instead of a swap, the moment of the turn, and what the process does, are free choices: every
 * one is tried against every other.
 *
 * CPUS, PACKETS (of each CPU), POOLS (1: the interface alone; 2: and a peer) and CHANGES (by the process) set
 * the size. BUG leaves out one of the protocol's precautions each; the model must find that each is needed.
 */
#ifndef CPUS
#define CPUS 2
#endif
#ifndef PACKETS
#define PACKETS 2
#endif
#ifndef POOLS
#define POOLS 1
#endif
#ifndef CHANGES
#define CHANGES 2
#endif
#ifndef BUG
#define BUG 0
#endif

#define LARGEST    2 /* packet */
#define MAX_LEASE  1
#define NONE       3
#define INTERFACE  0

#define BUG_STALE_GRANT   1 /* a grant is believed that may have been written anew */
#define BUG_BLIND_LATCH   2 /* a refusal latches whatever grant is in force */
#define BUG_TORN_DRAW     3 /* drawn is written, not swapped */
#define BUG_TWO_TAKERS    4 /* the next grant is looked at and then taken, not swapped */
#define BUG_DOUBT         5 /* what others are about to give back exhausts a limit */
#define BUG_KEEP          6 /* what the interface refused is not given back to the peer */
#define BUG_OPEN_TURN     7 /* packets are judged while the cycle's base is not there yet */
#define BUG_BLIND_GRANT   8 /* the process writes the state, not swaps it */
#define BUG_OPEN_ADD      9 /* an add that will be undone counts as credit drawn */

typedef Pool {
	/* The state word: a value of it is known by its sequence and latch. */
	byte sequence;
	bool exhausted;
	bool taking_up;
	byte live;
	byte next;
	/* Grants. */
	byte ceiling[3];
	byte base[3];
	byte cycle[3];
	byte drawn;
	byte begun;
	byte ended;
	byte counted[CPUS];
	byte lease[CPUS];
	byte lease_sequence[CPUS];
	/* For the claims only: the highest position allowed so far, how many grants there were, latches of this
	 * one, credit of adds to be undone, credit drawn in doubt, how often the next cycle was taken up. */
	byte top;
	byte grants;
	byte latches;
	byte undone_later;
	byte doubtful;
	byte turns;
};

Pool pools[POOLS];
bool turn_is_due;

#define P pools[p]

inline note_top(p)
{
	if
	:: P.base[P.live] + P.ceiling[P.live] > P.top -> P.top = P.base[P.live] + P.ceiling[P.live]
	:: else
	fi
}

inline claim_account(p)
{
	sum = 0; held = 0; k = 0;
	do
	:: k < CPUS -> sum = sum + P.counted[k]; held = held + P.lease[k]; k++
	:: else -> break
	od;
	/* Credit is neither made nor lost, and nothing is admitted beyond any ceiling. */
	assert(P.drawn == sum + held + P.undone_later);
	assert(sum <= P.top);
	sum = 0; held = 0; k = 0
}

/* take_up(): result in `again`. */
inline take_up(p)
{
	again = false;
	if
	:: state_taking_up || state_next == NONE || !turn_is_due
	:: else ->
		atomic {
			if
			:: BUG == BUG_TWO_TAKERS || (P.sequence == state_sequence && P.exhausted == state_exhausted) ->
				taken = state_next;
				assert(P.cycle[taken] > P.cycle[P.live]);
				P.sequence++;
				P.live = taken;
				P.next = NONE;
				P.exhausted = false;
				P.taking_up = (BUG != BUG_OPEN_TURN);
				P.grants++;
				P.latches = 0;
				P.turns++;
				assert(P.turns == 1);
			:: else -> taken = NONE
			fi
		}
		if
		:: taken != NONE ->
			position = 0; i = 0;
			do
			:: i < CPUS -> position = position + P.counted[i]; i++
			:: else -> break
			od;
			i = 0;
			d_step {
				assert(position <= P.top);
				P.base[taken] = position;
				P.taking_up = false;
				note_top(p);
				position = 0; taken = NONE
			}
		:: else
		fi;
		again = true
	fi
}

#define REFUSED  0
#define RESERVED 1

#define DONE      0
#define EXHAUSTED 1
#define IN_DOUBT  2
#define CHANGED   3

/* draw(): result in `result`; `amount` has what was drawn. */
inline draw(p)
{
	base = P.base[state_live];
	ceiling = P.ceiling[state_live];
	if
	:: BUG != BUG_STALE_GRANT && (P.sequence != state_sequence || P.exhausted != state_exhausted) -> result = CHANGED
	:: else ->
		result = NONE;
		do
		:: result != NONE -> break
		:: else ->
			ended = P.ended;
			if
			:: d_step { drawn = P.drawn; doubtful = P.doubtful + P.undone_later };
				if
				:: drawn + need > base + ceiling -> goto_too_little = true
				:: else ->
					select_lease();
					if
					:: BUG == BUG_TORN_DRAW -> d_step { P.drawn = drawn + need + lease; amount = need + lease };
						result = DONE
					:: else ->
						d_step {
							if
							:: P.drawn == drawn -> P.drawn = drawn + need + lease; amount = need + lease;
								result = DONE; P.lease[me] = P.lease[me] + amount;
								if :: p != INTERFACE -> P.doubtful = P.doubtful + amount :: else fi
							:: else
							fi;
							lease = 0
						}
					fi
				fi
			:: P.begun = P.begun + (BUG != BUG_OPEN_ADD);
				d_step {
					drawn = P.drawn;
					P.drawn = P.drawn + need;
					if
					:: drawn + need <= base + ceiling -> P.lease[me] = P.lease[me] + need; amount = need; result = DONE;
						if :: p != INTERFACE -> P.doubtful = P.doubtful + need :: else fi
					:: else -> P.undone_later = P.undone_later + need; result = IN_DOUBT
					fi
				};
				if
				:: result == IN_DOUBT -> d_step { P.drawn = P.drawn - need; P.undone_later = P.undone_later - need }
				:: else
				fi;
				P.ended = P.ended + (BUG != BUG_OPEN_ADD)
			fi;
			if
			:: goto_too_little ->
				d_step {
					goto_too_little = false;
					if
					:: BUG == BUG_DOUBT || P.begun == ended + in_doubt[p] -> result = EXHAUSTED
					:: else -> result = IN_DOUBT
					fi
				}
			:: else
			fi
		od
	fi
}

inline select_lease()
{
	lease = 0;
	if
	:: drawn + need + MAX_LEASE <= base + ceiling -> lease = MAX_LEASE
	:: true
	fi
}

/* reserve(): result in `judgement`. */
inline reserve(p)
{
	judgement = NONE;
	do
	:: judgement != NONE -> break
	:: else ->
		d_step {
			state_sequence = P.sequence; state_exhausted = P.exhausted; state_taking_up = P.taking_up;
			state_live = P.live; state_next = P.next; judged = P.grants
		};
		if
		:: state_exhausted || state_taking_up ->
			take_up(p);
			if :: !again -> judgement = REFUSED :: else fi
		:: else ->
			if
			:: P.lease_sequence[me] != state_sequence ->
				d_step {
					P.drawn = P.drawn - P.lease[me]; P.lease[me] = 0; P.lease_sequence[me] = state_sequence
				}
			:: else
			fi;
			if
			:: P.lease[me] >= bytes -> judgement = RESERVED
			:: else ->
				if
				:: p != INTERFACE && !in_doubt[p] -> d_step { in_doubt[p] = 1; P.begun++ }
				:: else
				fi;
				need = bytes - P.lease[me];
				draw(p);
				if
				:: result == DONE -> d_step { judgement = RESERVED; hold[p] = amount; claim_account(p) }
				:: result == IN_DOUBT -> judgement = REFUSED
				:: result == EXHAUSTED -> d_step {
						if
						:: BUG == BUG_BLIND_LATCH || (P.sequence == state_sequence && !P.exhausted) ->
							/* No latch of a newer grant, once for each, and not while a packet's worth is left. */
							assert(judged == P.grants);
							if :: !P.exhausted -> P.latches++ :: else fi;
							assert(P.latches == 1);
							assert(drawn - doubtful + LARGEST > base + ceiling);
							P.exhausted = true
						:: else
						fi
					}
				:: else
				fi
			fi
		fi
	od;
	atomic { base = 0; ceiling = 0; need = 0; drawn = 0; doubtful = 0; ended = 0; amount = 0; result = 0; judged = 0;
		state_sequence = 0; state_exhausted = 0; state_taking_up = 0; state_live = 0; state_next = 0 }
}

proctype cpu(byte me)
{
	byte packets, bytes, need, base, ceiling, drawn, lease, amount, doubtful, ended, position, result, judgement;
	byte state_sequence, state_live, state_next, judged, i, taken = NONE;
	bool state_exhausted, state_taking_up, again, goto_too_little;
	byte in_doubt[2], hold[2];
	byte sum, held, k;

	do
	:: packets == PACKETS -> break
	:: else ->
		packets++;
		if
		:: bytes = 1
		:: bytes = LARGEST
		fi;
		judgement = RESERVED;
#if POOLS == 2
		reserve(1);
#endif
		if
		:: judgement == RESERVED ->
			reserve(INTERFACE);
			d_step {
				if
				:: judgement == RESERVED ->
					pools[0].lease[me] = pools[0].lease[me] - bytes;
					pools[0].counted[me] = pools[0].counted[me] + bytes
				:: else
				fi;
				claim_account(0);
				hold[0] = 0
			}
#if POOLS == 2
			d_step {
				if
				:: judgement == RESERVED ->
					pools[1].lease[me] = pools[1].lease[me] - bytes;
					pools[1].counted[me] = pools[1].counted[me] + bytes
				:: BUG != BUG_KEEP && judgement != RESERVED ->
					pools[1].drawn = pools[1].drawn - hold[1];
					pools[1].lease[me] = pools[1].lease[me] - hold[1]
				:: else
				fi;
				pools[1].doubtful = pools[1].doubtful - hold[1];
				claim_account(1);
				/* Nothing of a refused packet stays with the peer. */
				assert(pools[1].lease[me] <= MAX_LEASE);
				hold[1] = 0
			}
#endif
		:: else
		fi;
#if POOLS == 2
		if
		:: in_doubt[1] -> d_step { in_doubt[1] = 0; pools[1].ended++ }
		:: else
		fi;
#endif
		d_step { bytes = 0; judgement = 0 }
	od
}

/* Time passes. */
proctype clock()
{
	turn_is_due = true
}

/* What the process wants: a grant of `cycle` now, or the next one. Records and state as limit.c writes them. */
inline put(p, wanted_cycle, wanted_ceiling, is_next)
{
	do
	:: true ->
		atomic { !P.taking_up -> state_sequence = P.sequence; state_exhausted = P.exhausted; live = P.live; next = P.next };
		if
		:: P.cycle[live] > wanted_cycle || (is_next && P.cycle[live] == wanted_cycle) || (wanted_cycle == 2 && P.cycle[live] == 2) ->
			break
		:: else ->
			d_step {
				place = 0;
				do
				:: place == live || place == next -> place++
				:: else -> break
				od;
				position = 0
			};
			if
			:: !is_next && wanted_cycle != P.cycle[live] ->
				i = 0;
				do
				:: i < CPUS -> position = position + P.counted[i]; i++
				:: else -> break
				od;
				i = 0
			:: else -> position = P.base[live]
			fi;
			P.ceiling[place] = wanted_ceiling;
			P.base[place] = position;
			P.cycle[place] = wanted_cycle;
			d_step {
				if
				:: BUG == BUG_BLIND_GRANT || (P.sequence == state_sequence && P.exhausted == state_exhausted) ->
					P.sequence++;
					if
					:: is_next -> P.next = place
					:: else ->
						assert(wanted_cycle >= P.cycle[P.live]);
						if
						:: next != NONE && P.cycle[next] <= wanted_cycle -> P.next = NONE
						:: else
						fi;
						P.live = place;
						P.exhausted = false;
						P.grants++;
						P.latches = 0;
						note_top(p)
					fi;
					swapped = true
				:: else -> swapped = false
				fi
			};
			if
			:: swapped -> break
			:: else
			fi
		fi
	od;
	atomic { state_sequence = 0; state_exhausted = 0; live = 0; next = 0; place = 0; position = 0; swapped = 0 }
}

proctype process()
{
	byte changes, state_sequence, live, next, place, position, i;
	bool state_exhausted, swapped;

	do
	:: changes == CHANGES -> break
	:: else ->
		changes++;
		if
		:: put(INTERFACE, 1, 3, false) /* raise */
		:: put(INTERFACE, 1, 1, false) /* lower, or grant the same anew */
		:: put(INTERFACE, 2, 4, true)
		:: put(INTERFACE, 2, 4, false)
#if POOLS == 2
		:: put(1, 1, 3, false)
		:: put(1, 2, 4, true)
#endif
		fi
	od
}

init
{
	byte p, c;

	atomic {
		do
		:: p < POOLS ->
			P.next = NONE;
			P.ceiling[0] = 2;
			P.cycle[0] = 1;
			P.top = 2;
			P.grants = 1;
			p++
		:: else -> break
		od;
		p = 0;
#if POOLS == 2
		/* So that the interface refuses what the peer may. */
		pools[1].ceiling[0] = 3;
		pools[1].top = 3;
#endif
#ifdef NEXT
		/* The next grant is there from the beginning. */
		pools[0].next = 1;
		pools[0].ceiling[1] = 4;
		pools[0].cycle[1] = 2;
#endif
		do
		:: c < CPUS -> run cpu(c); c++
		:: else -> break
		od;
		c = 0;
		run clock();
		run process()
	}
}
