// SPDX-License-Identifier: MIT
// Distance between words (optimal string alignment), for suggestions in error messages.
#include "kernel/similar.h"

#include "kernel/lib.h"

#define MAX_WORD 31

static u8 lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (u8)(c + 32) : (u8)c;
}

unsigned word_distance(const char *a, const char *b)
{
    size_t n = strnlen(a, MAX_WORD + 1);
    size_t m = strnlen(b, MAX_WORD + 1);
    u8 rows[3][MAX_WORD + 1]; // of the table: two back, one back, this one
    if (n > MAX_WORD || m > MAX_WORD)
        return MAX_WORD + 1;
    for (size_t j = 0; j <= m; j++)
        rows[1][j] = (u8)j;
    for (size_t i = 1; i <= n; i++) {
        u8 *row = rows[2];
        row[0] = (u8)i;
        for (size_t j = 1; j <= m; j++) {
            bool same = lower(a[i - 1]) == lower(b[j - 1]);
            unsigned best = rows[1][j - 1] + (same ? 0u : 1u);
            best = MIN(best, rows[1][j] + 1u);
            best = MIN(best, row[j - 1] + 1u);
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
                lower(a[i - 2]) == lower(b[j - 1]))
                best = MIN(best, rows[0][j - 2] + 1u);
            row[j] = (u8)best;
        }
        memcpy(rows[0], rows[1], sizeof(rows[0]));
        memcpy(rows[1], rows[2], sizeof(rows[1]));
    }
    return rows[1][m];
}

bool word_similar(const char *a, const char *b)
{
    size_t n = strlen(b);
    return word_distance(a, b) <= (n > 6 ? 3u : n > 2 ? 2u : 1u);
}
