// SPDX-License-Identifier: MIT
// Saves a stopped guest section by section, and loads one in two passes.
#include "kernel/migrate/sections.h"

#include "kernel/lib.h"
#include "kernel/mem.h"
#include "kernel/migrate/stream.h"

static void fill_vcpu(struct section *out, enum section_kind kind, struct vcpu *v)
{
    *out = (struct section){
        .kind = kind,
        .instance = v->index,
        .name = kind == SECTION_VCPU ? "vcpu" : "lapic",
        .table = kind == SECTION_VCPU ? &vcpu_table : &lapic_state,
        .vcpu = v,
    };
}

bool section_next(struct section_iter *it, struct section *out)
{
    const struct guest *g = it->guest;
    if (it->stage == 0) {
        if (it->vcpu < g->vcpu_count) {
            fill_vcpu(out, SECTION_LAPIC, g->vcpu[it->vcpu++]);
            return true;
        }
        it->stage = 1;
        it->vcpu = 0;
        it->device = g->devices;
    }
    if (it->stage == 1) {
        struct device *d = it->device;
        if (d) {
            it->device = d->next;
            *out = (struct section){.kind = SECTION_DEVICE,
                                    .instance = d->instance,
                                    .name = d->ops->name,
                                    .table = d->ops->state,
                                    .device = d};
            return true;
        }
        it->stage = 2;
    }
    if (it->vcpu < g->vcpu_count) {
        fill_vcpu(out, SECTION_VCPU, g->vcpu[it->vcpu++]);
        return true;
    }
    return false;
}

bool section_find(const struct guest *g, const struct wire_section *w, struct section *out)
{
    struct section_iter it = {.guest = g};
    while (section_next(&it, out))
        if (out->kind == w->kind && out->instance == w->instance &&
            strncmp(out->name, w->name, sizeof(w->name)) == 0)
            return true;
    return false;
}

static s64 save_vcpu(const struct section *sec, void *buf, u64 size, bool change)
{
    struct vcpu_state *s = kzalloc(sizeof(*s));
    if (!s)
        return E_NOMEM;
    vcpu_save_state(sec->vcpu, s);
    if (change)
        s->gpr[GPR_RBX] ^= 1;
    s64 n = state_save(&vcpu_table, s, buf, size);
    kfree(s);
    return n;
}

s64 section_save(const struct section *sec, void *buf, u64 size)
{
    if (sec->kind == SECTION_VCPU)
        return save_vcpu(sec, buf, size, false);
    const void *obj = sec->kind == SECTION_LAPIC ? sec->vcpu->lapic : sec->device->priv;
    return state_save(sec->table, obj, buf, size);
}

s64 section_save_changed(const struct section *sec, void *buf, u64 size)
{
    return save_vcpu(sec, buf, size, true);
}

// ---- Loading -----------------------------------------------------------------------------------

static const struct loaded_section *load_find(const struct load *l, const struct section *sec)
{
    for (u32 i = 0; i < l->count; i++)
        if (l->sections[i].sec.kind == sec->kind && l->sections[i].sec.instance == sec->instance &&
            strcmp(l->sections[i].sec.name, sec->name) == 0)
            return &l->sections[i];
    return NULL;
}

// Checks the STATE record's own fields and finds the section of the guest it is for.
static int load_identify(struct load *l, const struct wire_section *w, u32 bytes,
                         struct section *sec, char *err, size_t size)
{
    if (bytes < sizeof(*w) || w->bytes != bytes - sizeof(*w) ||
        !wire_name_ok(w->name, sizeof(w->name))) {
        snprintf(err, size, "malformed STATE record: %u bytes for %u of state", bytes,
                 bytes < sizeof(*w) ? 0 : w->bytes);
        return E_PROTO;
    }
    if (!section_find(l->guest, w, sec)) {
        snprintf(err, size, "state of \"%s\" number %u came, and the guest here has no such part",
                 w->name, w->instance);
        return E_PROTO;
    }
    if (load_find(l, sec) || l->count == ARRAY_SIZE(l->sections)) {
        snprintf(err, size, "state of \"%s\" number %u came twice", w->name, w->instance);
        return E_PROTO;
    }
    return 0;
}

static const void *section_object(const struct section *sec)
{
    if (sec->kind == SECTION_LAPIC)
        return sec->vcpu->lapic;
    return sec->kind == SECTION_DEVICE ? sec->device->priv : NULL;
}

int load_check(struct load *l, const void *payload, u32 bytes, char *err, size_t size)
{
    const struct wire_section *w = payload;
    struct section sec;
    int e = load_identify(l, w, bytes, &sec, err, size);
    if (e)
        return e;

    void *scratch = kzalloc(sec.table->struct_size);
    // A vCPU's defaults are zeros; a device's are what it was built with.
    void *zeros = sec.kind == SECTION_VCPU ? kzalloc(sec.table->struct_size) : NULL;
    const void *obj = zeros ? zeros : section_object(&sec);
    if (!scratch || !obj) {
        snprintf(err, size, "no memory to check the state of \"%s\"", w->name);
        kfree(scratch);
        return E_NOMEM;
    }
    char why[160] = "";
    e = state_check(sec.table, obj, w + 1, w->bytes, scratch, why, sizeof(why));
    kfree(zeros);
    if (e) {
        snprintf(err, size, "state of \"%s\" number %u is refused: %s", w->name, w->instance, why);
        kfree(scratch);
        return e == E_NOMEM ? E_NOMEM : E_PROTO;
    }
    l->sections[l->count++] = (struct loaded_section){sec, scratch};
    return 0;
}

int load_complete(struct load *l, char *err, size_t size)
{
    struct section_iter it = {.guest = l->guest};
    struct section sec;
    while (section_next(&it, &sec)) {
        const struct loaded_section *s = load_find(l, &sec);
        if (!s) {
            snprintf(err, size, "the state of \"%s\" number %u did not come", sec.name,
                     sec.instance);
            return E_PROTO;
        }
        char why[160] = "";
        if (sec.kind == SECTION_VCPU &&
            vcpu_check_state(sec.vcpu, s->scratch, why, sizeof(why)) != 0) {
            snprintf(err, size, "vCPU %u's state is refused: %s", sec.instance, why);
            return E_PROTO;
        }
    }
    return 0;
}

int load_apply(struct load *l, char *err, size_t size)
{
    struct section_iter it = {.guest = l->guest};
    struct section sec;
    while (section_next(&it, &sec)) {
        const struct loaded_section *s = load_find(l, &sec);
        if (sec.kind == SECTION_VCPU) {
            if (vcpu_load_state(sec.vcpu, s->scratch) != 0) {
                snprintf(err, size, "vCPU %u cannot be entered with the state that came",
                         sec.instance);
                return E_INVAL;
            }
        } else if (sec.kind == SECTION_LAPIC) {
            state_apply(sec.table, sec.vcpu->lapic, s->scratch);
        } else {
            mutex_lock(&sec.device->lock);
            state_apply(sec.table, sec.device->priv, s->scratch);
            mutex_unlock(&sec.device->lock);
        }
    }
    return 0;
}

void load_free(struct load *l)
{
    for (u32 i = 0; i < l->count; i++)
        kfree(l->sections[i].scratch);
    l->count = 0;
}
