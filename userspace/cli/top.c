// SPDX-License-Identifier: BSD-2-Clause
/*
 * wiretoll top: who moves how much right now. It looks at the meter that is there, also while another process
 * runs it; where there is none, it attaches one and takes it away in the end.
 */
#include "cli/meter.h"

#include "base/clock.h"
#include "cli/output.h"
#include "cli/signals.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define COLUMNS                                                                                              \
	"peer=PEER,upload_rate=UP/S,download_rate=DOWN/S,upload=UPLOAD,download=DOWNLOAD,share=SHARE OF "    \
	"LIMIT,state=STATE"
#define SHARE_TEXT_SIZE 32
#define REFRESH_MS      1000
#define HEADER_LINES    4
#define DEFAULT_LINES   50

struct reading {
	struct key public_key;
	struct meter_totals total;
};

/* One look. Readings are in the order of the history: by public key. */
struct look {
	struct reading *readings;
	size_t count;
	int64_t boot_ns;
};

struct line {
	const struct record *record;
	uint64_t upload_rate, download_rate;
};

struct top {
	const char *interface;
	struct station *station;
	bool view;
	struct look before;
	bool terminal;
	struct termios saved;
	int signal_fd;
};

static void look_free(struct look *look)
{
	free(look->readings);
	*look = (struct look){0};
}

static int take_look(const struct station *station, struct look *ret_look)
{
	const struct history *history = station_history(station);
	struct look look = {.readings = calloc(history->n_records, sizeof(*look.readings)),
			    .count = history->n_records,
			    .boot_ns = clock_boot_ns()};

	if (!look.readings)
		return -ENOMEM;
	for (size_t i = 0; i < look.count; i++)
		look.readings[i] =
			(struct reading){history->records[i]->public_key, history->records[i]->total};
	*ret_look = look;
	return 0;
}

static int compare_readings(const void *left, const void *right)
{
	const struct reading *a = left, *b = right;

	return memcmp(a->public_key.bytes, b->public_key.bytes, KEY_SIZE);
}

static uint64_t rate(uint64_t now, uint64_t then, int64_t ns)
{
	if (ns <= 0 || now < then)
		return 0;
	return (uint64_t)((unsigned __int128)(now - then) * NSEC_PER_SEC / (uint64_t)ns);
}

static struct line line_of(const struct record *record, const struct look *before, int64_t now)
{
	const struct reading wanted = {.public_key = record->public_key};
	const struct reading *then = before->count ? bsearch(&wanted, before->readings, before->count,
							     sizeof(wanted), compare_readings)
						   : NULL;
	struct line line = {.record = record};

	if (!then)
		return line;
	line.upload_rate = rate(record->total.upload_bytes, then->total.upload_bytes, now - before->boot_ns);
	line.download_rate =
		rate(record->total.download_bytes, then->total.download_bytes, now - before->boot_ns);
	return line;
}

/* The fastest first; among equals, those that moved more in all. */
static int compare_lines(const void *left, const void *right)
{
	const struct line *a = left, *b = right;
	uint64_t rate_a = a->upload_rate + a->download_rate, rate_b = b->upload_rate + b->download_rate;
	const struct meter_totals *total_a = &a->record->total, *total_b = &b->record->total;
	uint64_t sum_a = total_a->upload_bytes + total_a->download_bytes;
	uint64_t sum_b = total_b->upload_bytes + total_b->download_bytes;

	if (rate_a != rate_b)
		return rate_a < rate_b ? 1 : -1;
	if (sum_a != sum_b)
		return sum_a < sum_b ? 1 : -1;
	return memcmp(a->record->public_key.bytes, b->record->public_key.bytes, KEY_SIZE);
}

/* The peers' lines, and the unattributed one if anything is. */
static int list_lines(const struct top *top, struct line **ret_lines, size_t *ret_count)
{
	const struct history *history = station_history(top->station);
	struct line *lines = calloc(history->n_records, sizeof(*lines));
	int64_t now = clock_boot_ns();
	size_t count = 0;

	if (!lines)
		return -ENOMEM;
	for (size_t i = 0; i < history->n_records; i++) {
		const struct record *record = history->records[i];

		if (i == 0 ? record->total.upload_packets + record->total.download_packets > 0
			   : record->present)
			lines[count++] = line_of(record, &top->before, now);
	}
	if (count > 1)
		qsort(lines, count, sizeof(*lines), compare_lines);
	*ret_lines = lines;
	*ret_count = count;
	return 0;
}

static void set_bytes(json_t *row, const char *member, uint64_t bytes)
{
	char text[BYTES_TEXT_SIZE];

	json_object_set_new(row, member, json_string(bytes_format(bytes, text)));
}

static void format_share(const struct limit *limit, uint64_t used, char text[static SHARE_TEXT_SIZE])
{
	uint64_t tenths = 1000;

	*text = '\0';
	if (!limit->set)
		return;
	if (limit->amount.bytes)
		tenths = (uint64_t)((unsigned __int128)used * 1000 / limit->amount.bytes);
	snprintf(text, SHARE_TEXT_SIZE, "%llu.%llu %%", (unsigned long long)tenths / 10,
		 (unsigned long long)tenths % 10);
}

static json_t *row_of(const struct top *top, const struct line *line)
{
	const struct history *history = station_history(top->station);
	const struct record *record = line->record;
	bool is_peer = !key_is_zero(&record->public_key);
	json_t *row = json_object();
	char key[KEY_TEXT_SIZE], share[SHARE_TEXT_SIZE];

	json_object_set_new(row, "peer", json_string(is_peer ? peer_title(record, key) : "(unattributed)"));
	set_bytes(row, "upload_rate", line->upload_rate);
	set_bytes(row, "download_rate", line->download_rate);
	set_bytes(row, "upload", record->total.upload_bytes);
	set_bytes(row, "download", record->total.download_bytes);
	format_share(&record->limit, record_used(history, record), share);
	json_object_set_new(row, "share", json_string(share));
	json_object_set_new(
		row, "state",
		json_string(record->limited || station_is_limited(top->station) ? "limited" : "ok"));
	return row;
}

static size_t count_peers(const struct line *lines, size_t count)
{
	size_t peers = 0;

	for (size_t i = 0; i < count; i++)
		peers += !key_is_zero(&lines[i].record->public_key);
	return peers;
}

static void print_header(const struct top *top, size_t peers)
{
	const struct history *history = station_history(top->station);
	char limit[LIMIT_TEXT_SIZE], share[SHARE_TEXT_SIZE];

	limit_format(&history->limit, history_used(history), limit);
	format_share(&history->limit, history_used(history), share);
	printf("%s  %zu peers", top->interface, peers);
	if (*limit)
		printf("  %s (%s)", limit, share);
	printf("%s%s\n\n", station_is_limited(top->station) ? "  limited" : "",
	       station_shadowed(top->station) == 1 ? "  shadowed" : "");
}

/* As many lines as the terminal has; elsewhere all. */
static size_t lines_that_fit(const struct top *top, size_t count)
{
	struct winsize size;
	size_t rows = DEFAULT_LINES;

	if (!top->terminal)
		return count;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > HEADER_LINES)
		rows = size.ws_row;
	return count < rows - HEADER_LINES ? count : rows - HEADER_LINES;
}

static int draw(const struct top *top)
{
	_cleanup_json_ json_t *rows = json_array();
	_cleanup_free_ struct line *lines = NULL;
	size_t count, shown;
	int r = list_lines(top, &lines, &count);

	if (r < 0 || !rows)
		return -ENOMEM;
	shown = lines_that_fit(top, count);
	for (size_t i = 0; i < shown; i++)
		json_array_append_new(rows, row_of(top, &lines[i]));
	/* Home, draw over what is there, clear the rest: no flicker. */
	if (top->terminal)
		fputs("\033[H\033[J", stdout);
	print_header(top, count_peers(lines, count));
	r = table_print(stdout, COLUMNS, rows);
	fflush(stdout);
	return r;
}

/* ---- the station ----------------------------------------------------------------------------------------
 */

static int open_station(struct top *top, struct json_problem *problem)
{
	const struct station_options options = {
		.interface = top->interface, .keep = true, .accounting = WT_UPLOADS | WT_DOWNLOADS};
	int r = station_open(&options, &top->station, problem);

	if (r != -EBUSY)
		return r;
	top->view = true;
	return station_view(top->interface, &top->station, problem);
}

/* A view is of one moment's peers: the next look takes a new one. */
static int refresh(struct top *top, struct json_problem *problem)
{
	struct station *station;
	int r;

	if (!top->view) {
		r = station_follow(top->station, problem);
		return r < 0 ? r : station_sample(top->station, problem);
	}
	r = station_view(top->interface, &station, problem);
	if (r < 0)
		return r;
	station_close(top->station);
	top->station = station;
	return 0;
}

static int next_look(struct top *top, struct json_problem *problem)
{
	struct look look;
	int r = take_look(top->station, &look);

	if (r < 0) {
		json_problem_set(problem, "", "out of memory");
		return r;
	}
	look_free(&top->before);
	top->before = look;
	return refresh(top, problem);
}

/* ---- the terminal ---------------------------------------------------------------------------------------
 */

/* Keys come one by one and are not shown, on a screen of their own. */
static void take_terminal(struct top *top)
{
	struct termios raw;

	top->terminal = isatty(STDOUT_FILENO) && tcgetattr(STDIN_FILENO, &top->saved) == 0;
	if (!top->terminal)
		return;
	raw = top->saved;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	fputs("\033[?1049h\033[?25l", stdout);
}

static void give_terminal_back(const struct top *top)
{
	if (!top->terminal)
		return;
	fputs("\033[?25h\033[?1049l", stdout);
	fflush(stdout);
	tcsetattr(STDIN_FILENO, TCSANOW, &top->saved);
}

/* Returns whether it is to end: by 'q', by a signal, or with the terminal. */
static bool wait_a_second(const struct top *top)
{
	int64_t until = clock_boot_ns() + REFRESH_MS * (NSEC_PER_SEC / 1000), now;
	struct pollfd fds[] = {
		{.fd = top->signal_fd, .events = POLLIN},
		{.fd = top->terminal ? STDIN_FILENO : -1, .events = POLLIN},
	};
	char key;

	while ((now = clock_boot_ns()) < until) {
		if (poll(fds, ARRAY_SIZE(fds), (int)((until - now) / 1000000) + 1) < 0)
			continue;
		if (fds[0].revents)
			return true;
		if (fds[1].revents && (read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q'))
			return true;
	}
	return false;
}

static int watch(struct top *top, struct json_problem *problem)
{
	int r = 0;

	while (r == 0) {
		/* Off a terminal one table is enough, with the rates of a second. */
		if (top->terminal && draw(top) < 0)
			r = -ENOMEM;
		if (r < 0 || wait_a_second(top))
			break;
		r = next_look(top, problem);
		if (r == 0 && !top->terminal) {
			r = draw(top);
			break;
		}
	}
	if (r == -ENOMEM)
		json_problem_set(problem, "", "out of memory");
	return r;
}

int run_top(struct session *session, const struct command *command, const struct arguments *arguments)
{
	struct top top = {.interface = arguments->positional[0], .signal_fd = -1};
	struct json_problem problem = {0};
	bool attached, had_history;
	int r = meter_check_rights(session);

	(void)command;
	if (r < 0)
		return r;
	r = open_station(&top, &problem);
	if (r < 0)
		return session_fail(session, r, "%s", problem.message);
	attached = station_was_attached(top.station);
	had_history = station_had_history(top.station);
	r = signals_open(false, &top.signal_fd);
	if (r == 0) {
		take_terminal(&top);
		r = watch(&top, &problem);
		give_terminal_back(&top);
		if (r == 0)
			r = station_finish(top.station, &problem);
	} else {
		json_problem_set(&problem, "", "could not watch for signals: %s", strerror(-r));
	}
	station_close(top.station);
	look_free(&top.before);
	cleanup_close(&top.signal_fd);
	if (r == 0 && attached)
		r = station_stop(top.interface, had_history, &problem);
	return r < 0 ? session_fail(session, r, "%s", problem.message) : 0;
}
