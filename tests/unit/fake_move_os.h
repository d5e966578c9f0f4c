// SPDX-License-Identifier: MIT
// fake_move.h's kernel: time, threads, locks, memory, log and connections of the C library.
// Included once by a test.
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

// ---- Time and threads ---------------------------------------------------------------------------

u64 host_tsc_hz = NS_PER_SEC;

static u64 real_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * NS_PER_SEC + (u64)t.tv_nsec;
}

u64 time_ns(void)
{
    return real_ns() * SPEED;
}

void thread_sleep_ns(u64 ns)
{
    usleep((useconds_t)(ns / SPEED / 1000 + 1));
}

void thread_yield(void)
{
    sched_yield();
}

u64 thread_cpu_ns(void)
{
    return time_ns();
}

u64 thread_contended_ns(void)
{
    return 0;
}

bool thread_get_info(unsigned i, struct thread_info *out)
{
    (void)i, (void)out;
    return false;
}

static __thread char self;
struct thread *thread_current(void)
{
    return (struct thread *)&self;
}

struct start {
    void (*fn)(void *arg);
    void *arg;
};

static void *run_thread(void *p)
{
    struct start s = *(struct start *)p;
    free(p);
    s.fn(s.arg);
    return NULL;
}

struct thread *thread_create(const char *name, void (*fn)(void *arg), void *arg, unsigned flags)
{
    pthread_t t;
    struct start *s = malloc(sizeof(*s));
    (void)name, (void)flags;
    *s = (struct start){fn, arg};
    if (pthread_create(&t, NULL, run_thread, s) != 0)
        return NULL;
    pthread_detach(t);
    return (struct thread *)1;
}

static pthread_mutex_t big = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t freed = PTHREAD_COND_INITIALIZER;

void mutex_lock(struct mutex *m)
{
    pthread_mutex_lock(&big);
    assert(m->owner != thread_current());
    while (m->owner)
        pthread_cond_wait(&freed, &big);
    m->owner = thread_current();
    pthread_mutex_unlock(&big);
}

void mutex_unlock(struct mutex *m)
{
    pthread_mutex_lock(&big);
    assert(m->owner == thread_current());
    m->owner = NULL;
    pthread_cond_broadcast(&freed);
    pthread_mutex_unlock(&big);
}

bool mutex_held(const struct mutex *m)
{
    return m->owner == thread_current();
}

bool waitq_commit(struct waitq *q, u64 deadline_ns)
{
    (void)q;
    usleep(200);
    return !deadline_ns || time_ns() < deadline_ns;
}

void waitq_set_and_wake(struct waitq *q, volatile bool *flag)
{
    (void)q;
    *flag = true;
}

void spin_lock(struct spinlock *l)
{
    while (__atomic_exchange_n(&l->locked, 1, __ATOMIC_ACQUIRE))
        sched_yield();
}

void spin_unlock(struct spinlock *l)
{
    __atomic_store_n(&l->locked, 0, __ATOMIC_RELEASE);
}

void waitq_wake_all(struct waitq *q)
{
    (void)q;
}

// ---- Memory and log -----------------------------------------------------------------------------

u64 fake_free_bytes = 64 * MIB;

bool fake_no_page_pairs;
u64 pages_alloc(u64 count)
{
    if (count == 2 && fake_no_page_pairs)
        return 0;
    return (u64)(uintptr_t)aligned_alloc(PAGE_SIZE, count * PAGE_SIZE);
}

void pages_free(u64 pa, u64 count)
{
    (void)count;
    free((void *)(uintptr_t)pa);
}

void mem_get_stats(struct mem_stats *out)
{
    *out = (struct mem_stats){.total_bytes = 256 * MIB, .free_bytes = fake_free_bytes};
}

bool fake_log;
static volatile bool fake_stalled; // by a fault, as the log says

void log_write(enum log_level level, const char *area, const char *fmt, ...)
{
    char text[300];
    va_list ap;
    (void)level;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (!strncmp(text, "stalled at", 10) || !strncmp(text, "no longer stalled", 17))
        fake_stalled = text[0] == 's';
    if (fake_log)
        fprintf(stderr, "[host %u] %s: %s\n", fake_host, area, text);
}

u64 random_u64(void)
{
    u64 v = 0;
    FILE *f = fopen("/dev/urandom", "r");
    if (fread(&v, sizeof(v), 1, f) != 1)
        abort();
    fclose(f);
    return v | 1;
}

// ---- Records: a file each -----------------------------------------------------------------------

#define RECORD "move-01020304-0506-0708-090a-0b0c0d0e0f10" // there is one guest

static void record_path(char *path, size_t size, const char *key)
{
    snprintf(path, size, "%s/%u-%s", fake_dir, fake_host, key);
}

int record_put(const char *key, const void *data, u32 bytes)
{
    char path[128];
    if (fake_shared->records[fake_host] != RECORDS_KEPT)
        return fake_shared->records[fake_host] == RECORDS_NONE ? E_NOENT : E_IO;
    record_path(path, sizeof(path), key);
    FILE *f = fopen(path, "w");
    bool ok = f && fwrite(data, 1, bytes, f) == bytes && fclose(f) == 0;
    return ok ? 0 : E_IO;
}

int record_get(const char *key, void *data, u32 *bytes)
{
    char path[128];
    record_path(path, sizeof(path), key);
    FILE *f = fopen(path, "r");
    if (!f)
        return E_NOENT;
    *bytes = (u32)fread(data, 1, *bytes, f);
    fclose(f);
    return 0;
}

int record_delete(const char *key)
{
    char path[128];
    record_path(path, sizeof(path), key);
    return unlink(path) == 0 ? 0 : E_NOENT;
}

bool record_next(u32 *at, char key[RECORD_KEY])
{
    char path[128];
    strlcpy(key, RECORD, RECORD_KEY);
    record_path(path, sizeof(path), key);
    return fake_shared->records[fake_host] != RECORDS_NONE && (*at)++ == 0 &&
           access(path, R_OK) == 0;
}

// ---- Connections --------------------------------------------------------------------------------

struct fake_conn {
    struct conn base;
    int fd;
    u64 deadline;
};

static int wait_fd(struct fake_conn *c, short what)
{
    struct pollfd p = {.fd = c->fd, .events = what};
    int ms = -1;
    if (c->deadline) {
        u64 now = time_ns();
        ms = now >= c->deadline ? 0 : (int)((c->deadline - now) / SPEED / NS_PER_MS + 1);
    }
    return poll(&p, 1, ms) > 0 ? 0 : E_TIMEOUT;
}

static s64 fake_read(struct conn *base, void *buf, u64 size)
{
    struct fake_conn *c = (struct fake_conn *)base;
    if (wait_fd(c, POLLIN))
        return E_TIMEOUT;
    ssize_t n = recv(c->fd, buf, size, 0);
    if (n > 0)
        base->bytes_in += (u64)n;
    return n < 0 ? E_IO : n;
}

static s64 fake_write(struct conn *base, const void *buf, u64 size)
{
    struct fake_conn *c = (struct fake_conn *)base;
    for (u64 done = 0; done < size;) {
        if (wait_fd(c, POLLOUT))
            return E_TIMEOUT;
        ssize_t n = send(c->fd, (const u8 *)buf + done, size - done, MSG_NOSIGNAL);
        if (n <= 0)
            return E_IO;
        done += (u64)n;
        base->bytes_out += (u64)n;
    }
    return (s64)size;
}

static int fake_flush(struct conn *base)
{
    (void)base;
    return 0;
}

static void fake_close(struct conn *base)
{
    close(((struct fake_conn *)base)->fd);
    free(base);
}

static void fake_abort(struct conn *base)
{
    shutdown(((struct fake_conn *)base)->fd, SHUT_RDWR);
}

static void fake_deadline(struct conn *base, u64 ns)
{
    ((struct fake_conn *)base)->deadline = ns;
}

static const struct conn_ops fake_ops = {fake_read,  fake_write, fake_flush,
                                         fake_close, fake_abort, fake_deadline};

static struct conn *make_conn(int fd)
{
    struct fake_conn *c = calloc(1, sizeof(*c));
    c->base.ops = &fake_ops;
    c->base.peer.family = 4;
    c->fd = fd;
    return &c->base;
}

int conn_read_full(struct conn *c, void *buf, u64 size)
{
    for (u64 done = 0; done < size;) {
        s64 n = conn_read(c, (u8 *)buf + done, size - done);
        if (n <= 0)
            return n == E_TIMEOUT ? E_TIMEOUT : E_IO;
        done += (u64)n;
    }
    return 0;
}

static struct sockaddr_un socket_name(u16 port)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof(a.sun_path), "%s/%u", fake_dir, port);
    return a;
}

struct conn *net_connect(const struct ip_address *to, u16 port, u64 timeout_ns, char *err,
                         size_t size)
{
    struct sockaddr_un a = socket_name(port);
    (void)to, (void)timeout_ns;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
        return make_conn(fd);
    close(fd);
    snprintf(err, size, "connection refused");
    return NULL;
}

struct served {
    void (*fn)(struct conn *c);
    int fd;
};

static void serve_one(void *arg)
{
    struct served s = *(struct served *)arg;
    free(arg);
    s.fn(make_conn(s.fd));
}

static void accept_loop(void *arg)
{
    struct served *l = arg;
    for (;;) {
        struct served *s = malloc(sizeof(*s));
        *s = (struct served){l->fn, accept(l->fd, NULL, NULL)};
        thread_create("served", serve_one, s, 0);
    }
}

int net_listen(u16 port, void (*fn)(struct conn *c))
{
    struct sockaddr_un a = socket_name(port);
    static struct served l;
    unlink(a.sun_path);
    l = (struct served){fn, socket(AF_UNIX, SOCK_STREAM, 0)};
    if (bind(l.fd, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(l.fd, 16) != 0)
        return E_IO;
    thread_create("listen", accept_loop, &l, 0);
    return 0;
}
