// SPDX-License-Identifier: MIT
// cmocka with what it needs before it.
#ifndef SKIFF_TESTS_UNIT_H
#define SKIFF_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#endif
