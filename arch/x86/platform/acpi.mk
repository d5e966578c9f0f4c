# SPDX-License-Identifier: MIT
# The guest's DSDT: dsdt.asl, compiled by iasl and wrapped into a C array. For the top Makefile,
# beside the other *.mk files that add sources to LIB_SRCS.
DSDT_C := $(abspath $(B))/gen/dsdt_aml.c
LIB_SRCS += $(DSDT_C)

$(DSDT_C): arch/x86/platform/dsdt.asl arch/x86/platform/acpi.mk
	@mkdir -p $(@D)
	iasl -p $(@D)/dsdt $< >$(@D)/dsdt.log || { cat $(@D)/dsdt.log >&2; exit 1; }
	@{ echo '#include "arch/x86/platform/dsdt.h"'; \
	  echo 'const u8 dsdt_aml[] = {'; \
	  od -An -v -tu1 $(@D)/dsdt.aml | sed 's/  *\([0-9][0-9]*\)/\1,/g'; \
	  echo '};'; \
	  echo 'const u32 dsdt_aml_bytes = sizeof(dsdt_aml);'; } >$@
