// SPDX-License-Identifier: MIT
// Names of CPUID feature bits (SDM 2A, CPUID; APM 3 appendix E), for refusals that say which.
#include "kernel/lib.h"
#include "kernel/migrate/check.h"

enum { EAX, EBX, ECX, EDX };

static const char *const leaf1_ecx[32] = {
    "sse3",         "pclmulqdq", "dtes64",  "monitor", "ds-cpl", "vmx",    "smx",    "est",
    "tm2",          "ssse3",     "cnxt-id", "sdbg",    "fma",    "cx16",   "xtpr",   "pdcm",
    NULL,           "pcid",      "dca",     "sse4.1",  "sse4.2", "x2apic", "movbe",  "popcnt",
    "tsc-deadline", "aes",       "xsave",   "osxsave", "avx",    "f16c",   "rdrand", "hypervisor"};
static const char *const leaf1_edx[32] = {
    "fpu",  "vme",  "de",   "pse", "tsc",  "msr", "pae",   "mce", "cx8",     "apic", NULL,
    "sep",  "mtrr", "pge",  "mca", "cmov", "pat", "pse36", "psn", "clflush", NULL,   "ds",
    "acpi", "mmx",  "fxsr", "sse", "sse2", "ss",  "htt",   "tm",  NULL,      "pbe"};
static const char *const leaf7_ebx[32] = {"fsgsbase",
                                          "tsc-adjust",
                                          "sgx",
                                          "bmi1",
                                          "hle",
                                          "avx2",
                                          "fdp-excptn-only",
                                          "smep",
                                          "bmi2",
                                          "erms",
                                          "invpcid",
                                          "rtm",
                                          "rdt-m",
                                          "no-fpu-cs-ds",
                                          "mpx",
                                          "rdt-a",
                                          "avx512f",
                                          "avx512dq",
                                          "rdseed",
                                          "adx",
                                          "smap",
                                          "avx512-ifma",
                                          NULL,
                                          "clflushopt",
                                          "clwb",
                                          "intel-pt",
                                          "avx512pf",
                                          "avx512er",
                                          "avx512cd",
                                          "sha",
                                          "avx512bw",
                                          "avx512vl"};
static const char *const leaf7_ecx[32] = {"prefetchwt1",
                                          "avx512-vbmi",
                                          "umip",
                                          "pku",
                                          "ospke",
                                          "waitpkg",
                                          "avx512-vbmi2",
                                          "cet-ss",
                                          "gfni",
                                          "vaes",
                                          "vpclmulqdq",
                                          "avx512-vnni",
                                          "avx512-bitalg",
                                          "tme",
                                          "avx512-vpopcntdq",
                                          NULL,
                                          "la57",
                                          NULL,
                                          NULL,
                                          NULL,
                                          NULL,
                                          NULL,
                                          "rdpid",
                                          "kl",
                                          "bus-lock-detect",
                                          "cldemote",
                                          NULL,
                                          "movdiri",
                                          "movdir64b",
                                          "enqcmd",
                                          "sgx-lc",
                                          "pks"};
static const char *const leaf7_edx[32] = {NULL,
                                          "sgx-keys",
                                          "avx512-4vnniw",
                                          "avx512-4fmaps",
                                          "fsrm",
                                          "uintr",
                                          NULL,
                                          NULL,
                                          "avx512-vp2intersect",
                                          "srbds-ctrl",
                                          "md-clear",
                                          "rtm-always-abort",
                                          NULL,
                                          "tsx-force-abort",
                                          "serialize",
                                          "hybrid",
                                          "tsxldtrk",
                                          NULL,
                                          "pconfig",
                                          "arch-lbr",
                                          "cet-ibt",
                                          NULL,
                                          "amx-bf16",
                                          "avx512-fp16",
                                          "amx-tile",
                                          "amx-int8",
                                          "ibrs-ibpb",
                                          "stibp",
                                          "l1d-flush",
                                          "arch-capabilities",
                                          "core-capabilities",
                                          "ssbd"};
static const char *const leaf7_1_eax[32] = {"sha512",   "sm3",       "sm4",
                                            "rao-int",  "avx-vnni",  "avx512-bf16",
                                            "lass",     "cmpccxadd", "arch-perfmon-ext",
                                            NULL,       "fzrm",      "fsrs",
                                            "fsrcs",    NULL,        NULL,
                                            NULL,       NULL,        "fred",
                                            "lkgs",     "wrmsrns",   NULL,
                                            "amx-fp16", "hreset",    "avx-ifma",
                                            NULL,       NULL,        "lam",
                                            "msrlist",  NULL,        NULL,
                                            NULL,       NULL};
static const char *const leafd_1_eax[32] = {"xsaveopt", "xsavec", "xgetbv-ecx1", "xsaves", "xfd"};
static const char *const ext1_ecx[32] = {"lahf-lm",    "cmp-legacy",  "svm",
                                         "extapic",    "cr8-legacy",  "abm",
                                         "sse4a",      "misalignsse", "3dnowprefetch",
                                         "osvw",       "ibs",         "xop",
                                         "skinit",     "wdt",         NULL,
                                         "lwp",        "fma4",        "tce",
                                         NULL,         "nodeid-msr",  NULL,
                                         "tbm",        "topoext",     "perfctr-core",
                                         "perfctr-nb", NULL,          "dbx",
                                         "perftsc",    "perfctr-llc", "mwaitx",
                                         NULL,         NULL};
static const char *const ext1_edx[32] = {
    "fpu",  "vme",      "de",      "pse",     "tsc",  "msr", "pae",      "mce",
    "cx8",  "apic",     NULL,      "syscall", "mtrr", "pge", "mca",      "cmov",
    "pat",  "pse36",    NULL,      "mp",      "nx",   NULL,  "mmxext",   "mmx",
    "fxsr", "fxsr-opt", "page1gb", "rdtscp",  NULL,   "lm",  "3dnowext", "3dnow"};
static const char *const ext8_ebx[32] = {
    [0] = "clzero",    [1] = "irperf",     [2] = "xsaveerptr", [9] = "wbnoinvd",  [12] = "amd-ibpb",
    [14] = "amd-ibrs", [15] = "amd-stibp", [24] = "amd-ssbd",  [25] = "virt-ssbd"};

#define NOT(bit) ~(1u << (bit))
static const struct cpu_feature_word words[] = {
    // x2APIC, the deadline timer and "hypervisor" are the hypervisor's, and so is leaf 80000007h
    // with its invariant TSC; OSXSAVE follows CR4.
    {1, 0, ECX, NOT(21) & NOT(24) & NOT(27) & NOT(31), leaf1_ecx},
    // Machine check, APIC, MTRRs and topology are modelled.
    {1, 0, EDX, NOT(7) & NOT(9) & NOT(12) & NOT(14) & NOT(28), leaf1_edx},
    // TSC_ADJUST is modelled; bits 6 and 13 say that something is missing.
    {7, 0, EBX, NOT(1) & NOT(6) & NOT(13), leaf7_ebx},
    {7, 0, ECX, NOT(4), leaf7_ecx},
    {7, 0, EDX, ~0u, leaf7_edx},
    {7, 1, EAX, ~0u, leaf7_1_eax},
    {0xd, 1, EAX, ~0u, leafd_1_eax},
    {0x80000001, 0, ECX, NOT(1), ext1_ecx},
    {0x80000001, 0, EDX, NOT(7) & NOT(9) & NOT(12) & NOT(14), ext1_edx},
    {0x80000008, 0, EBX, ~0u, ext8_ebx},
};

bool cpu_feature_word(u32 i, struct cpu_feature_word *out)
{
    if (i >= ARRAY_SIZE(words))
        return false;
    *out = words[i];
    return true;
}

const char *cpu_feature_name(u32 leaf, u32 sub, u32 reg, u32 bit)
{
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (words[i].leaf == leaf && words[i].sub == sub && words[i].reg == reg && bit < 32)
            return words[i].names[bit];
    return NULL;
}

const char *xcr0_component_name(u32 bit)
{
    static const char *const names[] = {
        "x87",      "SSE", "AVX",  "BNDREGS",     "BNDCSR",      "opmask", "ZMM_Hi256",
        "Hi16_ZMM", "PT",  "PKRU", "PASID",       "CET_U",       "CET_S",  "HDC",
        "UINTR",    "LBR", "HWP",  "AMX TILECFG", "AMX TILEDATA"};
    return bit < ARRAY_SIZE(names) ? names[bit] : NULL;
}
