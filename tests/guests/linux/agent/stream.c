// SPDX-License-Identifier: MIT
// Raw TCP: a transfer between two Linux machines, to measure what the NIC between them can carry,
// and an echo for connections that are to outlive moves.
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define STREAM_PORT  7071
#define ECHO_PORT    7072
#define BLOCK_BYTES  (64u << 10)
#define CONNECT_TIME 60 // seconds

static char block[BLOCK_BYTES];

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int failed(const char *doing)
{
    agent_error("%s: %s", doing, strerror(errno));
    return 1;
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 8))
        return -1;
    return listener;
}

static bool write_all(int c, const char *bytes, ssize_t size)
{
    for (ssize_t n; size > 0; bytes += n, size -= n)
        if ((n = write(c, bytes, (size_t)size)) < 0)
            return false;
    return true;
}

static void *echo(void *connection)
{
    int c = (int)(intptr_t)connection;
    char bytes[4096];
    ssize_t n;
    while ((n = read(c, bytes, sizeof bytes)) > 0 && write_all(c, bytes, n))
        ;
    close(c);
    return NULL;
}

// Sends back what comes in, to each connection.
int stream_echo(void)
{
    int listener = listen_on(ECHO_PORT);
    pthread_t thread;
    if (listener < 0)
        return failed("listening");
    for (;;) {
        int c = accept(listener, NULL, NULL);
        if (c < 0 || pthread_create(&thread, NULL, echo, (void *)(intptr_t)c))
            return failed("accept");
        pthread_detach(thread);
    }
}

// Takes connections one after the other and throws away what comes in.
int stream_receive(void)
{
    int listener = listen_on(STREAM_PORT);
    if (listener < 0)
        return failed("listening");
    puts("STREAM-READY");
    for (;;) {
        int c = accept(listener, NULL, NULL);
        ssize_t n;
        if (c < 0)
            return failed("accept");
        while ((n = read(c, block, sizeof block)) > 0)
            ;
        close(c);
    }
}

static int connect_to(const char *address)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(STREAM_PORT)};
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
        return -1;
    for (int tries = 0; tries < CONNECT_TIME; tries++) {
        int c = socket(AF_INET, SOCK_STREAM, 0);
        if (c < 0 || connect(c, (struct sockaddr *)&to, sizeof to) == 0)
            return c;
        close(c);
        sleep(1);
    }
    return -1;
}

// Sends that much and waits until the other side has read all: its end of the connection closes.
int stream_send(const char *address, uint64_t bytes)
{
    int c = connect_to(address);
    if (c < 0)
        return failed("connecting");
    uint64_t start = now_ns();
    for (uint64_t left = bytes; left > 0;) {
        ssize_t n = write(c, block, left < sizeof block ? left : sizeof block);
        if (n < 0)
            return failed("sending");
        left -= (uint64_t)n;
    }
    shutdown(c, SHUT_WR);
    if (read(c, block, sizeof block) != 0)
        return failed("waiting for the end");
    uint64_t ns = now_ns() - start;
    printf("STREAM-SENT %" PRIu64 " bytes %" PRIu64 " ns\n", bytes, ns);
    return 0;
}
