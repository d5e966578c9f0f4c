// SPDX-License-Identifier: MIT
// Memory full of patterns: each page's words follow from its index and generation, so a page that
// is lost, stale, misplaced or changed in one bit is found.
#include <inttypes.h>
#include <sys/mman.h>

#include "agent.h"

#define PAGE_BYTES 4096u
#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))

// A page: index, generation, a splitmix64 sequence, and a sum over all words before it.
enum { WORD_INDEX, WORD_GENERATION, WORD_FIRST, WORD_SUM = PAGE_WORDS - 1 };

static struct {
    uint64_t *memory;
    uint32_t *generations; // what each page must hold now
    uint64_t check_cursor;
    struct pages_stats stats;
} pages;

static uint64_t add_to_sum(uint64_t sum, uint64_t word)
{
    return (sum << 7 | sum >> 57) ^ word;
}

static uint64_t first_word(uint64_t index, uint64_t generation)
{
    return splitmix64(index << 32 ^ generation);
}

static void fill(uint64_t index, uint64_t generation)
{
    volatile uint64_t *page = pages.memory + index * PAGE_WORDS;
    uint64_t word = first_word(index, generation);
    uint64_t sum = add_to_sum(add_to_sum(0, index), generation);

    page[WORD_INDEX] = index;
    page[WORD_GENERATION] = generation;
    for (unsigned i = WORD_FIRST; i < WORD_SUM; i++) {
        page[i] = word;
        sum = add_to_sum(sum, word);
        word = splitmix64(word);
    }
    page[WORD_SUM] = sum;
}

static void check(uint64_t index)
{
    const volatile uint64_t *page = pages.memory + index * PAGE_WORDS;
    uint64_t generation = pages.generations[index];
    uint64_t word = first_word(index, generation);
    uint64_t sum = add_to_sum(add_to_sum(0, index), generation);
    unsigned wrong = 0, place = 0;

    pages.stats.checked++;
    if (page[WORD_INDEX] != index || page[WORD_GENERATION] != generation) {
        agent_error("page %" PRIu64 " generation %" PRIu64 " says it is page %" PRIu64
                    " generation %" PRIu64,
                    index, generation, page[WORD_INDEX], page[WORD_GENERATION]);
        return;
    }
    for (unsigned i = WORD_FIRST; i < WORD_SUM; i++) {
        if (page[i] != word && wrong++ == 0)
            place = i;
        sum = add_to_sum(sum, word);
        word = splitmix64(word);
    }
    if (page[WORD_SUM] != sum && wrong++ == 0)
        place = WORD_SUM;
    if (wrong != 0)
        agent_error("page %" PRIu64 " generation %" PRIu64
                    " has %u wrong words, the first at byte %u",
                    index, generation, wrong, place * 8);
}

static void *map(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

bool pages_create(uint64_t count)
{
    pages.memory = map(count * PAGE_BYTES);
    pages.generations = map(count * sizeof *pages.generations);
    if (!pages.memory || !pages.generations)
        return false;
    pages.stats.count = count;
    for (uint64_t i = 0; i < count; i++)
        fill(i, 0);
    return true;
}

void pages_write_next(void)
{
    uint64_t index = splitmix64(pages.stats.written++) % pages.stats.count;
    fill(index, ++pages.generations[index]);
}

void pages_check_next(void)
{
    check(pages.check_cursor++);
    if (pages.check_cursor == pages.stats.count) {
        pages.check_cursor = 0;
        pages.stats.sweeps++;
    }
}

void pages_check_all(void)
{
    for (uint64_t i = 0; i < pages.stats.count; i++)
        check(i);
}

struct pages_stats pages_stats(void)
{
    return pages.stats;
}
