/* SPDX-License-Identifier: BSD-2-Clause */
/* The private CA of an installation and the server's certificate, in its state folder. */
#ifndef WIRETOLL_API_CERTIFICATE_H
#define WIRETOLL_API_CERTIFICATE_H

#include "base/base.h"

#define CA_CERTIFICATE_FILE "ca.pem"
#define CA_KEY_FILE         "ca.key"
#define SERVER_PEM_FILE                                                                                      \
	"server.pem" /* key, certificate, CA: one file, so that they always belong together                  \
		      */
#define SEALING_KEY_FILE "sealing.key"

#define FINGERPRINT_SIZE 65

/* Makes the CA unless it is there, and writes the SHA-256 of its DER form in hexadecimal. */
WT_MUST_CHECK int certificate_authority(const char *folder, char ret_fingerprint[static FINGERPRINT_SIZE]);

/*
 * Makes the server's certificate, for the names wiretoll-api and localhost and all addresses of this host,
 * unless there is one that covers them, is valid for another 30 days and has the key identifiers of RFC 5280.
 * The CA stays as it is: what clients have pinned holds. May be called while the certificate is served.
 * -ENOENT without a CA.
 */
WT_MUST_CHECK int certificate_renew(const char *folder);

#endif
