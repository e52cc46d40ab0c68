// SPDX-License-Identifier: BSD-2-Clause
#include "background.h"

#include "base/log.h"
#include "billing/billing.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ROUND_MS 1000

struct background {
	struct work *work;
	const char *database_file;
	int stop; /* readable when it is time to end */
	pthread_t listener, clock;
	bool has_listener, has_clock;
};

/* Waits for the other descriptor (-1: none) or the time; false when it is time to end. */
static bool wait_for(const struct background *background, int fd, int timeout_ms)
{
	struct pollfd pollers[] = {
		{.fd = background->stop, .events = POLLIN},
		{.fd = fd, .events = POLLIN},
	};

	poll(pollers, ARRAY_SIZE(pollers), timeout_ms);
	return !(pollers[0].revents & POLLIN);
}

/* Says it once when something begins to fail and once when it works again. */
static void log_change(bool *failing, int error, const char *what)
{
	if (error < 0 && !*failing)
		log_warning("could not %s: %s; trying again every second", what, strerror(-error));
	else if (error == 0 && *failing)
		log_info("can %s again", what);
	*failing = error < 0;
}

/* Whatever has changed while nobody listened is looked up by all who wait. */
static int start_listening(struct background *background, struct db **db)
{
	int r = *db ? db_ensure(*db) : db_open(background->database_file, db);

	if (r == 0)
		r = DB_EXECUTE(*db, "LISTEN wiretoll_revision");
	if (r >= 0)
		r = DB_EXECUTE(*db, "LISTEN wiretoll_alarm");
	if (r < 0)
		return r;
	work_wake(background->work, NULL);
	return 0;
}

/* Takes what has come. Returns -ENOTCONN when the connection is lost. */
static int take_notifications(struct background *background, struct db *db)
{
	PGnotify *notification;

	if (PQconsumeInput(db_connection(db)) == 0)
		return -ENOTCONN;
	while ((notification = PQnotifies(db_connection(db)))) {
		if (strcmp(notification->relname, "wiretoll_alarm") == 0)
			log_warning("alarm: %s", notification->extra);
		else
			work_wake(background->work, notification->extra);
		PQfreemem(notification);
	}
	return 0;
}

static void *listener(void *argument)
{
	struct background *background = argument;
	struct db *db = NULL;
	bool failing = false;

	for (;;) {
		int r = start_listening(background, &db);

		log_change(&failing, r, "listen for changes");
		/* A notification may have come in with the answer to LISTEN: look before waiting. */
		while (r == 0) {
			r = take_notifications(background, db);
			if (r == 0 && !wait_for(background, db_socket(db), -1))
				goto out;
		}
		if (!wait_for(background, -1, ROUND_MS))
			break;
	}
out:
	db_close(db);
	return NULL;
}

static void *billing_clock(void *argument)
{
	struct background *background = argument;
	struct db *db = NULL;
	bool failing = false;

	do {
		int r = db ? db_ensure(db) : db_open(background->database_file, &db);

		if (r == 0)
			r = billing_clock_tick(db);
		log_change(&failing, r < 0 ? r : 0, "run the billing clock");
	} while (wait_for(background, -1, ROUND_MS));
	db_close(db);
	return NULL;
}

int background_start(struct work *work, const char *database_file, struct background **ret_background)
{
	struct background *background = calloc(1, sizeof(*background));
	int r;

	if (!background)
		return -ENOMEM;
	background->work = work;
	background->database_file = database_file;
	background->stop = eventfd(0, EFD_CLOEXEC);
	r = background->stop < 0 ? -errno
				 : -pthread_create(&background->listener, NULL, listener, background);
	background->has_listener = r == 0;
	if (r == 0) {
		r = -pthread_create(&background->clock, NULL, billing_clock, background);
		background->has_clock = r == 0;
	}
	if (r < 0) {
		background_stop(background);
		return r;
	}
	*ret_background = background;
	return 0;
}

void background_stop(struct background *background)
{
	if (!background)
		return;
	if (background->stop >= 0)
		eventfd_write(background->stop, 1);
	if (background->has_listener)
		pthread_join(background->listener, NULL);
	if (background->has_clock)
		pthread_join(background->clock, NULL);
	if (background->stop >= 0)
		close(background->stop);
	free(background);
}
