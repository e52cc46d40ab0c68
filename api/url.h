/* SPDX-License-Identifier: BSD-2-Clause */
/* Text in a request's target (RFC 3986, 2.1). */
#ifndef WIRETOLL_API_URL_H
#define WIRETOLL_API_URL_H

#include "base/base.h"

/* Decodes %XX in place. -EINVAL for a broken escape or a NUL. */
WT_MUST_CHECK int url_decode(char *text);

#endif
