// SPDX-License-Identifier: BSD-2-Clause
#include "routes.h"

#include "base/text.h"
#include "resources/resources.h"
#include "url.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct route *const tables[] = {
	session_routes,    image_routes, plan_routes,  plan_group_routes, location_routes,
	hypervisor_routes, user_routes,  vpc_routes,   gateway_routes,    peer_routes,
	audit_routes,      alarm_routes, agent_routes, billing_routes,    metrics_routes,
};

/* Whether the path has the pattern's shape: equal segments, and anything but nothing where it says {…}. */
static bool matches(const char *pattern, const char *path)
{
	for (;;) {
		size_t wanted, got;

		if (*pattern == '\0')
			return *path == '\0' || strcmp(path, "/") == 0;
		if (*pattern++ != '/' || *path++ != '/')
			return false;
		wanted = strcspn(pattern, "/");
		got = strcspn(path, "/");
		if (got == 0 || (*pattern != '{' && (wanted != got || memcmp(pattern, path, got) != 0)))
			return false;
		pattern += wanted;
		path += got;
	}
}

static int read_arguments(const char *pattern, const char *path, char *arguments[static MAX_ARGUMENTS])
{
	size_t n = 0;

	while (*pattern) {
		size_t length = strcspn(++path, "/");

		if (*++pattern == '{') {
			arguments[n] = strndup(path, length);
			if (!arguments[n])
				return -ENOMEM;
			if (url_decode(arguments[n]) < 0 || !text_is_printable(arguments[n]))
				return -EILSEQ;
			n++;
		}
		pattern += strcspn(pattern, "/");
		path += length;
	}
	return 0;
}

static void allow(const char *method, char *text, size_t size)
{
	size_t used = strlen(text);

	snprintf(text + used, size - used, "%s%s%s", used ? ", " : "", method,
		 strcmp(method, "GET") == 0 ? ", HEAD" : "");
}

int route_find(const char *method, const char *path, const struct route **ret_route,
	       char *arguments[static MAX_ARGUMENTS], char *ret_allow, size_t allow_size)
{
	ret_allow[0] = '\0';
	if (strcmp(method, "HEAD") == 0)
		method = "GET";
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		for (const struct route *route = tables[i]; route->method; route++) {
			if (!matches(route->path, path))
				continue;
			if (strcmp(route->method, method) == 0) {
				*ret_route = route;
				return read_arguments(route->path, path, arguments);
			}
			allow(route->method, ret_allow, allow_size);
		}
	}
	return ret_allow[0] ? -EOPNOTSUPP : -ENOENT;
}

const struct route *route_at(size_t index)
{
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		for (const struct route *route = tables[i]; route->method; route++) {
			if (index-- == 0)
				return route;
		}
	}
	return NULL;
}
