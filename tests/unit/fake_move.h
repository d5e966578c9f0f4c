// SPDX-License-Identifier: MIT
// A whole host for the migration code, in a process: threads, memory, connections over local
// sockets, and a guest whose vCPU is a thread that writes to its memory. Two such processes move
// the guest between them. Time runs SPEED times as fast as outside.
#ifndef SKIFF_TESTS_FAKE_MOVE_H
#define SKIFF_TESTS_FAKE_MOVE_H

#include "kernel/guest/guest.h"

#define SPEED 10

#define DISK_PLACES 300u
#define DISK_STRIDE 40u // sectors from one place to the next: holes remain

// Shared by all processes of a test: who runs the guest right now.
struct fake_shared {
    volatile u32 running[4];  // by host number
    volatile u64 counter;     // the guest's own count, as last seen by anyone
    volatile u32 two_runners; // both ran at once
    volatile u32 went_back;   // the count or the clock did
    volatile u64 last_ticks;
    volatile u32 records[4]; // enum fake_records, by host number
    // What each place of the disk was told to become, and what the guest was told it is.
    volatile u64 disk_wanted[DISK_PLACES], disk_told[DISK_PLACES];
};
enum fake_records { RECORDS_NONE, RECORDS_KEPT, RECORDS_FAIL };
extern struct fake_shared *fake_shared;
extern u32 fake_host;           // this process's number
extern const char *fake_dir;    // of the sockets
extern u64 fake_free_bytes;     // what mem_get_stats says
extern u32 fake_missing_ebx7;   // CPUID leaf 7 EBX bits this host lacks
extern u32 fake_device_version; // of the fake device's state table
extern u32 fake_write_every_us; // how fast the guest dirties pages
extern bool fake_no_page_pairs; // pages_alloc has no two pages
extern u32 fake_frames_late;    // that come for the guest after it has left
extern u32 fake_frames_taken;   // for a guest that has come
extern bool fake_log;           // print log lines
extern u32 fake_builds;         // guests with memory

void fake_init(void);
struct guest *fake_guest_start(const char *name, const u8 uuid[16], u32 memory_mib);

#endif
