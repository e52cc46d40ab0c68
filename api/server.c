// SPDX-License-Identifier: BSD-2-Clause
#include "server.h"

#include "background.h"
#include "base/log.h"
#include "base/notify.h"
#include "certificate.h"
#include "http.h"
#include "identity.h"
#include "seal.h"
#include "store/migrate.h"
#include "work.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRAIN_SECONDS       5
#define CERTIFICATE_SECONDS 3600

struct server {
	struct sealing_key sealing_key;
	struct work *work;
	struct http *http;
	struct background *background;
};

/* A schema that this program does not know would be misread or spoilt: it serves no other. */
static int check_schema(const char *database_file)
{
	struct db *db;
	int version, r;

	r = db_open(database_file, &db);
	if (r < 0) {
		log_error("could not connect to the database named in %s: %s", database_file,
			  db_open_reason(r));
		return r;
	}
	r = migrate_current(db, &version);
	if (r < 0) {
		log_error("could not read the database's schema version: %s", db_last_error(db)->message);
	} else if (version != migrate_latest()) {
		log_error("the database has schema %d and this program speaks %d: run `wiretoll-api "
			  "migrate`, or a "
			  "newer program",
			  version, migrate_latest());
		r = -EPROTO;
	}
	db_close(db);
	return r;
}

/* Renews the certificate when it nears its end or lacks an address of this host; 1 when another one is shown
 * now. */
static int refresh_certificate(const char *folder)
{
	char path[PATH_MAX];
	int r = certificate_renew(folder);

	if (r < 0) {
		log_error("could not prepare the certificate in %s (has `wiretoll-api init` been run?): %s",
			  folder, strerror(-r));
		return r;
	}
	snprintf(path, sizeof(path), "%s/" SERVER_PEM_FILE, folder);
	r = identity_load(path);
	if (r < 0)
		log_error("could not read %s: %s", path, strerror(-r));
	return r;
}

static int load_secrets(struct server *server, const char *folder)
{
	char path[PATH_MAX];
	int r = refresh_certificate(folder);

	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/" SEALING_KEY_FILE, folder);
	r = sealing_key_load(path, &server->sealing_key);
	if (r < 0)
		log_error("could not read %s: %s", path, strerror(-r));
	return r;
}

/* Looks after the certificate meanwhile, which ends before many a server does. */
static void wait_for_signal(const sigset_t *signals, const char *folder)
{
	const struct timespec round = {.tv_sec = CERTIFICATE_SECONDS};
	int number, r = notify_manager("READY=1");

	if (r < 0)
		log_warning("could not tell the service manager: %s", strerror(-r));
	do {
		number = sigtimedwait(signals, NULL, &round);
		if ((number == SIGHUP || (number < 0 && errno == EAGAIN)) && refresh_certificate(folder) == 1)
			log_info("showing a new certificate");
	} while (number != SIGTERM && number != SIGINT);
	log_info("stopping");
}

/* In this order: nothing new comes in, what is under way ends, answers go out, then the rest. */
static void stop(struct server *server)
{
	if (server->http)
		http_quiesce(server->http);
	background_stop(server->background);
	work_stop(server->work);
	http_stop(server->http, DRAIN_SECONDS);
	work_free(server->work);
}

static int start(struct server *server, const struct server_settings *settings)
{
	const struct work_settings work = {
		.workers = settings->workers,
		.agent_workers = settings->agent_workers,
		.queue = settings->queue,
		.database_file = settings->database_file,
	};
	const struct http_settings http = {
		.listen = settings->listen,
		.n_listen = settings->n_listen,
		.connections = settings->connections,
		.connections_per_address = settings->connections_per_address > 0
						   ? settings->connections_per_address
						   : settings->connections / 4 + 1,
		.connections_per_second = settings->connections_per_second,
		.request_seconds = settings->request_seconds,
	};
	int r;

	r = work_start(&work, &server->work);
	if (r == 0)
		r = background_start(server->work, settings->database_file, &server->background);
	if (r < 0) {
		log_error("could not start the workers: %s", strerror(-r));
		return r;
	}
	return http_start(&http, &server->sealing_key, server->work, &server->http);
}

int server_run(const struct server_settings *settings)
{
	struct server server = {0};
	sigset_t signals;
	int r;

	/* Before any thread is made: they inherit the mask, and sigtimedwait() above gets the signals. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = check_schema(settings->database_file);
	if (r == 0)
		r = load_secrets(&server, settings->state_folder);
	if (r == 0)
		r = start(&server, settings);
	if (r == 0)
		wait_for_signal(&signals, settings->state_folder);
	stop(&server);
	identity_free();
	sodium_memzero(&server.sealing_key, sizeof(server.sealing_key));
	return r;
}
