# SPDX-License-Identifier: MIT
# Builds Skiff (build/skiff.efi) and runs its tests; `make help` lists the targets.
VERSION := 0.1
DEBUG ?= 0
B := $(if $(filter 1,$(DEBUG)),build-debug,build)
PYTHON := /usr/bin/python3
PYTEST := $(PYTHON) -m pytest -q

.PHONY: all setup guests ready check test demo console soak bench fuzz unit format format-check clean help
.DELETE_ON_ERROR:
# V=1 shows the whole command lines.
Q := $(if $(filter 1,$(V)),,@)
say = @echo '  $(1)  $@'
all: $(B)/skiff.efi $(B)/skiff-store

include tests/setup/paths.mk

LIB_SRCS :=
LIB_CFLAGS :=
LIB_INCLUDES :=
FRAGMENTS := $(wildcard net/lwip.mk kernel/guest/zydis.mk kernel/inih.mk arch/x86/platform/acpi.mk)
include $(FRAGMENTS)

SRCS := $(wildcard boot/*.c boot/*.S arch/x86/*.c arch/x86/*.S arch/x86/vmx/*.c arch/x86/vmx/*.S \
          arch/x86/svm/*.c arch/x86/svm/*.S arch/x86/platform/*.c kernel/*.c kernel/guest/*.c kernel/migrate/*.c kernel/console/*.c \
          net/*.c net/*/*.c storage/*.c)
OBJS := $(patsubst %,$(B)/obj/%.o,$(SRCS))
LIB_OBJS := $(patsubst /%,$(B)/lib/%.o,$(LIB_SRCS))

CC := gcc
LD := ld
NM := nm
OBJCOPY := objcopy
# Only the compiler's own headers: nothing of a C library can slip in.
MACHINE_FLAGS := -std=gnu11 -ffreestanding -nostdinc -isystem $(shell $(CC) -print-file-name=include) -fPIE -fvisibility=hidden -m64 -mgeneral-regs-only -mno-red-zone \
          -fno-strict-aliasing -fno-omit-frame-pointer -fno-asynchronous-unwind-tables -fcf-protection=none \
          -fstack-protector-strong -mstack-protector-guard=global -ffunction-sections -fdata-sections \
          -fno-delete-null-pointer-checks -O2 -g
CFLAGS := $(MACHINE_FLAGS) -Wall -Wextra -Werror -I. -isystem /usr/include/efi -isystem /usr/include/efi/x86_64 \
          -DGNU_EFI_USE_MS_ABI -fshort-wchar -DSKIFF_DEBUG=$(DEBUG) -DSKIFF_VERSION='"$(VERSION)"'
# A path inside the image names the file, not the builder's folders.
CFLAGS += -ffile-prefix-map=$(CURDIR)/=
LDFLAGS := -m elf_x86_64 -static -pie --no-dynamic-linker -z noexecstack -z norelro -z text -z max-page-size=4096 \
          --gc-sections --build-id=none --no-undefined -T linker.ld

$(B)/obj/%.c.o: %.c Makefile $(FRAGMENTS)
	@mkdir -p $(@D)
	$(call say,CC )
	$(Q)$(CC) $(CFLAGS) $(LIB_INCLUDES) $(LIB_CFLAGS) -MMD -MP -c $< -o $@

$(B)/obj/%.S.o: %.S Makefile
	@mkdir -p $(@D)
	$(call say,CC )
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c $< -o $@

# The compiler must not turn memcpy's own loop into a call of memcpy.
$(B)/obj/kernel/lib.c.o: CFLAGS += -fno-tree-loop-distribute-patterns

# Other people's sources: same machine flags, their own idea of warnings.
$(B)/lib/%.c.o: /%.c Makefile $(FRAGMENTS)
	@mkdir -p $(@D)
	$(call say,CC )
	$(Q)$(CC) $(MACHINE_FLAGS) -w -I. $(LIB_INCLUDES) $(LIB_CFLAGS) -MMD -MP -c $< -o $@

# Two passes: the first gives the text its final addresses, the second adds their names.
$(B)/pass1.elf: $(OBJS) $(LIB_OBJS) $(B)/no-symbols.o linker.ld
	$(call say,LD )
	$(Q)$(LD) $(LDFLAGS) -o $@ $(OBJS) $(LIB_OBJS) $(B)/no-symbols.o

$(B)/no-symbols.S: boot/symbols.awk
	@mkdir -p $(@D)
	$(Q)awk -f $< </dev/null >$@

$(B)/symbols.S: $(B)/pass1.elf boot/symbols.awk
	$(Q)$(NM) -n $< | awk -f boot/symbols.awk >$@

$(B)/symbols.o $(B)/no-symbols.o: %.o: %.S
	$(Q)$(CC) -c $< -o $@

$(B)/skiff.elf: $(B)/pass1.elf $(B)/symbols.o
	$(call say,LD )
	$(Q)$(LD) $(LDFLAGS) -o $@ $(OBJS) $(LIB_OBJS) $(B)/symbols.o
	@$(NM) -n $@ | awk -f boot/symbols.awk | cmp -s - $(B)/symbols.S || \
	    { echo "the two passes of the link disagree about the addresses of functions" >&2; rm -f $@; exit 1; }

$(B)/skiff.efi: $(B)/skiff.elf
	$(call say,EFI)
	$(Q)$(OBJCOPY) -O efi-app-x86_64 --section-alignment 4096 --file-alignment 512 --strip-all \
	    -j .text -j .rodata -j .symbols -j .rela -j .relro -j .data -j .bss -j .reloc $< $@

# The workstation's tool, of the hypervisor's own sources.
TOOL_SRCS := $(wildcard storage/tool/*.c) kernel/name.c kernel/number.c kernel/crc32c.c \
          $(addprefix storage/,block.c datastore.c gpt.c meta.c meta_format.c meta_load.c record.c \
          space.c volume.c volume_io.c volume_work.c)
$(B)/skiff-store: $(TOOL_SRCS) $(wildcard storage/*.h storage/tool/*.h kernel/*.h) Makefile
	@mkdir -p $(@D)
	$(call say,CC )
	$(Q)$(CC) -std=gnu11 -O2 -g -fno-strict-aliasing -Wall -Wextra -Werror -I. -DSKIFF_DEBUG=$(DEBUG) -o $@ $(TOOL_SRCS)

-include $(OBJS:.o=.d) $(LIB_OBJS:.o=.d)

# Without the set-up's sources nothing can be built: say so before the compiler does.
ifneq ($(words $(wildcard $(LWIP_SRC) $(ZYDIS_SRC) $(INIH_SRC) /usr/include/efi/efi.h)),4)
ifeq ($(filter setup guests ready clean help check test demo console soak bench fuzz unit format-check,$(MAKECMDGOALS)),)
$(error Skiff's sources from Debian are not here yet: run "make setup" first)
endif
endif

setup:
	tests/setup/setup.sh

# What every run on emulated machines needs; with as many jobs as there are CPUs.
JOBS := -j$(shell nproc)
MACHINE ?=
ON_MACHINE := $(if $(MACHINE),--machine $(MACHINE))
# PART=NAME: only that part of make bench or make soak.
ONE_PART := $(if $(PART),--part $(PART))
# Tests that measure no time run two at a time, where there are CPUs for them.
SIDE_BY_SIDE := $(if $(filter-out 1,$(shell nproc)),-n 2 --dist loadgroup)
guests:
	$(MAKE) $(JOBS) -C tests/guests OUT=$(abspath build/guests)

ready: setup
	$(MAKE) $(JOBS) all guests

check: ready
	$(MAKE) $(JOBS) unit format-check
	$(PYTEST) tests/e2e -m check --one-machine $(ON_MACHINE)

test: ready
	$(MAKE) $(JOBS) unit format-check
	$(MAKE) $(JOBS) -C tests/fuzz run
	$(PYTEST) tests/e2e -m quiet $(ON_MACHINE); quiet=$$?; \
	$(PYTEST) tests/e2e -m 'not quiet' $(SIDE_BY_SIDE) $(ON_MACHINE) && exit $$quiet

demo: ready
	$(PYTHON) tests/e2e/demo.py $(ON_MACHINE)

console: ready
	$(PYTHON) tests/e2e/console.py $(ON_MACHINE)

soak: ready
	$(PYTHON) tests/e2e/soak.py $(ONE_PART)

bench: ready
	$(PYTHON) tests/bench/bench.py $(ONE_PART)

fuzz: setup
	$(MAKE) $(JOBS) -C tests/fuzz fuzz

unit:
	$(MAKE) -C tests/unit run

OUR_C := $(wildcard boot/*.[ch] arch/x86/*.[ch] arch/x86/*/*.[ch] kernel/*.[ch] kernel/*/*.[ch] net/*.[ch] \
          net/*/*.[ch] storage/*.[ch] storage/*/*.[ch])
format:
	clang-format -i $(OUR_C)

# Other versions format differently: the sources are as Debian 12's does it.
format-check:
	@case "$$(clang-format --version)" in \
	*' version 14.'*) clang-format --dry-run -Werror $(OUR_C) ;; \
	*) echo 'formatting is not checked: that takes clang-format 14' ;; \
	esac

clean:
	rm -rf build build-debug

help:
	@echo 'make           build/skiff.efi, the UEFI application, build/skiff.elf with its symbols, and build/skiff-store'
	@echo 'make DEBUG=1   the same with debug checks, into build-debug/'
	@echo 'make setup     install what is missing (Debian packages, sources, the Bochs emulator)'
	@echo 'make check     build, unit tests, formatting and one boot: for every commit'
	@echo 'make test      every test'
	@echo 'make demo      two hosts, one guest, a live migration; writes build/demo/report.json'
	@echo 'make console   two hosts, and their serial consoles for you'
	@echo 'make bench     measures; writes build/bench/report.json (PART=NAME: one part of it)'
	@echo 'make soak      the long runs; writes build/soak/report.json (PART=NAME: one part of it)'
	@echo 'make fuzz      the fuzzers, for longer than in make test'
	@echo 'make unit      unit tests alone'
	@echo 'make format    clang-format over our C files (format-check only looks)'
