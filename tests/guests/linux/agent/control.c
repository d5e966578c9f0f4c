// SPDX-License-Identifier: MIT
// Lines typed on the console while the agent works, and the kernel's own complaints on demand.
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define KLOG_READ_ALL 3
#define KLOG_SIZE     10
#define LEVEL_WARNING 4

// Without echo, so that what a tester types never tears a heartbeat line.
void control_open(void)
{
    struct termios settings;

    if (tcgetattr(STDIN_FILENO, &settings))
        return;
    settings.c_lflag &= ~(tcflag_t)ECHO;
    tcsetattr(STDIN_FILENO, TCSANOW, &settings);
}

// Sleeps until the time has passed or a line was typed. Calls nothing that may use the registers
// that are live here.
bool control_wait(uint64_t timeout_ns, char *line, size_t size)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                               .tv_nsec = (long)(timeout_ns % 1000000000u)};
    if (syscall(SYS_ppoll, &input, 1, &timeout, NULL, 0) <= 0)
        return false;
    ssize_t length = read(STDIN_FILENO, line, size - 1);
    if (length <= 0)
        return false;
    line[line[length - 1] == '\n' ? length - 1 : length] = '\0';
    return true;
}

// The kernel's log lines from warnings up, between two markers.
void control_print_kernel_warnings(void)
{
    int size = klogctl(KLOG_SIZE, NULL, 0);
    char *log = malloc((size_t)size + 1);
    unsigned count = 0;

    size = log ? klogctl(KLOG_READ_ALL, log, size) : -1;
    puts("DMESG-BEGIN");
    if (size > 0) {
        log[size] = '\0';
        for (char *line = strtok(log, "\n"); line; line = strtok(NULL, "\n")) {
            if (line[0] == '<' && (strtoul(line + 1, NULL, 10) & 7) <= LEVEL_WARNING) {
                puts(line);
                count++;
            }
        }
    }
    printf("DMESG-END %u\n", count);
    free(log);
}

// The second CPU of a kernel that was told to leave it alone (maxcpus=1) gets INIT and SIPI.
void control_start_cpu(void)
{
    FILE *online = fopen("/sys/devices/system/cpu/cpu1/online", "w");

    if (!online || fputs("1", online) < 0 || fclose(online))
        agent_error("CPU 1 does not start");
    else
        printf("AGENT-CPUS %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
}
