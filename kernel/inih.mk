# SPDX-License-Identifier: MIT
# Builds inih (INI parsing) into the image, with our own small headers in place of a C library's.
INIH_CFLAGS := -I$(INIH_SRC) -DINI_USE_STACK=1 -DINI_MAX_LINE=1300 -DINI_HANDLER_LINENO=1 \
          -DINI_CALL_HANDLER_ON_NEW_SECTION=1 -DINI_ALLOW_NO_VALUE=1 -DINI_STOP_ON_FIRST_ERROR=1 \
          -DINI_ALLOW_MULTILINE=0 -DINI_ALLOW_INLINE_COMMENTS=0
LIB_SRCS += $(INIH_SRC)/ini.c
INIH_OBJS := $(B)/obj/kernel/config.c.o $(B)/lib$(INIH_SRC)/ini.c.o
$(INIH_OBJS): LIB_INCLUDES := -Ikernel/inih
$(INIH_OBJS): LIB_CFLAGS := $(INIH_CFLAGS)
