// SPDX-License-Identifier: MIT
// The <stdlib.h> that lwIP finds: the one function of it that it calls, in netif_find.
#ifndef SKIFF_LWIP_STDLIB_H
#define SKIFF_LWIP_STDLIB_H

int atoi(const char *s);

#endif
