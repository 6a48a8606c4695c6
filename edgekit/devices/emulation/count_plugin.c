/*
 * Counts what an arm64 program executes under qemu-aarch64: instructions by kind, the misses of a model of its data
 * caches, and the pages of memory that it holds. A program marks a moment by close(-4242), which fails and does nothing
 * else; at every mark the counts so far are written as one line of JSON. What stands between two marks is the difference
 * of their lines; of pages, the line tells how many there are, and how many there were at most since the last mark.
 *
 * Arguments: out=FILE, and for each cache level l1=BYTES:WAYS, l2=BYTES:WAYS, l3=BYTES:WAYS. A level of no size is absent.
 * more=BYTES:WAYS[:BYTES:WAYS] adds another second and third level behind the same first one, as it is for another number
 * of threads; lines have their misses as l2_misses_N and l3_misses_N, N from 1 on.
 * wait=1 leaves out what runs before close(-4243, BASE), which then comes before the first mark.
 * For each function of a thread pool that runs a loop in parallel, loop=START:END, addresses in the library. close(-4243,
 * BASE) tells where the library is loaded, before the functions first run. Each call of such a function is a region; a
 * line has the regions since the line before, each as [function, tasks, instructions, misses of each cache, misses of
 * the last level of each `more`].
 *
 * Counting assumes one running thread: the counters of several would race.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * QEMU's plugin interface of version 1, as docs/devel/tcg-plugins.rst describes it. Distributions ship QEMU without
 * qemu-plugin.h, so what is used of it is declared here; the loader finds the functions in the emulator itself.
 */
typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translated_fn)(plugin_id, struct qemu_plugin_tb *);
typedef void (*executed_fn)(unsigned vcpu, void *data);
typedef void (*accessed_fn)(unsigned vcpu, uint32_t info, uint64_t address, void *data);
typedef void (*syscall_fn)(plugin_id, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                           uint64_t, uint64_t, uint64_t);
typedef void (*returned_fn)(plugin_id, unsigned vcpu, int64_t number, int64_t value);
enum { INLINE_ADD_U64 = 0, NO_REGISTERS = 0, READS_AND_WRITES = 3 };
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated_fn);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *, uint64_t);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, executed_fn, int registers, void *data);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
extern void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, accessed_fn, int registers, int rw, void *);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, syscall_fn);
extern void qemu_plugin_register_vcpu_syscall_ret_cb(plugin_id, returned_fn);
typedef void (*reset_fn)(plugin_id);
extern void qemu_plugin_reset(plugin_id, reset_fn);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

/* --- instructions ------------------------------------------------------------------------------------------------ */

enum kind { LOADS, STORES, BRANCHES, FMLA, DOT, SIMD, OTHER, KINDS };
static const char *const KIND_NAMES[KINDS] = {"loads", "stores", "branches", "fmla", "dot", "simd", "other"};

/* Arm Architecture Reference Manual for A-profile, DDI 0487, C4.1: A64 instruction set encoding. */

static int is_memory_access(uint32_t word) {
    return (word & 0x0a000000) == 0x08000000;
}

static int is_prefetch(uint32_t word) {  /* PRFM, in its literal, unsigned, unscaled and register forms */
    return (word & 0xff000000) == 0xd8000000 || (word & 0xffc00000) == 0xf9800000 || (word & 0xffc00000) == 0xf8800000;
}

static enum kind memory_kind(uint32_t word) {
    if (is_prefetch(word)) {
        return OTHER;  /* brings nothing into a register */
    }
    if ((word & 0x3b000000) == 0x18000000) {
        return LOADS;  /* load register (literal): there is no such store */
    }
    if ((word & 0x3a000000) == 0x38000000 && (word & 0x04000000) == 0) {
        return (word & 0x00c00000) ? LOADS : STORES;  /* opc of a single general register: 00 stores, 01 1x load */
    }
    return (word & 0x00400000) ? LOADS : STORES;  /* pairs, exclusives, structures, and single vector registers */
}

static enum kind simd_kind(uint32_t word) {
    uint32_t by_element = word & 0xbf00f400;
    if ((word & 0x9f20fc00) == 0x0e009400 || (word & 0x9f00f400) == 0x0f00e000) {
        return DOT;  /* SDOT, UDOT: vector, by element */
    }
    if ((word & 0xdfe0fc00) == 0x4e80a400 || (word & 0xbfe0fc00) == 0x0e809c00 || (word & 0xbf40f400) == 0x0f00f000) {
        return DOT;  /* SMMLA, UMMLA; USDOT, and USDOT and SUDOT by element */
    }
    if ((word & 0xbf20fc00) == 0x0e20cc00) {
        return FMLA;  /* FMLA, FMLS: vectors */
    }
    if ((word & 0xbfe0fc00) == 0x0e400c00 || (word & 0xbfe0fc00) == 0x0ec00c00) {
        return FMLA;  /* the same, half precision */
    }
    if (by_element == 0x0f001000 || by_element == 0x0f005000) {
        return FMLA;  /* FMLA, FMLS: by element */
    }
    return (word & 0xff000000) == 0x1f000000 ? FMLA : SIMD;  /* FMADD and its kin: scalars */
}

static enum kind kind_of(uint32_t word) {
    if (is_memory_access(word)) {
        return memory_kind(word);
    }
    if ((word & 0x1c000000) == 0x14000000) {
        return BRANCHES;  /* with exceptions and system instructions */
    }
    return (word & 0x0e000000) == 0x0e000000 ? simd_kind(word) : OTHER;
}

static FILE *out;

/* A translated block: how often it ran, and what is in it. Kept for good: QEMU may still hold `runs`. */
struct block {
    uint64_t runs;
    uint32_t kinds[KINDS], instructions;
    struct block *next;
};
static struct block *blocks;

/* --- caches ------------------------------------------------------------------------------------------------------ */

enum { LEVELS = 3, LINE_SHIFT = 6 };
#define NO_LINE UINT64_MAX

/* Set-associative, least recently used first out. `lines` holds each set's lines, the most recent first. */
struct cache {
    uint64_t sets, mask, misses;  /* mask: sets - 1 where sets is a power of two, else 0 */
    size_t ways;
    uint64_t *lines;
};
static struct cache caches[LEVELS];

/* Other second and third levels. */
enum { MAX_MORE = 8 };
static struct cache more[MAX_MORE][LEVELS];
static int more_count;

static int hits(struct cache *cache, uint64_t line) {
    /* A division takes as long as all the rest of a hit. */
    uint64_t *set = cache->lines + (cache->mask ? line & cache->mask : line % cache->sets) * cache->ways;
    size_t way = 0;
    if (set[0] == line) {
        return 1;
    }
    while (way < cache->ways && set[way] != line) {
        way++;
    }
    int found = way < cache->ways;
    memmove(set + 1, set, (found ? way : cache->ways - 1) * sizeof *set);
    set[0] = line;
    cache->misses += !found;
    return found;
}

/* --- memory ------------------------------------------------------------------------------------------------------ */

/*
 * Pages of 4 KiB that the program has read or written and has not given back: what a kernel holds in memory for its
 * data. The code that it executes is not among them.
 */
enum { PAGE_SHIFT = 12, CHUNK_SHIFT = 15, CHUNK_PAGES = 1 << CHUNK_SHIFT, WORDS = CHUNK_PAGES / 64, BUCKETS = 1024 };
struct chunk {
    uint64_t number;
    uint64_t words[WORDS];
    struct chunk *next;
};
static struct chunk *chunks[BUCKETS];
static const uint64_t NO_PAGE = UINT64_MAX;
/* Where pages were touched last, by their low bits: nothing is looked up for them. A page is kept as its number + 1. */
enum { KNOWN_PAGES = 1 << 12 };
static uint64_t known_pages[KNOWN_PAGES], last_line = NO_LINE, pages, peak_pages;

static struct chunk *chunk_of(uint64_t number) {
    struct chunk **bucket = &chunks[number % BUCKETS], *chunk = *bucket;
    while (chunk != NULL && chunk->number != number) {
        chunk = chunk->next;
    }
    if (chunk == NULL) {
        chunk = calloc(1, sizeof *chunk);
        if (chunk == NULL) {
            abort();
        }
        chunk->number = number;
        chunk->next = *bucket;
        *bucket = chunk;
    }
    return chunk;
}

static void touch(uint64_t page) {
    uint64_t *known = &known_pages[page % KNOWN_PAGES];
    if (*known == page + 1) {
        return;
    }
    *known = page + 1;
    uint64_t *word = &chunk_of(page >> CHUNK_SHIFT)->words[page % CHUNK_PAGES / 64], bit = 1ull << page % 64;
    if (!(*word & bit)) {
        *word |= bit;
        pages++;
        peak_pages = pages > peak_pages ? pages : peak_pages;
    }
}

/* Gives pages back; where `moved` is one, those that were touched are now pages from there on. */
static void release(uint64_t first, uint64_t end, uint64_t moved) {
    memset(known_pages, 0, sizeof known_pages);
    last_line = NO_LINE;
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {  /* ranges may be huge, chunks are few */
        for (struct chunk *chunk = chunks[bucket]; chunk != NULL; chunk = chunk->next) {
            uint64_t from = chunk->number << CHUNK_SHIFT, to = from + CHUNK_PAGES;
            from = from > first ? from : first;
            to = to < end ? to : end;
            for (uint64_t page = from; page < to; page++) {
                uint64_t *word = &chunk->words[page % CHUNK_PAGES / 64], bit = 1ull << page % 64;
                if (*word == 0) {
                    page |= 63;
                } else if (*word & bit) {
                    *word &= ~bit;
                    pages--;
                    if (moved != NO_PAGE) {
                        touch(moved + (page - first));
                    }
                }
            }
        }
    }
    memset(known_pages, 0, sizeof known_pages);
}

static void release_bytes(uint64_t address, uint64_t bytes) {
    release(address >> PAGE_SHIFT, (address + bytes + (1u << PAGE_SHIFT) - 1) >> PAGE_SHIFT, NO_PAGE);
}

static void accessed(unsigned vcpu, uint32_t info, uint64_t address, void *data) {
    uint64_t first = address >> LINE_SHIFT;
    uint64_t last = (address + (1u << (info & 15)) - 1) >> LINE_SHIFT;  /* the low bits of info: log2 of the size */
    (void)vcpu, (void)data;
    if (first == last_line && last == last_line) {
        return;  /* most accesses: the page is known, and the line is the most recent one of its set */
    }
    last_line = first == last ? first : NO_LINE;
    touch(address >> PAGE_SHIFT);
    for (uint64_t line = first; line <= last; line++) {
        if (caches[0].lines == NULL || hits(&caches[0], line)) {
            continue;
        }
        for (int level = 1; level < LEVELS && caches[level].lines && !hits(&caches[level], line); level++) {
        }
        for (int at = 0; at < more_count; at++) {
            for (int level = 1; level < LEVELS && more[at][level].lines && !hits(&more[at][level], line); level++) {
            }
        }
    }
}

/* 0 when the text is not BYTES:WAYS of a cache that can be. */
static int make_cache(struct cache *cache, const char *text) {
    unsigned long long bytes, ways;
    if (sscanf(text, "%llu:%llu", &bytes, &ways) != 2 || ways == 0 || bytes % (ways << LINE_SHIFT) != 0) {
        return 0;
    }
    if (bytes == 0) {
        return 1;
    }
    cache->ways = ways;
    cache->sets = bytes / (ways << LINE_SHIFT);
    cache->mask = (cache->sets & (cache->sets - 1)) == 0 ? cache->sets - 1 : 0;
    cache->lines = malloc(bytes >> LINE_SHIFT << 3);
    if (cache->lines != NULL) {
        memset(cache->lines, 0xff, bytes >> LINE_SHIFT << 3);  /* no line has this address */
    }
    return cache->lines != NULL;
}

/* --- parallel regions -------------------------------------------------------------------------------------------- */

enum { MAX_LOOPS = 128, MAX_REGIONS = 1 << 16, NOWHERE = -1 };

/* A function of the thread pool, by its addresses in the library. With one thread it calls a task in a loop. */
struct loop {
    uint64_t start, end;
};
static struct loop loops[MAX_LOOPS];
static int counting = 1, loop_count, inside = NOWHERE;
static uint64_t library_base;

/* A call of such a function; of the one that runs, the counts at its start. */
struct region {
    int loop;
    uint64_t tasks, instructions, misses[LEVELS], memory[MAX_MORE];
};
static struct region *regions, running;
static size_t region_count;

static uint64_t executed(void) {
    uint64_t all = 0;
    for (const struct block *block = blocks; block != NULL; block = block->next) {
        all += block->runs * block->instructions;
    }
    return all;
}

static uint64_t memory_misses(const struct cache *levels) {
    uint64_t misses = 0;
    for (int level = 1; level < LEVELS && levels[level].lines; level++) {
        misses = levels[level].misses;
    }
    return misses;
}

static void enters(unsigned vcpu, void *data) {
    (void)vcpu;
    if (inside == NOWHERE) {
        inside = (int)(intptr_t)data;
        running = (struct region){inside, 0, executed(), {0}, {0}};
        for (int at = 0; at < more_count; at++) {
            running.memory[at] = memory_misses(more[at]);
        }
        for (int level = 0; level < LEVELS; level++) {
            running.misses[level] = caches[level].misses;
        }
    }
}

static void calls_task(unsigned vcpu, void *data) {
    (void)vcpu;
    running.tasks += inside == (int)(intptr_t)data;
}

static void leaves(unsigned vcpu, void *data) {
    (void)vcpu;
    if (inside == (int)(intptr_t)data) {
        inside = NOWHERE;
        running.instructions = executed() - running.instructions;
        for (int level = 0; level < LEVELS; level++) {
            running.misses[level] = caches[level].misses - running.misses[level];
        }
        for (int at = 0; at < more_count; at++) {
            running.memory[at] = memory_misses(more[at]) - running.memory[at];
        }
        if (regions != NULL && region_count < MAX_REGIONS) {
            regions[region_count++] = running;
        }
    }
}

/* Registers what a block of the thread pool means: its first instruction enters a loop, its last calls or returns. */
static void observe(struct qemu_plugin_tb *tb, uint32_t last_word) {
    uint64_t address = qemu_plugin_tb_vaddr(tb) - library_base;
    for (int at = 0; library_base != 0 && at < loop_count; at++) {
        void *data = (void *)(intptr_t)at;
        if (address < loops[at].start || address >= loops[at].end) {
            continue;
        }
        if (address == loops[at].start) {
            qemu_plugin_register_vcpu_tb_exec_cb(tb, enters, NO_REGISTERS, data);
        }
        if ((last_word & 0xfffffc1f) == 0xd63f0000) {  /* BLR */
            qemu_plugin_register_vcpu_tb_exec_cb(tb, calls_task, NO_REGISTERS, data);
        } else if ((last_word & 0xfffffc1f) == 0xd65f0000) {  /* RET */
            qemu_plugin_register_vcpu_tb_exec_cb(tb, leaves, NO_REGISTERS, data);
        }
    }
}

static void write_regions(void) {
    int levels = 0;
    while (levels < LEVELS && caches[levels].lines) {
        levels++;
    }
    fprintf(out, ", \"regions\": [");
    for (size_t at = 0; at < region_count; at++) {
        const struct region *region = &regions[at];
        fprintf(out, "%s[%d, %llu, %llu", at ? ", " : "", region->loop, (unsigned long long)region->tasks,
                (unsigned long long)region->instructions);
        for (int level = 0; level < levels; level++) {
            fprintf(out, ", %llu", (unsigned long long)region->misses[level]);
        }
        for (int other = 0; other < more_count; other++) {
            fprintf(out, ", %llu", (unsigned long long)region->memory[other]);
        }
        fprintf(out, "]");
    }
    fprintf(out, "]");
    region_count = 0;
}

/* --- callbacks --------------------------------------------------------------------------------------------------- */

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
    struct block *block = calloc(1, sizeof *block);
    size_t count = qemu_plugin_tb_n_insns(tb);
    uint32_t word = 0;
    (void)id;
    if (block == NULL) {
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(tb, i);
        memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
        block->kinds[kind_of(word)]++;
        if (is_memory_access(word)) {
            qemu_plugin_register_vcpu_mem_cb(instruction, accessed, NO_REGISTERS, READS_AND_WRITES, NULL);
        }
    }
    block->instructions = (uint32_t)count;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &block->runs, 1);
    observe(tb, word);
    block->next = __atomic_exchange_n(&blocks, block, __ATOMIC_ACQ_REL);
}

enum { MARK = -4242, START = -4243, MAP_FIXED = 0x10, MADV_DONTNEED = 4 };
/* Linux, include/uapi/asm-generic/unistd.h: numbers that arm64 shares with other newer architectures. */
enum { CLOSE = 57, READ = 63, PREAD64 = 67, BRK = 214, MUNMAP = 215, MREMAP = 216, MMAP = 222, MADVISE = 233 };

static void write_counts(void) {
    uint64_t kinds[KINDS] = {0}, all = 0;
    for (const struct block *block = blocks; block != NULL; block = block->next) {
        for (int kind = 0; kind < KINDS; kind++) {
            kinds[kind] += block->runs * block->kinds[kind];
        }
    }
    for (int kind = 0; kind < KINDS; kind++) {
        all += kinds[kind];
    }
    fprintf(out, "{\"instructions\": %llu", (unsigned long long)all);
    for (int kind = 0; kind < KINDS; kind++) {
        fprintf(out, ", \"%s\": %llu", KIND_NAMES[kind], (unsigned long long)kinds[kind]);
    }
    for (int level = 0; level < LEVELS && caches[level].lines; level++) {
        fprintf(out, ", \"l%d_misses\": %llu", level + 1, (unsigned long long)caches[level].misses);
    }
    for (int at = 0; at < more_count; at++) {
        for (int level = 1; level < LEVELS && more[at][level].lines; level++) {
            fprintf(out, ", \"l%d_misses_%d\": %llu", level + 1, at + 1, (unsigned long long)more[at][level].misses);
        }
    }
    write_regions();
    fprintf(out, ", \"pages\": %llu, \"peak_pages\": %llu}\n", (unsigned long long)pages, (unsigned long long)peak_pages);
    fflush(out);
    peak_pages = pages;
}

/*
 * Loading Python and the runtime's library takes many times the instructions of a small inference, so nothing is counted
 * before close(-4243): until then, blocks are translated without instrumentation. The pages that the program holds by
 * then come from the kernel; a page of the guest has the same address in QEMU.
 */
static const char *const PAGE_MAP = "/proc/self/pagemap";

static void take_over_pages(void) {
    FILE *maps = fopen("/proc/self/maps", "r"), *map = fopen(PAGE_MAP, "r");
    unsigned long long start, end;
    while (maps != NULL && map != NULL && fscanf(maps, "%llx-%llx%*[^\n]", &start, &end) == 2) {
        if (start >> 63 || fseek(map, (long)((start >> PAGE_SHIFT) * sizeof(uint64_t)), SEEK_SET) != 0) {
            continue;
        }
        for (uint64_t page = start >> PAGE_SHIFT, entry; page < end >> PAGE_SHIFT; page++) {
            if (fread(&entry, sizeof entry, 1, map) == 1 && entry >> 63) {  /* bit 63: present in memory */
                touch(page);
            }
        }
    }
    if (maps != NULL) {
        fclose(maps);
    }
    if (map != NULL) {
        fclose(map);
    }
}

static void observe_all(plugin_id);

static void start_counting(plugin_id id) {
    take_over_pages();
    observe_all(id);
}

static uint64_t given[4], heap_end;

static void on_syscall(plugin_id id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                       uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)vcpu, (void)a5, (void)a6, (void)a7, (void)a8;
    given[0] = a1, given[1] = a2, given[2] = a3, given[3] = a4;
    if (number == CLOSE && (int32_t)a1 == MARK) {
        write_counts();
    } else if (number == CLOSE && (int32_t)a1 == START) {
        library_base = a2;
        if (!counting) {
            counting = 1;
            qemu_plugin_reset(id, start_counting);
        }
    } else if (number == MUNMAP || (number == MADVISE && a3 == MADV_DONTNEED) || (number == MMAP && a4 & MAP_FIXED)) {
        release_bytes(a1, a2);  /* a mapping in the place of another begins untouched */
    }
}

static void on_return(plugin_id id, unsigned vcpu, int64_t number, int64_t value) {
    (void)id, (void)vcpu;
    uint64_t result = (uint64_t)value;
    if ((number == READ || number == PREAD64) && value > 0) {  /* the kernel writes, and no instruction is seen to */
        for (uint64_t page = given[1] >> PAGE_SHIFT; page <= (given[1] + result - 1) >> PAGE_SHIFT; page++) {
            touch(page);
        }
    } else if (number == BRK) {
        if (result < heap_end) {
            release_bytes(result, heap_end - result);
        }
        heap_end = result;
    } else if (number == MREMAP && value > -4096 && value < 0) {
        return;  /* it failed */
    } else if (number == MREMAP && result != given[0]) {
        release(given[0] >> PAGE_SHIFT, (given[0] + given[1]) >> PAGE_SHIFT, result >> PAGE_SHIFT);
    } else if (number == MREMAP && given[2] < given[1]) {
        release_bytes(given[0] + given[2], given[1] - given[2]);
    }
}

static void observe_all(plugin_id id) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, on_return);
}

static int take_argument(const char *argument) {
    if (strncmp(argument, "out=", 4) == 0) {
        out = fopen(argument + 4, "w");
        return out != NULL;
    }
    if (argument[0] == 'l' && argument[1] >= '1' && argument[1] < '1' + LEVELS && argument[2] == '=') {
        return make_cache(&caches[argument[1] - '1'], argument + 3);
    }
    if (strcmp(argument, "wait=1") == 0) {
        counting = access(PAGE_MAP, R_OK) != 0;
        return 1;
    }
    if (strncmp(argument, "more=", 5) == 0 && more_count < MAX_MORE) {
        const char *rest = strchr(argument, ':');
        rest = rest == NULL ? NULL : strchr(rest + 1, ':');
        int made = make_cache(&more[more_count][1], argument + 5) && (!rest || make_cache(&more[more_count][2], rest + 1));
        more_count++;
        return made;
    }
    if (strncmp(argument, "loop=", 5) == 0 && loop_count < MAX_LOOPS) {
        unsigned long long start, end;
        if (sscanf(argument + 5, "%llx:%llx", &start, &end) != 2 || start >= end) {
            return 0;
        }
        loops[loop_count++] = (struct loop){start, end};
        return 1;
    }
    return 0;
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (!take_argument(argv[i])) {
            fprintf(stderr, "count_plugin: bad argument %s\n", argv[i]);
            return 1;
        }
    }
    regions = loop_count ? malloc(MAX_REGIONS * sizeof *regions) : NULL;
    if (out == NULL) {
        fprintf(stderr, "count_plugin: the argument out=FILE is missing\n");
        return 1;
    }
    if (counting) {
        observe_all(id);
    } else {
        qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    }
    return 0;
}
