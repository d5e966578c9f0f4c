// SPDX-License-Identifier: MIT
// Extended page tables and the dirty log in them, against a model of a CPU that walks them.
// sources: arch/x86/vmx/ept.c arch/x86/nested_paging.c
#include "unit.h"

#include "arch/x86/vmx/vmx.h"
#include "kernel/mem.h"

// SDM 3C 28.2.2.
#define EPT_R     BIT(0)
#define EPT_W     BIT(1)
#define EPT_LARGE BIT(7)
#define EPT_A     BIT(8)
#define EPT_D     BIT(9)

#define CHUNKS 5 // 2 MiB pages from 1 GiB - 4 MiB on, so that they cross a page directory
#define FIRST  (GIB - 2 * LARGE_PAGE_SIZE)
#define PAGES  (CHUNKS * 512)
#define HPA    0x140000000ull

struct vmx_caps vmx_caps;
static struct guest guest;
static int pages_out, pages_left, flushes, requests;
static bool log_failed;
static bool logged[PAGES], expected[PAGES];

u64 page_alloc(unsigned order)
{
    assert_int_equal(order, 0);
    if (pages_left == 0)
        return 0;
    pages_left--;
    pages_out++;
    void *p = aligned_alloc(PAGE_SIZE, PAGE_SIZE);
    memset(p, 0xa5, PAGE_SIZE);
    return (u64)(uintptr_t)p;
}
u64 page_alloc_zero(unsigned order)
{
    u64 pa = page_alloc(order);
    if (pa)
        memset(phys_ptr(pa), 0, PAGE_SIZE);
    return pa;
}
void page_free(u64 pa, unsigned order)
{
    assert_int_equal(order, 0);
    pages_out--;
    free(phys_ptr(pa));
}

static s64 table_bytes;

void mem_account(enum mem_use use, s64 delta_bytes)
{
    assert_int_equal(use, MEM_PAGE_TABLES);
    table_bytes += delta_bytes;
}
void *kzalloc(size_t size)
{
    return calloc(1, size);
}
void kfree(void *p)
{
    free(p);
}
void thread_yield_if_needed(void)
{
}
void vmx_flush_guest(struct guest *g)
{
    assert_ptr_equal(g, &guest);
    flushes++;
}
void vmx_request(struct vmx_vcpu *vx, u32 bits)
{
    assert_non_null(vx);
    assert_int_equal(bits, VMX_REQ_PML);
    requests++;
}
void dirty_log_hit(struct guest *g, u64 gpa)
{
    assert_ptr_equal(g, &guest);
    assert_in_range(gpa, FIRST, FIRST + PAGES * PAGE_SIZE - 1);
    logged[(gpa - FIRST) / PAGE_SIZE] = true;
}
void dirty_log_fail(struct guest *g)
{
    assert_ptr_equal(g, &guest);
    log_failed = true;
}

static enum np_fault fault(u64 gpa, bool write)
{
    struct vmx_guest *vg = guest.backend;
    return np_fault(&vg->np, gpa, write);
}

// What the CPU does for one access: true when it went through, false for an EPT violation.
static bool cpu_access(u64 gpa, bool write, u64 *hpa)
{
    struct vmx_guest *vg = guest.backend;
    u64 *t = phys_ptr(vg->np.root);
    for (int level = NP_LEVELS;; level--) {
        u64 *e = &t[gpa >> (PAGE_SHIFT + 9 * (level - 1)) & (NP_ENTRIES - 1)];
        if (!(*e & EPT_R) || (write && !(*e & EPT_W)))
            return false;
        if (level > 1 && !(*e & EPT_LARGE)) {
            t = phys_ptr(*e & NP_ADDRESS);
            continue;
        }
        bool was_dirty = *e & EPT_D;
        *e |= EPT_A | (write ? EPT_D : 0);
        if (write && !was_dirty && vg->np.logging == NP_LOG_DIRTY_FLAGS)
            dirty_log_hit(&guest, gpa & ~(PAGE_SIZE - 1));
        u64 size = level == 1 ? PAGE_SIZE : LARGE_PAGE_SIZE;
        *hpa = (*e & NP_ADDRESS & ~(size - 1)) + gpa % size;
        return true;
    }
}

static void guest_access(u64 gpa, bool write)
{
    u64 hpa = 0;
    int faults = 0;
    while (!cpu_access(gpa, write, &hpa)) {
        assert_int_equal(fault(gpa, write), NP_FAULT_RETRY);
        assert_true(++faults <= 2);
    }
    assert_true(hpa == HPA + (gpa - FIRST));
    if (write)
        expected[(gpa - FIRST) / PAGE_SIZE] = true;
}

static int setup(void **state)
{
    (void)state;
    pages_left = -1;
    pages_out = flushes = requests = 0;
    log_failed = false;
    memset(logged, 0, sizeof logged);
    memset(expected, 0, sizeof expected);
    vmx_caps.pml = true;
    memset(&guest, 0, sizeof guest);
    assert_int_equal(vmx_guest_create(&guest), 0);
    for (u64 i = 0; i < CHUNKS; i++)
        assert_int_equal(
            vmx_map_large(&guest, FIRST + i * LARGE_PAGE_SIZE, HPA + i * LARGE_PAGE_SIZE), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    vmx_guest_destroy(&guest);
    assert_int_equal(pages_out, 0);
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
    return 0;
}

static void test_maps_large_pages(void **state)
{
    (void)state;
    assert_int_equal(pages_out, 1 + 1 + 2); // PML4, PDPT, two page directories
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
    guest_access(FIRST + 5, true);
    guest_access(FIRST + CHUNKS * LARGE_PAGE_SIZE - 1, false);
    assert_int_equal(fault(FIRST - 1, false), NP_FAULT_NOT_RAM);
    assert_int_equal(fault(FIRST + CHUNKS * LARGE_PAGE_SIZE, true), NP_FAULT_NOT_RAM);
    assert_int_equal(fault(0xfee00000, true), NP_FAULT_NOT_RAM);
    assert_int_equal(fault(~0ull, true), NP_FAULT_NOT_RAM);
}

static void test_start_takes_permission_at_the_top_only(void **state)
{
    (void)state;
    struct vmx_guest *vg = guest.backend;
    const u64 *pml4 = phys_ptr(vg->np.root);
    assert_int_equal(vmx_dirty_start(&guest, false), 0);
    assert_int_equal(flushes, 1);
    assert_false(pml4[0] & EPT_W);
    const u64 *pdpt = phys_ptr(pml4[0] & NP_ADDRESS);
    assert_true(pdpt[0] & EPT_W);
    vmx_dirty_stop(&guest);
    assert_true(pml4[0] & EPT_W);
}

static void collect_and_compare(void)
{
    assert_memory_equal(logged, expected, sizeof logged);
    for (u64 i = 0; i < PAGES; i++)
        if (logged[i])
            vmx_dirty_rearm(&guest, FIRST + i * PAGE_SIZE);
    memset(logged, 0, sizeof logged);
    memset(expected, 0, sizeof expected);
}

static void log_rounds(bool pml)
{
    srandom(7);
    assert_int_equal(vmx_dirty_start(&guest, pml), 0);
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 500 * round; i++)
            guest_access(FIRST + (u64)random() % (PAGES * PAGE_SIZE), random() % 3 == 0);
        collect_and_compare();
    }
    vmx_dirty_stop(&guest);
}

static void every_write_is_logged(bool pml)
{
    struct vcpu vcpu = {.backend = &vcpu}; // only ever handed to vmx_request
    guest.vcpu[0] = &vcpu;
    guest.vcpu_count = 1;
    log_rounds(pml);
    assert_int_equal(requests, 2);
    assert_int_equal(pages_out, 4); // all merged again
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
    assert_int_equal(guest.memory.split_pages, 0);
    for (u64 i = 0; i < CHUNKS; i++) {
        u64 hpa;
        assert_true(cpu_access(FIRST + i * LARGE_PAGE_SIZE, true, &hpa)); // no fault left
    }
    log_rounds(pml); // and once more on the same tables
    assert_int_equal(pages_out, 4);
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
}

static void test_wp_logs_every_write(void **state)
{
    (void)state;
    every_write_is_logged(false);
}
static void test_pml_logs_every_write(void **state)
{
    (void)state;
    every_write_is_logged(true);
}

static void test_reads_split_nothing(void **state)
{
    (void)state;
    vmx_dirty_start(&guest, true);
    for (u64 i = 0; i < PAGES; i++)
        guest_access(FIRST + i * PAGE_SIZE, false);
    assert_int_equal(pages_out, 4);
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
    guest_access(FIRST, true);
    assert_int_equal(pages_out, 5);
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
    assert_int_equal(guest.memory.split_pages, 1);
    vmx_dirty_rearm(&guest, FIRST + LARGE_PAGE_SIZE); // in a page that is still large: no effect
    assert_int_equal(pages_out, 5);
    assert_int_equal(table_bytes, pages_out * (s64)PAGE_SIZE);
    vmx_dirty_stop(&guest);
}

static void test_no_memory_ends_the_log_not_the_guest(void **state)
{
    (void)state;
    vmx_dirty_start(&guest, false);
    guest_access(FIRST, true);
    assert_false(log_failed);
    pages_left = 0;
    guest_access(FIRST + LARGE_PAGE_SIZE, true);
    assert_true(log_failed);
    guest_access(FIRST + LARGE_PAGE_SIZE + PAGE_SIZE, true); // writable as a whole
    vmx_dirty_stop(&guest);
}

static void test_pml_needs_the_hardware(void **state)
{
    (void)state;
    vmx_caps.pml = false;
    assert_int_equal(vmx_dirty_start(&guest, true), E_NOSUP);
    guest_access(FIRST, true);
    assert_int_equal(flushes, 0);
}

static void test_creation_without_memory(void **state)
{
    (void)state;
    struct guest other = {0};
    pages_left = 0;
    assert_int_equal(vmx_guest_create(&other), E_NOMEM);
    pages_left = 1;
    assert_int_equal(vmx_guest_create(&other), 0);
    assert_int_equal(vmx_map_large(&other, 0, HPA), E_NOMEM);
    vmx_guest_destroy(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_maps_large_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_start_takes_permission_at_the_top_only, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_wp_logs_every_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pml_logs_every_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reads_split_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_ends_the_log_not_the_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pml_needs_the_hardware, setup, teardown),
        cmocka_unit_test_setup_teardown(test_creation_without_memory, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
