# SPDX-License-Identifier: MIT
# Zydis: the instruction decoder behind MMIO emulation, in minimal mode (no operands, no text).
LIB_SRCS += $(addprefix $(ZYDIS_SRC)/src/,Decoder.c DecoderData.c SharedData.c)
LIB_INCLUDES += -isystem $(ZYDIS_SRC)/include -isystem $(ZYCORE_SRC)/include
LIB_CFLAGS += -DZYDIS_MINIMAL_MODE -DZYDIS_DISABLE_AVX512 -DZYDIS_DISABLE_KNC -DZYAN_NO_LIBC \
    -DZYDIS_STATIC_BUILD -DZYCORE_STATIC_BUILD
# Its sources include their generated tables by a path from src/; see zydis_libc.h for the other.
$(B)/lib/$(patsubst /%,%,$(ZYDIS_SRC))/%.o: LIB_INCLUDES += -I$(ZYDIS_SRC)/src
$(B)/lib/$(patsubst /%,%,$(ZYDIS_SRC))/%.o: LIB_CFLAGS += -include kernel/guest/zydis_libc.h
