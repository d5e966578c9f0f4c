// SPDX-License-Identifier: MIT
// Waits for the ACPI power button and switches the guest off.
#include <fcntl.h>
#include <glob.h>
#include <linux/input.h>
#include <poll.h>
#include <stdio.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "agent.h"

#define MAX_INPUTS 8

static nfds_t open_inputs(struct pollfd *inputs)
{
    glob_t found;
    nfds_t count = 0;

    if (glob("/dev/input/event*", 0, NULL, &found))
        return 0;
    for (size_t i = 0; i < found.gl_pathc && count < MAX_INPUTS; i++) {
        int file = open(found.gl_pathv[i], O_RDONLY);
        if (file >= 0)
            inputs[count++] = (struct pollfd){.fd = file, .events = POLLIN};
    }
    globfree(&found);
    return count;
}

static bool is_power_key(int file)
{
    struct input_event event;
    return read(file, &event, sizeof event) == sizeof event && event.type == EV_KEY &&
           event.code == KEY_POWER && event.value == 1;
}

int button_run(void)
{
    struct pollfd inputs[MAX_INPUTS];
    nfds_t count = open_inputs(inputs);

    if (count == 0) {
        puts("AGENT-NO-POWER-BUTTON");
        return 1;
    }
    for (;;) {
        poll(inputs, count, -1);
        for (nfds_t i = 0; i < count; i++) {
            if (!(inputs[i].revents & POLLIN) || !is_power_key(inputs[i].fd))
                continue;
            puts("AGENT-POWER-BUTTON");
            reboot(RB_POWER_OFF);
        }
    }
}
