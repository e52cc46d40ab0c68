// SPDX-License-Identifier: BSD-2-Clause
#include "http.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/listen.h"
#include "base/log.h"
#include "base/wipe.h"
#include "connections.h"
#include "identity.h"

#include <wiretoll/report.h>

#include <arpa/inet.h>
#include <errno.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DAEMON_THREADS   2
#define MAX_DISCARDED    (16 * 1024 * 1024)
#define TOO_LARGE        "the body is larger than 1 MiB"
#define CONNECTION_BYTES 8192 /* what a request's line and headers may take */

/*
 * AES-128 first for its SHA-256: hashing is a good part of a handshake, and processors have instructions for
 * SHA-256, but not for the SHA-384 of AES-256. X25519 first, as most clients send a key for it unasked: for
 * another group they would have to be asked, which takes another round trip.
 */
#define TLS_PRIORITIES                                                                                       \
	"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%SERVER_PRECEDENCE:-CIPHER-ALL:+AES-128-GCM:"            \
	"+CHACHA20-POLY1305:+AES-256-GCM:-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1"

/* Clients that break the rules of HTTP/1.1 are refused: two readings of one request are how it is smuggled.
 */
#if MHD_VERSION >= 0x00097701
#define STRICT_OPTION MHD_OPTION_CLIENT_DISCIPLINE_LVL
#else
#define STRICT_OPTION MHD_OPTION_STRICT_FOR_CLIENT
#endif

/* What is said once or not at all. */
static const char *const single_headers[] = {
	"Host",        "Content-Length",    "Transfer-Encoding",  "Authorization", "Wiretoll-Act-For",
	WT_HEADER_CRC, WT_HEADER_KEPT_FROM, WT_HEADER_EPOCH_OVER,
};
#define N_SINGLE_HEADERS ARRAY_SIZE(single_headers)

struct http {
	const struct sealing_key *sealing_key;
	struct work *work;
	struct connections *connections;
	atomic_uint open_exchanges;
	size_t n_daemons;
	struct MHD_Daemon *daemons[];
};

static void free_exchange(struct exchange *exchange)
{
	if (!exchange)
		return;
	response_reset(&exchange->response);
	if (exchange->request.prepared)
		exchange->request.collector->free_prepared(exchange->request.prepared);
	json_decref(exchange->json);
	if (exchange->body)
		sodium_memzero(exchange->body, exchange->body_size);
	free(exchange->body);
	for (size_t i = 0; i < ARRAY_SIZE(exchange->arguments); i++)
		free(exchange->arguments[i]);
	free(exchange->path);
	free(exchange->query);
	free(exchange);
}

/* Of a target in origin form, or in absolute form, which a server has to accept as well (RFC 9112, 3.2.2). */
static char *copy_path(const char *target)
{
	size_t scheme = strncasecmp(target, "https://", 8) == 0  ? 8
			: strncasecmp(target, "http://", 7) == 0 ? 7
								 : 0;

	size_t host = strcspn(target + scheme, "/?");

	/* An empty host is no host (RFC 9110, 4.2.2), and so no path of ours. */
	if (scheme > 0 && host > 0)
		target += scheme + host;
	return *target == '/' ? strndup(target, strcspn(target, "?"))
			      : strndup(scheme > 0 && host > 0 ? "/" : target, strcspn(target, "?"));
}

/*
 * Takes the query over, so that libmicrohttpd finds an empty one. It keeps the parameters in what is left of
 * the connection's memory, and where they do not fit, 0.9.75 forgets the request: no answer, and no notice of
 * its end. Its lines are its own to write in.
 */
static bool take_query(struct exchange *exchange, const char *target)
{
	char *query = strchr((char *)(uintptr_t)target, '?');

	if (!query)
		return true;
	exchange->query = strdup(query + 1);
	query[1] = '\0';
	if (!exchange->query)
		return false;
	query_read(exchange);
	return true;
}

/* Called with the request line, before libmicrohttpd decodes the path: "%2F" must not become a separator. */
static void *on_request_line(void *context, const char *uri, struct MHD_Connection *connection)
{
	struct http *http = context;
	struct exchange *exchange = calloc(1, sizeof(*exchange));

	if (!exchange)
		return NULL;
	exchange->path = copy_path(uri);
	exchange->connection = connection;
	exchange->request.sealing_key = http->sealing_key;
	exchange->request.transport = exchange;
	exchange->request.client_address = exchange->client_address;
	if (!exchange->path || !take_query(exchange, uri)) {
		free_exchange(exchange);
		return NULL;
	}
	atomic_fetch_add(&http->open_exchanges, 1);
	connection_set_exchange(connection, exchange);
	connection_expect(connection, 0);
	return exchange;
}

static void close_exchange(struct http *http, struct MHD_Connection *connection, struct exchange *exchange)
{
	connection_set_exchange(connection, NULL);
	if (exchange)
		atomic_fetch_sub(&http->open_exchanges, 1);
	free_exchange(exchange);
}

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
			  enum MHD_ConnectionNotificationCode code)
{
	struct http *http = context;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED)
		close_exchange(http, connection, connection_exchange(connection));
	connections_notify(http->connections, connection, socket_context, code);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **request_context,
			 enum MHD_RequestTerminationCode code)
{
	struct http *http = context;

	(void)code;
	connection_expect(connection, 0); /* the next request */
	close_exchange(http, connection, *request_context);
	*request_context = NULL;
}

static void format_client(struct MHD_Connection *connection, char *buffer, size_t size)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const struct sockaddr *address = info ? info->client_addr : NULL;
	const void *ip = NULL;

	if (address && address->sa_family == AF_INET)
		ip = &((const struct sockaddr_in *)address)->sin_addr;
	else if (address && address->sa_family == AF_INET6)
		ip = &((const struct sockaddr_in6 *)address)->sin6_addr;
	if (!ip || !inet_ntop(address->sa_family, ip, buffer, (socklen_t)size))
		snprintf(buffer, size, "%s", "");
}

/* Takes over the response's text, or writes its JSON. All buffers are wiped: some hold tokens. */
static struct MHD_Response *make_body(struct response *response, size_t *ret_length)
{
	char *text = response->json ? json_dumps(response->json, JSON_COMPACT) : TAKE_PTR(response->text);
	struct MHD_Response *made;

	*ret_length = text ? strlen(text) : 0;
	if (!text)
		return MHD_create_response_from_buffer(0, (void *)(uintptr_t) "", MHD_RESPMEM_PERSISTENT);
	made = MHD_create_response_from_buffer_with_free_callback(*ret_length, text, wipe_and_free);
	if (!made)
		wipe_and_free(text);
	return made;
}

static void add_number(struct MHD_Response *made, const char *header, unsigned value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	MHD_add_response_header(made, header, text);
}

static void add_headers(struct MHD_Response *made, const struct response *response)
{
	char disposition[96];

	if (response->content_type || response->json)
		MHD_add_response_header(made, "Content-Type",
					response->content_type ? response->content_type : "application/json");
	MHD_add_response_header(made, "Cache-Control", "no-store");
	MHD_add_response_header(made, "X-Content-Type-Options", "nosniff");
	if (response->status == 401)
		MHD_add_response_header(made, "WWW-Authenticate", "Bearer");
	if (response->allow[0])
		MHD_add_response_header(made, "Allow", response->allow);
	if (response->close)
		MHD_add_response_header(made, "Connection", "close");
	if (response->retry_after)
		add_number(made, "Retry-After", response->retry_after);
	if (response->disposition[0]) {
		snprintf(disposition, sizeof(disposition), "attachment; filename=\"%s\"",
			 response->disposition);
		MHD_add_response_header(made, "Content-Disposition", disposition);
	}
}

static enum MHD_Result send_response(struct exchange *exchange)
{
	struct response *response = &exchange->response;
	struct MHD_Response *made;
	enum MHD_Result result;
	size_t length;

	if (response->status == 0)
		response_problem(response, 500, NULL, "the server has no answer to this");
	made = make_body(response, &length);
	if (!made)
		return MHD_NO;
	add_headers(made, response);
	connection_expect(exchange->connection, length);
	result = MHD_queue_response(exchange->connection, response->status, made);
	MHD_destroy_response(made);
	return result;
}

static enum MHD_Result refuse_early(struct exchange *exchange, unsigned status, unsigned retry_after,
				    const char *detail)
{
	response_problem(&exchange->response, status, NULL, "%s", detail);
	exchange->response.retry_after = retry_after;
	exchange->state = EXCHANGE_DONE;
	return send_response(exchange);
}

/* The buffer grows by copying, never realloc(): a block left behind would keep its secrets. */
static int keep_body(struct exchange *exchange, const char *data, size_t length)
{
	size_t size = exchange->body_size;
	char *larger;

	while (size < exchange->body_length + length)
		size = size ? size * 2 : 4096;
	if (size > exchange->body_size) {
		larger = malloc(size);
		if (!larger)
			return -ENOMEM;
		if (exchange->body) {
			memcpy(larger, exchange->body, exchange->body_length);
			sodium_memzero(exchange->body, exchange->body_size);
			free(exchange->body);
		}
		exchange->body = larger;
		exchange->body_size = size;
	}
	memcpy(exchange->body + exchange->body_length, data, length);
	exchange->body_length += length;
	return 0;
}

/* A client that asks before it sends can be told at once; others hear nothing before they have sent all. */
static bool asks_for_too_much(struct exchange *exchange)
{
	const char *length = request_header(&exchange->request, "Content-Length");

	return length && strtoull(length, NULL, 10) > MAX_BODY &&
	       request_header(&exchange->request, "Expect");
}

/* False when the connection has to be dropped. */
static bool take_body(struct exchange *exchange, const char *data, size_t length)
{
	exchange->sent += length;
	if (exchange->sent > MAX_BODY)
		return exchange->sent <= MAX_DISCARDED;
	connection_extend(exchange->connection, length);
	return keep_body(exchange, data, length) == 0;
}

static enum MHD_Result hand_over(struct http *http, struct exchange *exchange)
{
	const char *why;

	exchange->request.raw_body = exchange->body;
	exchange->request.raw_body_length = exchange->body_length;
	format_client(exchange->connection, exchange->client_address, sizeof(exchange->client_address));
	connection_hold(exchange->connection);
	if (work_offer(http->work, exchange, &why))
		return MHD_YES;
	return refuse_early(exchange, 503, 1, why);
}

struct framing {
	unsigned seen[N_SINGLE_HEADERS];
	const char *coding;
};

static enum MHD_Result on_header(void *context, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct framing *framing = context;

	(void)kind;
	for (size_t i = 0; i < N_SINGLE_HEADERS; i++)
		framing->seen[i] += strcasecmp(name, single_headers[i]) == 0;
	if (strcasecmp(name, "Transfer-Encoding") == 0)
		framing->coding = value ? value : "";
	return MHD_YES;
}

/*
 * Whether there is one way to read it. Of two of a header, libmicrohttpd takes one, and what stands before
 * the API the other, perhaps; a body of which it does not know where it ends it reads to the end of the
 * connection.
 */
static bool is_framed(struct exchange *exchange, char *why, size_t size)
{
	struct framing framing = {0};

	MHD_get_connection_values(exchange->connection, MHD_HEADER_KIND, on_header, &framing);
	for (size_t i = 0; i < N_SINGLE_HEADERS; i++) {
		if (framing.seen[i] < 2)
			continue;
		snprintf(why, size, "the header %s is there %u times; accepted is one", single_headers[i],
			 framing.seen[i]);
		return false;
	}
	if (!framing.coding || (strcasecmp(framing.coding, "chunked") == 0 &&
				!request_header(&exchange->request, "Content-Length")))
		return true;
	snprintf(why, size,
		 "Transfer-Encoding is \"%.64s\"; accepted is chunked, and no Content-Length beside it",
		 framing.coding);
	return false;
}

/*
 * libmicrohttpd calls this once with the headers, for each piece of the body, at its end, and again when a
 * worker has resumed the connection.
 */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *data,
				  size_t *data_size, void **request_context)
{
	struct exchange *exchange = *request_context;
	char why[200];

	(void)connection;
	(void)url;
	(void)version;
	if (!exchange)
		return MHD_NO; /* out of memory */
	if (exchange->state == EXCHANGE_DONE)
		return send_response(exchange);
	if (!exchange->request.method) {
		exchange->request.method = method;
		exchange->request.path = exchange->path;
		if (!is_framed(exchange, why, sizeof(why))) {
			exchange->response.close = true;
			return refuse_early(exchange, 400, 0, why);
		}
		if (asks_for_too_much(exchange))
			return refuse_early(exchange, 413, 0, TOO_LARGE);
		return MHD_YES;
	}
	if (*data_size > 0) {
		if (!take_body(exchange, data, *data_size))
			return MHD_NO;
		*data_size = 0;
		return MHD_YES;
	}
	if (exchange->sent > MAX_BODY)
		return refuse_early(exchange, 413, 0, TOO_LARGE);
	return hand_over(context, exchange);
}

static void on_log(void *context, const char *format, va_list args) WT_PRINTF(2, 0);
static void on_log(void *context, const char *format, va_list args)
{
	char text[256];

	(void)context;
	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	log_debug("libmicrohttpd: %s", text);
}

static struct MHD_Daemon *start_daemon(struct http *http, int fd, const struct http_settings *settings)
{
	const unsigned flags =
		MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_TLS | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
	struct MHD_OptionItem options[] = {
		{MHD_OPTION_LISTEN_SOCKET, fd, NULL},
		{MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)TLS_PRIORITIES},
		{MHD_OPTION_CONNECTION_LIMIT, settings->connections, NULL},
		{MHD_OPTION_CONNECTION_TIMEOUT, settings->request_seconds, NULL},
		{STRICT_OPTION, 1, NULL},
		{MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES, NULL},
		{MHD_OPTION_THREAD_POOL_SIZE, DAEMON_THREADS, NULL},
		{MHD_OPTION_END, 0, NULL},
	};

	return MHD_start_daemon(
		flags, 0, connections_accept, http->connections, on_request, http, MHD_OPTION_EXTERNAL_LOGGER,
		on_log, NULL, MHD_OPTION_URI_LOG_CALLBACK, on_request_line, http, MHD_OPTION_NOTIFY_COMPLETED,
		on_completed, http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
		MHD_OPTION_HTTPS_CERT_CALLBACK, identity_show, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
}

static int listen_and_start(struct http *http, const char *address, const struct http_settings *settings)
{
	char bound[LISTEN_TEXT_SIZE];
	int fd;

	fd = listen_on(address, bound);
	if (fd < 0) {
		log_error("could not listen on \"%s\" (accepted is ADDRESS:PORT): %s", address,
			  strerror(-fd));
		return fd;
	}
	http->daemons[http->n_daemons] = start_daemon(http, fd, settings);
	if (!http->daemons[http->n_daemons]) {
		log_error("could not serve on %s: libmicrohttpd refused", bound);
		close(fd);
		return -EIO;
	}
	http->n_daemons++;
	log_info("listening on https://%s", bound);
	return 0;
}

int http_start(const struct http_settings *settings, const struct sealing_key *sealing_key, struct work *work,
	       struct http **ret_http)
{
	struct http *http = calloc(1, sizeof(*http) + settings->n_listen * sizeof(http->daemons[0]));
	int r;

	if (!http)
		return -ENOMEM;
	http->sealing_key = sealing_key;
	http->work = work;
	/* JSON holds one-time tokens and preshared keys. */
	json_wipe_what_is_freed();
	r = connections_start(settings->connections_per_address, settings->connections_per_second,
			      settings->request_seconds, &http->connections);
	if (r < 0)
		log_error("could not start to watch over connections: %s", strerror(-r));
	for (size_t i = 0; i < settings->n_listen && r == 0; i++)
		r = listen_and_start(http, settings->listen[i], settings);
	if (r < 0) {
		http_stop(http, 0);
		return r;
	}
	*ret_http = http;
	return 0;
}

void http_quiesce(struct http *http)
{
	for (size_t i = 0; i < http->n_daemons; i++) {
		MHD_socket fd = MHD_quiesce_daemon(http->daemons[i]);

		if (fd != MHD_INVALID_SOCKET)
			close(fd);
	}
}

void http_stop(struct http *http, unsigned seconds)
{
	const struct timespec pause = {.tv_nsec = 10 * 1000 * 1000};
	int64_t until = clock_boot_ns() + seconds * NSEC_PER_SEC;

	if (!http)
		return;
	while (atomic_load(&http->open_exchanges) > 0 && clock_boot_ns() < until)
		nanosleep(&pause, NULL);
	if (http->connections)
		connections_stop(http->connections);
	for (size_t i = 0; i < http->n_daemons; i++)
		MHD_stop_daemon(http->daemons[i]);
	connections_free(http->connections);
	free(http);
}
