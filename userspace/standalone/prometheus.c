// SPDX-License-Identifier: BSD-2-Clause
#include "standalone/prometheus.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS     32
#define TIMEOUT_SECONDS 10
#define CONTENT_TYPE    "text/plain; version=0.0.4; charset=utf-8"

struct prometheus {
	struct MHD_Daemon *daemon;
	const struct station *station;
	prometheus_refresh_fn refresh;
	void *data;
};

/* One answer, always the same for the same question. */
static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type,
			      char *text)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result result;

	if (!response) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status, const char *text)
{
	char *copy = strdup(text);

	return copy ? answer(connection, status, "text/plain; charset=utf-8", copy) : MHD_NO;
}

/* RFC 9112, 3.2.2: a server must accept the absolute form, "http://host/path", too; the host says nothing. */
static const char *path_of(const char *target)
{
	const char *path = strncasecmp(target, "http://", 7) == 0 ? target + 7 : NULL;

	if (!path)
		return target;
	path += strcspn(path, "/");
	return *path ? path : "/";
}

static enum MHD_Result on_request(void *data, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *upload, size_t *size,
				  void **context)
{
	struct prometheus *server = data;
	char *text;

	(void)version, (void)upload, (void)context;
	*size = 0;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
	if (strcmp(path_of(url), "/metrics") != 0)
		return refuse(connection, MHD_HTTP_NOT_FOUND, "there is only /metrics\n");
	server->refresh(server->data);
	text = prometheus_text(server->station);
	return text ? answer(connection, MHD_HTTP_OK, CONTENT_TYPE, text) : MHD_NO;
}

/* 1 to 65535 in digits: getaddrinfo() takes larger numbers, and what is left of them. */
static bool is_port(const char *text)
{
	size_t digits = strspn(text, "0123456789");
	long port = digits <= 5 ? strtol(text, NULL, 10) : 0;

	return text[digits] == '\0' && port >= 1 && port <= 65535;
}

/* "ADDRESS:PORT" with an IPv6 address in brackets. */
static int resolve(const char *text, struct addrinfo **ret_info)
{
	static const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
					      .ai_socktype = SOCK_STREAM};
	_cleanup_free_ char *copy = strdup(text);
	char *port, *host = copy;
	size_t length;

	if (!copy)
		return -ENOMEM;
	port = strrchr(copy, ':');
	if (!port)
		return -EINVAL;
	*port++ = '\0';
	length = strlen(host);
	if (*host == '[' && host[length - 1] == ']') {
		host[length - 1] = '\0';
		host++;
	} else if (strchr(host, ':')) {
		return -EINVAL;
	}
	return *host && is_port(port) && getaddrinfo(host, port, &hints, ret_info) == 0 ? 0 : -EINVAL;
}

static int listen_at(const struct addrinfo *info, int *ret_fd)
{
	_cleanup_close_ int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, info->ai_addr, info->ai_addrlen) || listen(fd, CONNECTIONS))
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int start(struct prometheus *server, int fd)
{
	/* Without a thread of its own: the caller polls. */
	server->daemon =
		MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, server, MHD_OPTION_LISTEN_SOCKET,
				 fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
				 MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_SECONDS, MHD_OPTION_END);
	return server->daemon ? 0 : -EIO;
}

int prometheus_check(const char *address, struct json_problem *problem)
{
	struct addrinfo *info = NULL;
	int r = resolve(address, &info);

	if (r == -EINVAL)
		json_problem_set(problem, "prometheus",
				 "--prometheus is \"%.80s\"; accepted is ADDRESS:PORT, as 127.0.0.1:9586 or "
				 "[::1]:9586",
				 address);
	else if (r < 0)
		json_problem_set(problem, "prometheus", "out of memory");
	if (info)
		freeaddrinfo(info);
	return r;
}

int prometheus_open(const char *address, const struct station *station, prometheus_refresh_fn refresh,
		    void *data, struct prometheus **ret_server, struct json_problem *problem)
{
	struct prometheus *server;
	struct addrinfo *info = NULL;
	_cleanup_close_ int fd = -1;
	int r = prometheus_check(address, problem);

	if (r == 0)
		r = resolve(address, &info);
	if (r < 0)
		return r;
	r = listen_at(info, &fd);
	freeaddrinfo(info);
	server = calloc(1, sizeof(*server));
	if (r == 0 && !server)
		r = -ENOMEM;
	if (r == 0) {
		*server = (struct prometheus){.station = station, .refresh = refresh, .data = data};
		r = start(server, fd);
	}
	if (r < 0) {
		json_problem_set(problem, "prometheus", "could not listen at %.80s: %s", address,
				 strerror(-r));
		free(server);
		return r;
	}
	(void)TAKE_FD(fd); /* the daemon closes it */
	*ret_server = server;
	return 0;
}

void prometheus_close(struct prometheus *server)
{
	if (!server)
		return;
	MHD_stop_daemon(server->daemon);
	free(server);
}

int prometheus_fd(const struct prometheus *server)
{
	return MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

int prometheus_timeout_ms(const struct prometheus *server)
{
	MHD_UNSIGNED_LONG_LONG timeout;

	if (MHD_get_timeout(server->daemon, &timeout) != MHD_YES)
		return -1;
	return timeout > 60000 ? 60000 : (int)timeout;
}

void prometheus_serve(struct prometheus *server)
{
	MHD_run(server->daemon);
}
