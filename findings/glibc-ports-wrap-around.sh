#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# glibc 2.36 (Debian 12, 2.36-9+deb12u14), getaddrinfo() with AI_NUMERICSERV.
#
# Seen: a numeric service of more than 65535 is no error: it is taken modulo 65536, so 70000 is port 4464 and 65536 is port 0, which
# bind() then takes for "any free port". A plus sign and leading blanks are accepted, a minus sign is not.
# Why it matters: a daemon whose listen address was mistyped listens, without a word, at another port.
# What to do: check the port's digits and range before.
# shellcheck source=lib/pinned.sh
. "$(dirname "$0")/lib/pinned.sh"

unpack libc6=2.36-9+deb12u14
cat > "$work/port.c" << 'END'
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int argc, char **argv)
{
	const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
	struct addrinfo *found;
	int r = getaddrinfo("127.0.0.1", argc > 1 ? argv[1] : "", &hints, &found);

	if (r != 0)
		puts(gai_strerror(r));
	else
		printf("port %u\n", ntohs(((struct sockaddr_in *)found->ai_addr)->sin_port));
	return 0;
}
END
gcc -o "$work/port" "$work/port.c"
port() {
	"$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/lib/x86_64-linux-gnu" "$work/port" "$1"
}

seen 65535 'port 65535' "$(port 65535)"
seen 65536 'port 0' "$(port 65536)"
seen 70000 'port 4464' "$(port 70000)"
seen 4294967376 'port 80' "$(port 4294967376)"
seen '+80' 'port 80' "$(port +80)"
seen ' 80' 'port 80' "$(port ' 80')"
seen -1 'Servname not supported for ai_socktype' "$(port -1)"
