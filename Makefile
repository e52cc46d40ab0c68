# Wiretoll. `make help` lists what there is. Outputs only under build/.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := all

PREFIX     ?= /usr/local
DESTDIR    ?=
BINDIR     ?= $(PREFIX)/bin
SYSCONFDIR ?= /etc
LIBDIR     ?= $(PREFIX)/lib
DOCDIR     ?= $(PREFIX)/share/doc/wiretoll
SANITIZE   ?= 0
V          ?= 0
FULL       ?= 0

# `make OUT=build/clang CC=clang` builds all of it with clang.
CC         := gcc
CLANG      := clang
BPFTOOL    := $(firstword $(wildcard /usr/sbin/bpftool) bpftool)
PYTHON     := /usr/bin/python3

# SANITIZE=1 builds into a tree of its own, so that both kinds stay built.
ifeq ($(SANITIZE),1)
OUT        := build/sanitize
SANFLAGS   := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
else
OUT        := build
SANFLAGS   := -D_FORTIFY_SOURCE=2
endif

ifeq ($(V),0)
Q := @
say = @printf '  %-8s %s\n' "$(1)" "$(2)"
else
Q :=
say = @:
endif

# ---- flags -----------------------------------------------------------------------------------------------
# Recursive, so that `make deps` runs before any of these packages is there.
PACKAGES   = libbpf libnl-3.0 libnl-genl-3.0 libnl-route-3.0 liburing libpq jansson libmicrohttpd gnutls libcurl libsodium libseccomp
PKG_CFLAGS = $(shell pkg-config --cflags $(PACKAGES))
CPPFLAGS   += -D_GNU_SOURCE -Iinclude -Iuserspace -Iapi -I$(OUT)/gen
CFLAGS     += -std=gnu17 -O2 -g -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
              -Wvla -Wformat=2 -Wno-format-nonliteral -fPIE -fstack-protector-strong -fstack-clash-protection -fcf-protection $(SANFLAGS)
LDFLAGS    += -pie -Wl,-z,relro,-z,now -Wl,-z,noexecstack -Wl,--as-needed $(SANFLAGS)
BPFFLAGS   := -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -Iinclude -I/usr/include/$(shell uname -m)-linux-gnu

METER_LIBS = -lbpf -lelf -lz -lnl-route-3 -lnl-genl-3 -lnl-3
AGENT_LIBS = $(METER_LIBS) -luring -lcurl -ljansson -lsodium -lseccomp
API_LIBS   = -lmicrohttpd -lgnutls -lpq -ljansson -lsodium
CLI_LIBS   = $(METER_LIBS) -lcurl -ljansson -lsodium -lpq -lgnutls -lmicrohttpd
ALL_LIBS   = $(AGENT_LIBS) -lmicrohttpd -lgnutls -lpq

# ---- sources: a folder is a static library --------------------------------------------------------------
objects    = $(patsubst %.c,$(OUT)/obj/%.o,$(wildcard $(addsuffix /*.c,$(1))))
BASE_OBJ    := $(call objects,userspace/base)
METER_OBJ   := $(call objects,userspace/meter)
WG_OBJ      := $(call objects,userspace/wg)
NET_OBJ     := $(call objects,userspace/net)
STANDALONE_OBJ := $(call objects,userspace/standalone)
JOURNAL_OBJ := $(call objects,userspace/journal)
AGENT_OBJ   := $(call objects,userspace/agent)
CLI_OBJ     := $(call objects,userspace/cli)
STORE_OBJ   := $(call objects,api/store)
API_OBJ     := $(call objects,api api/resources api/billing)
DEPLOY_OBJ  := $(call objects,api/deploy)
EVERY_OBJ   := $(BASE_OBJ) $(METER_OBJ) $(WG_OBJ) $(NET_OBJ) $(JOURNAL_OBJ) $(STANDALONE_OBJ) $(AGENT_OBJ) $(CLI_OBJ) $(STORE_OBJ) $(API_OBJ) $(DEPLOY_OBJ)

lib         = $(OUT)/lib/$(1).a
LIBS_AGENT  := $(foreach l,journal meter wg net base,$(call lib,$l))
LIBS_API    := $(foreach l,store base,$(call lib,$l))
LIBS_CLI    := $(foreach l,standalone journal meter wg net store base,$(call lib,$l))
# How the agent writes its journal, for the command that shows one.
CLI_RECORDS := $(patsubst %,$(OUT)/obj/userspace/agent/%.o,batch_read sample_record)

PROGRAMS    := $(foreach p,wiretoll wiretoll-agent wiretoll-api wiretoll-deployd,$(OUT)/bin/$p)
SKELETONS   := $(patsubst bpf/%.bpf.c,$(OUT)/gen/%.skel.h,$(wildcard bpf/*.bpf.c))
MIGRATIONS  := $(sort $(wildcard api/store/migrations/*.sql))
GENERATED   := $(SKELETONS) $(OUT)/gen/migrations.h
UNIT_TESTS  := $(patsubst tests/%.c,$(OUT)/tests/%,$(wildcard tests/unit/test_*.c tests/bpf/test_*.c tests/net/test_*.c))

.PHONY: all deps test test-vm demo lint check-headers install clean help format
all: $(PROGRAMS) ## build everything

# What runs in the virtual machine: the meter, its device and its network on another kernel. The tests of the wire formats
# need no kernel, test_meter, test_meter_raise and test_meter_routing are about TUN devices, and test_meter_senders about processors.
# What takes long there and depends on the kernel least: with FULL=1 only.
VM_TESTS    := $(patsubst tests/%.c,$(OUT)/tests/%,$(wildcard tests/vm/test_*.c))
VM_LONG     := $(if $(filter 1,$(FULL)),,bpf/test_limits net/test_meter_handover net/test_meter_pins)
VM_ELSEWHERE := $(patsubst %,$(OUT)/tests/%,net/test_meter net/test_meter_raise net/test_meter_routing net/test_meter_senders net/test_wg_messages net/test_wg_uapi $(VM_LONG))
VM_PROGRAMS := $(filter-out $(VM_ELSEWHERE),$(filter $(OUT)/tests/bpf/% $(OUT)/tests/net/%,$(UNIT_TESTS))) $(VM_TESTS)
# Of two kernels, the first leaves limits on aggregates to the second, and that has what depends on it most; with FULL=1 all.
VM_FIRST    := $(filter-out $(if $(filter 1,$(FULL)),,%/vm/test_aggregate_limits),$(VM_PROGRAMS))
VM_NEXT     := $(if $(filter 1,$(FULL)),$(VM_PROGRAMS),$(filter %/bpf/test_programs %/net/test_meter_hooks %/net/test_meter_segments,$(VM_PROGRAMS)) $(VM_TESTS))

# ---- programs -------------------------------------------------------------------------------------------
$(OUT)/bin/wiretoll-agent: $(AGENT_OBJ) $(LIBS_AGENT)
$(OUT)/bin/wiretoll-agent: LIBS = $(AGENT_LIBS)
$(OUT)/bin/wiretoll-api: $(API_OBJ) $(LIBS_API)
$(OUT)/bin/wiretoll-api: LIBS = $(API_LIBS)
$(OUT)/bin/wiretoll-deployd: $(DEPLOY_OBJ) $(LIBS_API)
$(OUT)/bin/wiretoll-deployd: LIBS = $(API_LIBS) -lseccomp
$(OUT)/bin/wiretoll: $(CLI_OBJ) $(CLI_RECORDS) $(LIBS_CLI)
$(OUT)/bin/wiretoll: LIBS = $(CLI_LIBS)

$(PROGRAMS):
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)

$(call lib,base): $(BASE_OBJ)
$(call lib,meter): $(METER_OBJ)
$(call lib,wg): $(WG_OBJ)
$(call lib,net): $(NET_OBJ)
$(call lib,journal): $(JOURNAL_OBJ)
$(call lib,standalone): $(STANDALONE_OBJ)
$(call lib,store): $(STORE_OBJ)
# What the unit tests need of the programs: all but their main files.
$(call lib,agent): $(filter-out %/main.o,$(AGENT_OBJ))
$(call lib,api): $(filter-out %/main.o,$(API_OBJ))
$(call lib,cli): $(filter-out %/main.o,$(CLI_OBJ))
$(call lib,deploy): $(filter-out %/main.o,$(DEPLOY_OBJ))
$(OUT)/lib/%.a:
	$(call say,AR,$@)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && ar rcs $@ $^

$(OUT)/obj/%.o: %.c | $(GENERATED)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# ---- BPF ------------------------------------------------------------------------------------------------
$(OUT)/bpf/%.bpf.o: bpf/%.bpf.c
	$(call say,BPF,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPFFLAGS) -MMD -MP -c -o $@ $<
	$(Q)llvm-strip -g $@
# Kept, not deleted as a step on the way to the skeleton; -g strips DWARF and leaves BTF.
.PRECIOUS: $(OUT)/bpf/%.bpf.o

$(OUT)/gen/%.skel.h: $(OUT)/bpf/%.bpf.o
	$(call say,SKEL,$@)
	@mkdir -p $(@D)
	$(Q)$(BPFTOOL) gen skeleton $< name $(notdir $*)_bpf > $@

# ---- the benchmark --------------------------------------------------------------------------------------
BENCH_OBJ   := $(filter-out %.bpf.o,$(call objects,bench))
BENCH_SKELS := $(patsubst %.bpf.c,$(OUT)/gen/%.skel.h,$(wildcard bench/*.bpf.c))

$(OUT)/bpf/bench/%.bpf.o: bench/%.bpf.c
	$(call say,BPF,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(BPFFLAGS) -MMD -MP -c -o $@ $<
	$(Q)llvm-strip -g $@
.PRECIOUS: $(OUT)/bpf/bench/%.bpf.o

$(BENCH_OBJ): CPPFLAGS += -I$(OUT)/gen/bench
$(BENCH_OBJ): | $(BENCH_SKELS)
$(OUT)/bench/bench: $(BENCH_OBJ) $(call lib,meter) $(call lib,net) $(call lib,base)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(METER_LIBS) -lgnutls -lsodium -lm -pthread

# The programs of an earlier commit, to be measured beside these. Without the history there is nothing to compare with.
BASE        ?= eabc50a
BASE_OBJECT := build/base/$(BASE)/build/bpf/meter.bpf.o
EARLIER      = $(if $(shell git rev-parse -q --verify '$(BASE)^{commit}' 2>/dev/null),$(BASE_OBJECT))
$(BASE_OBJECT):
	@mkdir -p build/base/$(BASE)
	$(Q)git archive $(BASE) Makefile bpf include | tar -x -C build/base/$(BASE)
	$(Q)$(MAKE) --no-print-directory -C build/base/$(BASE) build/bpf/meter.bpf.o

# All of it takes a minute to build: only for the part that runs it.
BASE_API     = build/base/$(BASE)-api/build/bin/wiretoll-api
EARLIER_API  = $(if $(EARLIER),$(if $(filter neighbour,$(or $(PARTS),$(if $(filter 1,$(QUICK)),,neighbour))),$(BASE_API)))
$(BASE_API):
	@mkdir -p build/base/$(BASE)-api
	$(Q)git archive $(BASE) | tar -x -C build/base/$(BASE)-api
	$(Q)$(MAKE) --no-print-directory -C build/base/$(BASE)-api build/bin/wiretoll-api

RUN_BENCH    = $(PYTHON) bench/run.py --program $(OUT)/bench/bench --json build/bench.json --base '$(BASE)' \
	$(if $(EARLIER),--builds $(EARLIER) $(OUT)/bpf/meter_typed.bpf.o $(OUT)/bpf/meter.bpf.o) \
	$(if $(EARLIER_API),--earlier $(dir $(EARLIER_API))) \
	$(if $(filter 1,$(QUICK)),--quick) $(if $(filter 1,$(UPDATE_DOCS)),--docs docs/performance) \
	$(if $(filter 1,$(LONG)),--long) $(if $(PARTS),--parts $(PARTS))

.PHONY: bench
bench: deps ## measure the meter beside others (QUICK=1, LONG=1, UPDATE_DOCS=1, PARTS="…", BASE=COMMIT); writes build/bench.json; needs root
	@$(RUN_BENCH) --check
	@$(MAKE) --no-print-directory $(OUT)/bench/bench all $(EARLIER) $(EARLIER_API)
	@$(RUN_BENCH)

# ---- the migrations, embedded in the API ----------------------------------------------------------------
$(OUT)/gen/migrations.h: $(MIGRATIONS) api/store/embed.sh
	$(call say,SQL,$@)
	@mkdir -p $(@D)
	$(Q)bash api/store/embed.sh $(MIGRATIONS) > $@

# ---- tests ----------------------------------------------------------------------------------------------
TEST_LIBS := $(foreach l,agent api cli deploy standalone store journal meter wg net base,$(call lib,$l))
FUZZ_PACKETS := $(OUT)/tests/fuzz/packets
$(UNIT_TESTS) $(VM_TESTS) $(FUZZ_PACKETS): $(OUT)/tests/%: $(OUT)/obj/tests/%.o $(TEST_LIBS)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(ALL_LIBS) -lcmocka
$(VM_TESTS): $(call lib,vm)
$(call lib,vm): $(filter-out $(OUT)/obj/tests/vm/test_%,$(call objects,tests/vm))

.PHONY: test-programs vm-programs
test-programs: $(UNIT_TESTS) $(FUZZ_PACKETS)
vm-programs: $(VM_PROGRAMS)

deps: ## install every package that building, testing and running need (apt-get)
	@bash tests/deps.sh

test: deps ## install what is missing, build, and run every test; needs root
	@bash tests/run.sh

test-vm: deps ## the meter on the kernels of Debian 12 and 13 with the real WireGuard, in qemu; KERNEL=newest|linux-image-…: another; FULL=1: longer
	@$(MAKE) --no-print-directory vm-programs
	@FULL=$(FULL) setpriv --pdeathsig KILL bash tests/vm/run.sh $(or $(KERNEL),6.1) $(if $(KERNEL),$(VM_PROGRAMS),$(VM_FIRST))
	@$(if $(KERNEL),,FULL=$(FULL) setpriv --pdeathsig KILL bash tests/vm/run.sh 6.12 $(VM_NEXT))
	@$(MAKE) --no-print-directory $(OUT)/bin/wiretoll-agent $(OUT)/bin/wiretoll-api
	@KERNEL=$(KERNEL) bash tests/vm/crash.sh

.PHONY: test-release
test-release: ## both commands of the README in a bare root: RELEASE=trixie or bookworm; SUITES="unit api": these only; needs root
	@bash tests/release.sh "$(RELEASE)" $(SUITES)

demo: deps ## the main job, end to end, on real packets; needs root
	@$(MAKE) --no-print-directory all
	@bash tests/demo/run.sh

.PHONY: model
model: deps ## check the protocols of limits and of reports exhaustively, with spin
	@bash tests/model/run.sh

.PHONY: soak
soak: deps ## kill and break everything under traffic, 2,000 times (SHORT=1: 60); SEED=N repeats; needs root
	@$(MAKE) --no-print-directory all
	@bash tests/soak/run.sh $(if $(filter 1,$(SHORT)),short)

.PHONY: mutation
mutation: deps ## put five known bugs back, one after the other: the suite must notice each; needs root
	@$(MAKE) --no-print-directory all
	@$(PYTHON) tests/mutation/run.py

# ---- fuzzing: clang's, in a tree of its own ---------------------------------------------------------------
FUZZ_OUT     := build/fuzz
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,$(FUZZ_OUT)/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SOURCES := $(wildcard $(addsuffix /*.c,userspace/base userspace/journal)) $(addprefix userspace/,wg/device.c wg/netlink_write.c \
                cli/options.c cli/values.c) $(addprefix userspace/standalone/,amount.c history.c history_file.c names.c) \
                $(addprefix api/billing/,report.c records.c samples.c fields.c) api/resources/form.c
FUZZ_OBJ     := $(patsubst %.c,$(FUZZ_OUT)/obj/%.o,$(FUZZ_SOURCES))
FUZZ_SAN     := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# Sections of their own, so that what a parser's file has beside the parser needs no libraries.
FUZZ_CFLAGS  := -std=gnu17 -O1 -g -Wall -Wextra -Werror -Wshadow -ffunction-sections -fdata-sections $(FUZZ_SAN)
.SECONDARY: $(FUZZ_OBJ)

$(FUZZ_OUT)/obj/%.o: %.c
	$(call say,FUZZ,$<)
	@mkdir -p $(@D)
	$(Q)$(CLANG) $(CPPFLAGS) $(PKG_CFLAGS) $(FUZZ_CFLAGS) -MMD -MP -c -o $@ $<

$(FUZZ_TARGETS): $(FUZZ_OUT)/%: $(FUZZ_OUT)/obj/tests/fuzz/%.o $(FUZZ_OBJ)
	$(call say,LINK,$@)
	$(Q)$(CLANG) -fsanitize=fuzzer,address,undefined -Wl,--gc-sections -Wl,-z,start-stop-gc -o $@ $^ -lnl-genl-3 -lnl-3 -ljansson -lsodium

.PHONY: fuzz fuzz-programs
fuzz-programs: $(FUZZ_TARGETS)

fuzz: deps ## break the parsers and the meter: SECONDS=N of each target (600); needs root
	@$(MAKE) --no-print-directory fuzz-programs $(FUZZ_PACKETS) all
	@tests/envelope.sh bash tests/fuzz/run.sh $(or $(SECONDS),600)

# ---- upkeep ---------------------------------------------------------------------------------------------
C_FILES := $(shell git ls-files '*.c' '*.h' 2>/dev/null)
HEADERS := $(filter %.h,$(filter-out bpf/%,$(C_FILES)))

# Versions of clang-format differ in a few places: the style is what Debian 12's makes of it.
lint: check-headers all ## formatting, headers, shell and house rules
	@if clang-format --version | grep -q 'version 14\.'; then clang-format --dry-run --Werror $(C_FILES); \
	else echo "lint: formatting is not checked: that needs clang-format 14, the one of Debian 12"; fi
	@bash tests/lint.sh
	@bash tests/circles.sh $(OUT)/obj

format: ## rewrite the C files in the project's style, with clang-format 14
	@clang-format -i $(C_FILES)

check-headers: $(GENERATED) ## every header compiles alone
	@for header in $(HEADERS); do \
		$(CC) $(CPPFLAGS) $(PKG_CFLAGS) $(filter-out -D_FORTIFY_SOURCE=2,$(CFLAGS)) -fsyntax-only -x c "$$header" \
			-Wno-pragma-once-outside-header || { echo "$$header does not compile alone"; exit 1; }; \
	done

# Units name the folders that they were installed to. The gateway's sysctls are applied by the agent's unit, not at boot:
# a control plane is no router.
UNITS      := $(notdir $(wildcard dist/systemd/*))
install: all ## copy programs, systemd's units and documents to DESTDIR/PREFIX
	install -d $(DESTDIR)$(SYSCONFDIR)/iproute2/rt_protos.d
	install -d $(addprefix $(DESTDIR),$(BINDIR) $(LIBDIR)/wiretoll $(foreach d,systemd/system sysusers.d tmpfiles.d,$(LIBDIR)/$d) $(DOCDIR)/operate)
	install -m 0755 $(PROGRAMS) $(DESTDIR)$(BINDIR)/
	for unit in $(UNITS); do \
		sed -e 's|@BINDIR@|$(BINDIR)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@DOCDIR@|$(DOCDIR)|g' \
			"dist/systemd/$$unit" > "$(DESTDIR)$(LIBDIR)/systemd/system/$$unit"; \
	done
	install -m 0755 dist/backoff $(DESTDIR)$(LIBDIR)/wiretoll/
	install -m 0644 dist/gateway.conf $(DESTDIR)$(LIBDIR)/wiretoll/
	install -m 0644 dist/sysusers.d/wiretoll.conf $(DESTDIR)$(LIBDIR)/sysusers.d/
	install -m 0644 dist/tmpfiles.d/wiretoll.conf $(DESTDIR)$(LIBDIR)/tmpfiles.d/
	install -m 0644 dist/rt_protos.d/wiretoll.conf $(DESTDIR)$(SYSCONFDIR)/iproute2/rt_protos.d/
	install -m 0644 docs/meter.md docs/backup.md $(DESTDIR)$(DOCDIR)/
	install -m 0644 docs/operate/*.md $(DESTDIR)$(DOCDIR)/operate/

clean: ## remove build/
	rm -rf build

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24
	@echo "  variables: V=1 (show commands), SANITIZE=1 (ASan and UBSan), DESTDIR, PREFIX"

-include $(EVERY_OBJ:.o=.d) $(BENCH_OBJ:.o=.d) $(wildcard $(OUT)/bpf/bench/*.d) $(patsubst $(OUT)/tests/%,$(OUT)/obj/tests/%.d,$(UNIT_TESTS)) $(wildcard $(OUT)/obj/tests/vm/*.d) $(wildcard $(OUT)/bpf/*.d) $(FUZZ_PACKETS:$(OUT)/%=$(OUT)/obj/%.d) $(FUZZ_OBJ:.o=.d) $(patsubst $(FUZZ_OUT)/%,$(FUZZ_OUT)/obj/tests/fuzz/%.d,$(FUZZ_TARGETS))
