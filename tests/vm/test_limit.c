// SPDX-License-Identifier: BSD-2-Clause
/* Limits on the kernel's own WireGuard, compared with what a capture at the customer has seen. */
#include "capture.h"
#include "lab.h"

#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

#define BOTH     (WT_UPLOADS | WT_DOWNLOADS)
#define UNSPENT  1000000 /* what a limit may leave */
#define PATIENCE 60
#define PING     "ping -q -n -c 2 -i 0.1 -W 60 10.8.0.1 >/dev/null"
#define NO_PING  "ping -q -n -c 2 -i 0.1 -W 1 10.8.0.1 >/dev/null"

static void grant(struct meter *meter, uint64_t cycle, uint64_t number, uint64_t ceiling, uint32_t mask)
{
	const struct meter_grant grant = {
		.cycle = cycle, .grant_seq = number, .ceiling = ceiling, .mask = mask};

	assert_int_equal(meter_grant(meter, &grant), 0);
}

/* Used up, and to the byte: what passed the meter on the way out is what arrived. */
static void assert_cut(struct meter *meter, struct capture *capture, uint64_t ceiling)
{
	struct meter_limit_state limit;
	struct capture_totals truth;
	struct meter_totals totals;

	capture_settles(capture, meter, 1, false, PATIENCE);
	truth = capture_read(capture);
	meter_read(meter, 1, &totals);
	meter_read_limit(meter, &limit);
	assert_true(limit.exhausted);
	assert_in_range(limit.cycle_counted, ceiling - UNSPENT + 1, ceiling);
	assert_int_equal(totals.upload_bytes + totals.download_bytes, limit.cycle_counted);
	assert_int_equal(totals.download_bytes, truth.bytes[CAPTURE_IN]);
	/* What the customer sent and is not counted was refused. */
	assert_true(totals.upload_bytes <= truth.bytes[CAPTURE_OUT]);
	assert_in_range(truth.bytes[CAPTURE_OUT] - totals.upload_bytes, 0, totals.refused_bytes);
}

static void assert_nothing_passes(struct meter *meter, struct capture *capture)
{
	struct capture_totals before, now;

	assert_true(capture_settles(capture, meter, 1, false, PATIENCE));
	before = capture_read(capture);
	assert_int_not_equal(lab_run(1, NO_PING), 0);
	now = capture_read(capture);
	assert_int_equal(now.bytes[CAPTURE_IN], before.bytes[CAPTURE_IN]);
	assert_true(now.packets[CAPTURE_OUT] >= before.packets[CAPTURE_OUT] + 2);
}

static void cuts_at_the_ceiling_and_resumes_with_the_next_grant(void **state)
{
	struct meter *meter = lab_attach();
	struct capture *capture = capture_start(1, "wgc");

	(void)state;
	grant(meter, 1, 1, 3000000, BOTH);
	assert_true(lab_until_exhausted(meter, 0, IPPROTO_TCP, GATEWAY, 1, FIRST4) > 1000000);
	assert_cut(meter, capture, 3000000);
	assert_nothing_passes(meter, capture);
	grant(meter, 1, 2, 6000000, BOTH);
	assert_int_equal(lab_run(1, PING), 0);
	assert_true(lab_until_exhausted(meter, 0, IPPROTO_TCP, 1, GATEWAY, GATEWAY6) > 1000000);
	assert_cut(meter, capture, 6000000);
	assert_nothing_passes(meter, capture);
	grant(meter, 1, 3, WT_NO_CEILING, BOTH);
	assert_int_equal(lab_run(1, PING), 0);
	capture_stop(capture);
	assert_int_equal(meter_remove(meter), 0);
}

static void counts_only_the_directions_of_the_mask(void **state)
{
	struct meter *meter = lab_attach();
	struct meter_limit_state limit;
	struct meter_totals totals;

	(void)state;
	grant(meter, 1, 1, 2500000, WT_UPLOADS);
	lab_tcp(GATEWAY, 1, FIRST4, 3000000);
	meter_read_limit(meter, &limit);
	assert_false(limit.exhausted);
	lab_until_exhausted(meter, 0, IPPROTO_TCP, 1, GATEWAY, GATEWAY4);
	meter_read_limit(meter, &limit);
	assert_true(limit.exhausted);
	meter_read(meter, 1, &totals);
	assert_int_equal(limit.cycle_counted, totals.upload_bytes);
	assert_in_range(totals.upload_bytes, 2500000 - UNSPENT + 1, 2500000);
	assert_int_equal(meter_remove(meter), 0);
}

static void refuses_while_it_is_told_to(void **state)
{
	struct meter *meter = lab_attach();
	struct capture *capture = capture_start(1, "wgc");

	(void)state;
	assert_int_equal(lab_run(1, PING), 0);
	meter_set_refuse(meter, WT_REFUSE_ADMIN);
	assert_nothing_passes(meter, capture);
	meter_set_refuse(meter, 0);
	assert_int_equal(lab_run(1, PING), 0);
	capture_stop(capture);
	assert_int_equal(meter_remove(meter), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cuts_at_the_ceiling_and_resumes_with_the_next_grant),
		cmocka_unit_test(counts_only_the_directions_of_the_mask),
		cmocka_unit_test(refuses_while_it_is_told_to),
	};

	if (lab_make()) {
		fprintf(stderr, "could not make the test's network\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
