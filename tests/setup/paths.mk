# SPDX-License-Identifier: MIT
# Where the set-up put things, for make; valid before the set-up has run.
SKIFF_SETUP_DIR := $(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))
SKIFF_CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/skiff
skiff_locked = $(shell awk '$$1 == "$(1)" { print $$2 }' $(SKIFF_SETUP_DIR)/third-party.lock)

LWIP_SRC := $(SKIFF_CACHE)/src/lwip-$(call skiff_locked,lwip)
ZYDIS_SRC := $(SKIFF_CACHE)/src/zydis-$(call skiff_locked,zydis)
ZYCORE_SRC := $(SKIFF_CACHE)/src/zycore-$(call skiff_locked,zycore)
INIH_SRC := $(SKIFF_CACHE)/src/inih-$(call skiff_locked,inih)
VGABIOS := /usr/share/vgabios/vgabios-stdvga.bin
OVMF := /usr/share/ovmf/OVMF.fd
KERNEL_CLOUD := $(SKIFF_CACHE)/kernel/cloud/vmlinuz
KERNEL_GENERIC := $(SKIFF_CACHE)/kernel/generic/vmlinuz
