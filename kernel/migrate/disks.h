// SPDX-License-Identifier: MIT
// A guest's disks on their way to another host (stream.md, "Disks"): both ends.
#ifndef SKIFF_MIGRATE_DISKS_H
#define SKIFF_MIGRATE_DISKS_H

#include "kernel/guest/guest.h"
#include "kernel/migrate/describe.h"
#include "kernel/migrate/stream.h"

// How much a guest may write ahead of the copy once that has caught up: what is left at the stop.
#define DISK_LAG_BYTES (4 * MIB)

struct move;
struct reasons;

// ---- The source (source_disks.c): the move's thread ---------------------------------------------

struct disk_out {
    struct guest_disk *disk;
    struct dirty_bitmap todo; // blocks to send
};
struct disks_out {
    struct disk_out disk[CONFIG_MAX_DISKS];
    u32 count;
    u8 *buffer;
    u32 round;
    u64 kept_up_ns; // when the log was sent last
};

// Starts the logs. What they hold is sent by the others.
int disks_out_start(struct move *m);
void disks_out_end(struct move *m);
// Everything, while the guest writes, until little is left; from then on its writes wait where it
// would get too far ahead.
int disks_out_copy(struct move *m);
// Between the records of a memory round: sends what has been written, from time to time.
int disks_out_keep_up(struct move *m);
u64 disks_out_pending(const struct move *m); // bytes written and not sent
// Before the guest stops: no write waits any more, so that its devices come to rest.
void disks_out_release(struct move *m);
int disks_out_last(struct move *m); // the guest stands still
int disks_out_wait(struct move *m); // until the destination has them on its disks

// Compares all that is allocated with what the destination's disks hold (verify_disks.c), with what
// the guest has written there since it runs left out; it stands still here. 0, or E_INVAL with what
// differs in report; other errors are the stream's.
int disks_out_compare(struct move *m, struct stream *s, char *report, size_t size);

// ---- The destination (dest_disks.c): the connection's thread ------------------------------------

struct disks_in;

// Adds every reason why the guest's disks cannot come here.
void disks_check(const struct guest_desc *d, const char *host, struct reasons *why);
// Makes volumes of their names. 0, or an error with a sentence and none made.
int disks_make(const struct guest_desc *d, char *err, size_t size);
// Which volumes these are just now (struct volume_info), 0 where there is none.
void disks_identify(const char (*path)[CONFIG_DISK], u32 count, u64 *id);
// Adds to those that are not known: volumes of these names that hold nothing.
void disks_identify_empty(const char (*path)[CONFIG_DISK], u32 count, u64 *id);
// Deletes a guest's volumes: of a copy that was given up, or of one that has gone. One that has
// been made since under the same name is another's, and stays.
void disks_delete(const char (*path)[CONFIG_DISK], u32 count, const u64 *id);

struct disks_in *disks_in_open(struct guest *g); // NULL without memory
void disks_in_close(struct disks_in *in);        // waits for writes under way; NULL is allowed
// One BLOCKS or DISK_ROUND record. 0, or an error with a sentence in err.
int disks_in_blocks(struct disks_in *in, const struct record *r, char *err, size_t size);
int disks_in_round(struct disks_in *in, struct stream *s, const struct record *r, char *err,
                   size_t size);
// Answers DISK_HASHES and DISK_ASK, while the guest stands still and, with a log that was started
// before, while it runs.
struct disks_seen {
    struct wire_disk_summary sum;
    u8 *buffer;
};
void disks_answer_begin(struct guest *g); // before it runs: from then on what it writes is logged
bool disks_is_question(u32 type);
int disks_answer(struct disks_seen *seen, struct guest *g, const void *job, struct stream *s,
                 const struct record *r);
void disks_answer_end(struct disks_seen *seen, struct guest *g); // ends g's log; NULL: it goes on
// On a connection that the source opened once the guest runs here. Ends the log.
int disks_serve(struct stream *s, const struct record *first);
bool disks_in_complete(const struct disks_in *in); // the last round is on the disks

#endif
