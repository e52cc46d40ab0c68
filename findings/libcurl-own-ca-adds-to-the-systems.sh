#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# libcurl and curl 7.88.1 (Debian 12, 7.88.1-10+deb12u15), CURLOPT_CAINFO and --cacert.
#
# Seen: a server whose certificate comes from a CA in /etc/ssl/certs is accepted although CURLOPT_CAINFO (--cacert) names a file with another CA
# alone. The option replaces the default bundle; the default folder (CURLOPT_CAPATH), which Debian's build has too, is searched as before.
# Why it matters: a client that names its own CA so as to trust no other still trusts each public one.
# What to do: set CURLOPT_CAPATH to NULL as well (--capath of an empty folder).
# shellcheck source=lib/pinned.sh
. "$(dirname "$0")/lib/pinned.sh"

unpack libcurl4=7.88.1-10+deb12u15 libcurl4-openssl-dev=7.88.1-10+deb12u15 curl=7.88.1-10+deb12u15
cat > "$work/get.c" << 'END'
#include <curl/curl.h>
#include <stdio.h>
int main(int argc, char **argv)
{
	CURL *curl = curl_easy_init();

	curl_easy_setopt(curl, CURLOPT_URL, "https://localhost:8443/");
	curl_easy_setopt(curl, CURLOPT_CAINFO, argv[1]);
	if (argc > 2)
		curl_easy_setopt(curl, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
	puts(curl_easy_perform(curl) == CURLE_OK ? "accepted" : "refused");
	curl_easy_cleanup(curl);
	return 0;
}
END
compile "$work/get.c" "$work/get" -I"$root/usr/include/x86_64-linux-gnu" -lcurl
cat > "$work/serve.py" << 'END'
import http.server
import ssl
server = http.server.HTTPServer(("127.0.0.1", 8443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
END
cat > "$work/try.sh" << 'END'
set -euo pipefail
ip link set dev lo up
mount -t tmpfs tmpfs /etc/ssl/certs
cd "$work"
mkdir empty
for ca in system own; do
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $ca.key -out $ca.pem -subj /CN=$ca -days 2 2> log
done
cp system.pem "/etc/ssl/certs/$(openssl x509 -hash -noout -in system.pem).0"
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=localhost 2> log
openssl x509 -req -in server.csr -CA system.pem -CAkey system.key -CAcreateserial -days 2 -extfile <(echo subjectAltName=DNS:localhost) \
	-out server.pem 2> log
/usr/bin/python3 serve.py 2> server.log &
for _ in {1..300}; do [ -z "$(ss -Hltn 'sport = 8443')" ] || break; sleep 0.1; done
get() { if curl -s -o page "$@" https://localhost:8443/; then echo accepted; else echo refused; fi; }
./get system.pem
./get own.pem
./get own.pem without-a-folder
get --cacert own.pem
get --cacert own.pem --capath empty
END
export work PATH="$root/usr/bin:$PATH" LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu
mapfile -t lines < <(unshare --net --mount --pid --fork --kill-child bash "$work/try.sh")

seen 'CURLOPT_CAINFO with its CA' accepted "${lines[0]}"
seen 'CURLOPT_CAINFO with another CA' accepted "${lines[1]}"
seen 'the same, and CURLOPT_CAPATH NULL' refused "${lines[2]}"
seen 'curl --cacert with another CA' accepted "${lines[3]}"
seen 'the same, and --capath of an empty folder' refused "${lines[4]}"
