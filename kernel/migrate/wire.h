// SPDX-License-Identifier: MIT
// The stream between two hosts, byte for byte; stream.md is the specification these mirror.
// All integers are little-endian; every structure is a multiple of 8 bytes without hidden padding.
#ifndef SKIFF_MIGRATE_WIRE_H
#define SKIFF_MIGRATE_WIRE_H

#include "kernel/config.h"
#include "kernel/types.h"

#define STREAM_MAGIC       "SKIFFMOV" // 8 bytes, no NUL
#define STREAM_VERSION_MIN 2
#define STREAM_VERSION_MAX 2
#define STREAM_MAX_PAYLOAD (72 * 1024u)
#define MIGRATE_PORT       7070

struct stream_header {
    u8 magic[8];
    u16 version_min, version_max;
    u32 bytes; // sizeof(struct stream_header)
    u8 uuid[16];
    u64 epoch;
    u64 move_id;
    u64 sender_boot_id, receiver_boot_id; // receiver 0: not known yet
    u32 flags;                            // HEADER_*
    u16 port;                             // where the sender listens
    u16 reserved16;
    char host[32];
    char software[16];
    u32 reserved32;
    u32 crc; // CRC32C of all bytes before it
};
static_assert(sizeof(struct stream_header) == 128, "stream header");
static_assert(offsetof(struct stream_header, crc) == 124, "stream header");
#define HEADER_VERIFY BIT(0) // digests over pages and state are compared before COMMIT
#define HEADER_REREAD BIT(1) // with VERIFY: over what all pages hold at the stop, read anew

struct record_header {
    u32 type;  // enum record_type; RECORD_OPTIONAL: skip it when unknown
    u32 bytes; // payload, without the padding to 8 that follows it
    u32 seq;   // 0, 1, 2... in each direction
    u32 crc;   // CRC32C of the 12 bytes before it and of the payload but bulk data (stream.md)
};
static_assert(sizeof(struct record_header) == 16, "record header");
#define RECORD_OPTIONAL BIT(31)

enum record_type {
    REC_END = 0,
    // Questions about a host
    REC_INFO_ASK = 1,
    REC_INFO = 2,
    REC_OWNER_ASK = 3,
    REC_OWNER = 4,
    REC_TEST = 5,
    REC_TEST_DONE = 6,
    // What would be moved, and may it
    REC_GUEST = 8,
    REC_CPUID = 9,
    REC_DEVICES = 10,
    REC_CHECK = 11,
    REC_ACCEPT = 12,
    REC_REFUSE = 13,
    REC_DISKS = 14,
    // Pre-copy
    REC_PAGES = 16,
    REC_ROUND = 17,
    REC_PING = 18,
    REC_PONG = 19,
    // State and hand-over
    REC_STATE = 24,
    REC_OFFER = 25,
    REC_READY = 26,
    REC_COMMIT = 27,
    REC_RUNNING = 28,
    REC_NOT_STARTED = 29,
    REC_QUERY = 30,
    REC_ANSWER = 31,
    REC_ABORT = 32,
    // Verification
    REC_VERIFY = 40,
    REC_SUMMARY = 41,
    REC_HASH_ASK = 42,
    REC_HASHES = 43,
    REC_STATE_ASK = 44,
    // After the move
    REC_FRAME = 48,
    // Disks
    REC_BLOCKS = 56,
    REC_DISK_ROUND = 57,
    REC_DISK_DONE = 58,
    REC_DISK_HASHES = 59,
    REC_DISK_ASK = 60,
    REC_DISK_SUMMARY = 61,
};

struct wire_info {
    u64 boot_id;
    u64 free_bytes;
    u64 time_ns;
    u32 guests; // holding memory
    u32 reserved;
    char host[32];
    char software[16];
};
static_assert(sizeof(struct wire_info) == 80, "INFO");

struct wire_owner_ask {
    u8 uuid[16];
    u64 asker_boot_id;
    u32 wants_start; // 1: the asker will start it if it may
    u32 reserved;
    char asker[32];
};
static_assert(sizeof(struct wire_owner_ask) == 64, "OWNER_ASK");

enum owner_state {
    OWNER_NOTHING = 0,  // neither runs nor holds it
    OWNER_RUNS = 1,     // runs it, or is about to
    OWNER_HOLDS = 2,    // has a copy whose fate is not settled
    OWNER_MOVED = 3,    // gave it away: to[], to_boot_id, epoch
    OWNER_STARTING = 4, // asks for itself just now; ask again
};
struct wire_owner {
    u8 uuid[16];
    u64 epoch;
    u64 to_boot_id;
    u32 state; // enum owner_state
    u32 reserved;
    char to[32];
};
static_assert(sizeof(struct wire_owner) == 72, "OWNER");

struct wire_test { // followed by that many bytes outside of records
    u64 bytes;
};
static_assert(sizeof(struct wire_test) == 8, "TEST");
#define LINK_TEST_MAX (1ull << 40)
struct wire_test_done {
    u64 bytes;
    u64 ns; // that the receiver took for them
};
static_assert(sizeof(struct wire_test_done) == 16, "TEST_DONE");

struct wire_region {
    u64 gpa, bytes;
};
#define WIRE_REGIONS     4
#define WIRE_PATH        128
#define WIRE_HAS_RNG     BIT(0)
#define WIRE_HAS_BALLOON BIT(1)
#define WIRE_HAS_ALL     (WIRE_HAS_RNG | WIRE_HAS_BALLOON)
struct wire_guest {
    char name[32];
    u64 memory_bytes;
    u32 memory_mib;
    u32 vcpus;
    u32 region_count;
    u8 dirty;   // enum dirty_mode of its configuration
    u8 cpu;     // enum cpu_level
    u8 clock;   // enum clock_kind
    u8 devices; // WIRE_HAS_*
    struct wire_region region[WIRE_REGIONS];
    u64 tsc_hz;
    u64 boot_count;
    u64 xcr0_allowed; // components the guest may enable
    u64 xss_allowed;
    u32 xsave_size;
    u32 cpuid_count;
    u32 device_count;
    u32 module_count;
    char cpu_vendor[16];
    char backend[16];
    char kernel[WIRE_PATH];
    char modules[4][WIRE_PATH];
    char cmdline[1024];
    u8 mac[6]; // of its network card; all zero: it has none
    u16 vlan;  // 0: untagged
    u32 macs;  // that may send through it
    u32 reserved32;
};
static_assert(sizeof(struct wire_guest) == 1880, "GUEST");
static_assert(CONFIG_MAX_MODULES == 4 && CONFIG_PATH == WIRE_PATH && CONFIG_NAME == 32,
              "GUEST carries a guest's configuration");

struct wire_cpuid {
    u32 leaf, sub, flags;
    u32 eax, ebx, ecx, edx;
    u32 reserved;
};
static_assert(sizeof(struct wire_cpuid) == 32, "CPUID entry");
#define WIRE_MAX_CPUID 64

struct wire_device {
    char name[24];
    char table[24];
    u32 instance;
    u16 version; // of the state table
    u16 kind;    // enum section_kind
};
static_assert(sizeof(struct wire_device) == 56, "DEVICES entry");
#define WIRE_MAX_DEVICES 64
#define WIRE_MAX_FRAME   65535u

struct wire_disk {
    char path[CONFIG_DISK];
    u64 sectors;         // of 512 bytes
    u64 allocated_bytes; // that it takes at the source
};
static_assert(sizeof(struct wire_disk) == 80, "DISKS entry");

struct wire_check {
    u32 mode; // enum check_mode
    u32 reserved;
};
static_assert(sizeof(struct wire_check) == 8, "CHECK");
enum check_mode { CHECK_ONLY = 0, CHECK_MOVE = 1 };

#define PAGES_MAX  16
#define PAGE_INDEX (BIT(52) - 1)
#define PAGE_ZERO  BIT(63)
struct wire_pages { // followed by count struct wire_page, then the pages' data
    u32 count;
    u32 round;
};
static_assert(sizeof(struct wire_pages) == 8, "PAGES");
struct wire_page {
    u64 index;   // PAGE_ZERO: it is all zeros, and no data of it follows
    u64 hash[2]; // of its 4096 bytes
};
static_assert(sizeof(struct wire_page) == 24, "PAGES entry");
static_assert(sizeof(struct wire_pages) + PAGES_MAX * (sizeof(struct wire_page) + PAGE_SIZE) <=
                  STREAM_MAX_PAYLOAD,
              "a full PAGES record fits");

struct wire_round {
    u32 round;
    u32 final; // 1: the guest is stopped and no pages follow
    u64 pages; // sent in this round, zero pages included
};
static_assert(sizeof(struct wire_round) == 16, "ROUND");

struct wire_ping {
    u64 id;
    u64 source_ns;
};
static_assert(sizeof(struct wire_ping) == 16, "PING");
struct wire_pong {
    u64 id;
    u64 source_ns;   // as in the PING
    u64 received_ns; // destination time
    u64 sent_ns;     // destination time
    u64 busy_ns;     // what the connection has cost there, from some moment before pre-copy on
    u64 state_ns;    // what encoding the guest's state takes there
};
static_assert(sizeof(struct wire_pong) == 48, "PONG");

struct wire_blocks { // followed by the sectors, without BLOCKS_ZERO
    u32 disk;        // in the order of DISKS
    u32 flags;       // BLOCKS_*
    u64 sector;
    u32 sectors; // up to BLOCKS_MAX with data
    u32 reserved;
    u64 hash[2]; // of these sectors; zero with BLOCKS_ZERO
};
static_assert(sizeof(struct wire_blocks) == 40, "BLOCKS");
#define BLOCKS_ZERO BIT(0)
#define BLOCKS_MAX  128u
static_assert(sizeof(struct wire_blocks) + BLOCKS_MAX * 512 <= STREAM_MAX_PAYLOAD,
              "a full BLOCKS record fits");

struct wire_disk_round {
    u32 round;
    u32 flags; // DISK_ROUND_*
};
static_assert(sizeof(struct wire_disk_round) == 8, "DISK_ROUND and DISK_DONE");
struct wire_disk_hashes { // followed by count times 16 bytes, of 4096 bytes of the disk each
    u32 disk;
    u32 count;  // up to DISK_HASHES_MAX
    u64 sector; // a multiple of 8
};
static_assert(sizeof(struct wire_disk_hashes) == 16, "DISK_HASHES");
#define DISK_HASHES_MAX 256u

struct wire_disk_summary {
    u64 equal, differing; // of 4096 bytes each
    u64 rewritten;        // by the guest since it runs there, so that nothing is known
    u64 first_sector;     // that differs
    u32 first_disk;
    u32 reserved;
};
static_assert(sizeof(struct wire_disk_summary) == 40, "DISK_SUMMARY");

#define DISK_ROUND_ANSWER BIT(0) // send DISK_DONE when all before is written
#define DISK_ROUND_FLUSH  BIT(1) // and durable
#define DISK_ROUND_LAST   BIT(2) // the guest stands still, no BLOCKS follow

enum section_kind { SECTION_VCPU = 1, SECTION_LAPIC = 2, SECTION_DEVICE = 3 };
struct wire_section { // followed by `bytes` bytes of kernel/guest/state.h encoding
    u32 kind;         // enum section_kind
    u32 instance;     // vCPU index or device instance
    char name[24];    // device name, "vcpu" or "lapic"
    u32 bytes;
    u32 reserved;
};
static_assert(sizeof(struct wire_section) == 40, "STATE");

struct move_ident { // opens every message of the hand-over
    u8 uuid[16];
    u64 epoch; // the guest's at the destination, one more than at the source
    u64 move_id;
    u64 source_boot_id, dest_boot_id;
};
static_assert(sizeof(struct move_ident) == 48, "identity of a move");

struct wire_offer {
    struct move_ident id;
    u64 digest[2];       // over every record sent before, see stream.md
    u64 guest_ticks;     // the guest's TSC while it stands still
    u64 frozen_ns;       // when it stopped, source time
    s64 clock_offset_ns; // destination time - source time
    u64 clock_error_ns;
    u32 flags; // OFFER_*
    u32 sections;
};
static_assert(sizeof(struct wire_offer) == 104, "OFFER");
#define OFFER_VERIFY BIT(0)
#define OFFER_PAUSED BIT(1) // the operator had paused the guest: it arrives paused

struct wire_ready {
    struct move_ident id;
    u64 digest[2]; // the destination's own
};
static_assert(sizeof(struct wire_ready) == 64, "READY");

struct wire_commit {
    struct move_ident id;
};
static_assert(sizeof(struct wire_commit) == 48, "COMMIT");

struct wire_running {
    struct move_ident id;
    u64 blackout_ns; // from the stop at the source to the first entry here
    u64 error_ns;
};
static_assert(sizeof(struct wire_running) == 64, "RUNNING");

struct wire_not_started {
    struct move_ident id;
    u32 certain; // 1: was discarded here and never ran; 0: this host knows nothing about the move
    u32 reserved;
};
static_assert(sizeof(struct wire_not_started) == 56, "NOT_STARTED");

enum answer_kind {
    ANSWER_WAIT = 1,      // not decided yet, ask again
    ANSWER_COMMITTED = 2, // start it (as COMMIT)
    ANSWER_ABORTED = 3,   // it goes on at the source: discard
    ANSWER_UNKNOWN = 4,   // nothing is known about this move
};
struct wire_answer {
    struct move_ident id;
    u32 kind; // enum answer_kind
    u32 reserved;
    u64 boot_id; // of the host that answers
};
static_assert(sizeof(struct wire_answer) == 64, "ANSWER");

struct wire_verify {
    struct move_ident id;
};
struct wire_summary {
    struct move_ident id;
    u64 pages;
    u64 ram[2];
    u64 state[2];
};
static_assert(sizeof(struct wire_summary) == 88, "SUMMARY");

enum hash_level { HASH_CHUNKS = 0, HASH_PAGES = 1 };
#define HASHES_MAX 1024
struct wire_hash_ask {
    u32 level; // enum hash_level
    u32 count; // up to HASHES_MAX
    u64 first; // chunk or page index
};
static_assert(sizeof(struct wire_hash_ask) == 16, "HASH_ASK");
struct wire_hashes { // followed by count times 16 bytes
    u32 level;
    u32 count;
    u64 first;
};
static_assert(sizeof(struct wire_hashes) == 16, "HASHES");

#endif
