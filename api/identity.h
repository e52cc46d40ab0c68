/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The certificate that the server shows, and its key: one for the process, as libmicrohttpd asks for it
 * without a context. It may be changed while connections are open and handshakes under way.
 */
#ifndef WIRETOLL_API_IDENTITY_H
#define WIRETOLL_API_IDENTITY_H

#include "base/base.h"

#include <gnutls/abstract.h>

/*
 * Shows the certificate chain of the PEM file from now on, with the key in it, in every handshake that
 * begins. 1 when it is another than before, 0 when not; -EBADMSG, -ENOMEM, or -errno of the file: then it
 * stays as it was.
 */
WT_MUST_CHECK int identity_load(const char *pem_file);

/* For MHD_OPTION_HTTPS_CERT_CALLBACK. */
int identity_show(gnutls_session_t session, const gnutls_datum_t *authorities, int n_authorities,
		  const gnutls_pk_algorithm_t *algorithms, int n_algorithms, gnutls_pcert_st **ret_chain,
		  unsigned *ret_length, gnutls_privkey_t *ret_key);

/* When nothing is served any more. */
void identity_free(void);

#endif
