// SPDX-License-Identifier: MIT
// host.cfg: an INI file, parsed into plain structs. Unknown sections and keys are refused by name
// and line; see kernel/config.md for every key.
#ifndef SKIFF_KERNEL_CONFIG_H
#define SKIFF_KERNEL_CONFIG_H

#include "kernel/types.h"

#define CONFIG_MAX_GUESTS  32
#define CONFIG_MAX_PEERS   64
#define CONFIG_MAX_MODULES 4
#define CONFIG_MAX_DISKS   4
#define CONFIG_NAME        32
#define CONFIG_PATH        128
#define CONFIG_DISK        64

enum dirty_mode { DIRTY_AUTO, DIRTY_PML, DIRTY_WP };
// What a guest is to tell time by: a TSC of constant rate, or KVM's paravirtual clock.
enum clock_kind { CLOCK_TSC, CLOCK_KVM };
// What a guest may see of the CPU: all that the host has, or a level of the x86-64 psABI.
enum cpu_level { CPU_HOST, CPU_V2, CPU_V3, CPU_V4 };

struct ip_address { // network byte order in bytes[]; 4 or 16 used
    u8 family;      // 0 unset, 4, 6
    u8 prefix;      // prefix length where it makes sense, else 0
    u8 bytes[16];
};

struct guest_config {
    char name[CONFIG_NAME];
    u8 uuid[16];
    bool uuid_set; // else derived from host name and guest name, stable across boots
    u32 memory_mib;
    u32 vcpus;
    char kernel[CONFIG_PATH];
    char modules[CONFIG_MAX_MODULES][CONFIG_PATH]; // first one is the initrd for Linux
    u32 module_count;
    char cmdline[1024];
    char disks[CONFIG_MAX_DISKS][CONFIG_DISK]; // host disks, "STORE/VOLUME"
    u32 disk_count;
    bool autostart;
    u8 dirty;          // enum dirty_mode
    u8 cpu;            // enum cpu_level
    u8 clock;          // enum clock_kind
    bool rng, balloon; // devices it has
    bool network;
    u8 mac[6]; // all zero: derived from the UUID (config.c)
    u16 vlan;  // 0: untagged
    u32 macs;  // that may send through its card, its own among them
};

struct peer_config {
    char name[CONFIG_NAME];
    struct ip_address address;
    u16 port; // 0: the default port
};

// What a move proves (kernel/config.md).
enum verify_mode { VERIFY_OFF, VERIFY_ON, VERIFY_STRICT };

struct host_config {
    char name[CONFIG_NAME];
    bool dhcp;
    struct ip_address address4, gateway4, address6, gateway6;
    u32 mtu;                // bytes of an IP packet on the host's link, default 1500
    u16 port;               // migration service, default 7070
    u8 verify;              // enum verify_mode
    u32 hints_ms;           // how long a guest may be asked for its free pages, 0: not at all
    u32 blackout_target_ms; // no more rounds than pay once the prediction is below (default 100)
    u32 max_rounds;         // default 30
    u64 max_rate;           // bytes a second for pre-copy, 0 unlimited
    bool autostart_wait;    // design rule 17; default true
    u8 log_level;
    u32 peer_count, guest_count;
    struct peer_config peers[CONFIG_MAX_PEERS];
    struct guest_config guests[CONFIG_MAX_GUESTS];
};

// Parses text (NUL-terminated). Returns 0, or E_INVAL with one sentence in err that says the line,
// what was wanted and what was found; *out then holds the defaults plus what was read before.
int config_parse(const char *text, struct host_config *out, char *err, size_t err_size);
void config_defaults(struct host_config *out);

int ip_parse(const char *s, struct ip_address *out); // "10.0.0.1", "10.0.0.1/24", "fd00::1/64"
void ip_format(const struct ip_address *a, char *buf, size_t size);
// A name that comes up in messages, commands and JSON: letters, digits, '-', '_' and '.', 1 to 31.
bool config_name_valid(const char *s);
int uuid_parse(const char *s, u8 out[16]);
// "52:54:00:12:34:56", of one station, neither a group's nor all zeros.
int mac_parse(const char *s, u8 out[6]);
void mac_format(const u8 mac[6], char buf[18]);
bool mac_valid(const u8 mac[6]);
// A locally administered address, the same for the same UUID.
void mac_from_uuid(const u8 uuid[16], u8 out[6]);
// The same UUID (version 8, RFC 9562 5.8) for the same two names, on every boot.
void uuid_from_names(const char *host, const char *guest, u8 out[16]);
void uuid_format(const u8 uuid[16], char buf[37]);

#endif
