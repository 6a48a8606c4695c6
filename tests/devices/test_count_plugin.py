"""The counting plugin without QEMU: which kind an instruction is, and what its caches miss."""

from __future__ import annotations

import json
import subprocess

import pytest
from _helpers.emulation import needs_compiler

from edgekit.devices.emulation import tools
from edgekit.devices.emulation.folders import PLUGIN_SOURCE

pytestmark = needs_compiler

HARNESS = f"""
#include "{PLUGIN_SOURCE}"
/* What QEMU would bring. */
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, translated_fn call) {{ (void)id, (void)call; }}
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int op, void *to, uint64_t by) {{}}
void qemu_plugin_reset(plugin_id id, reset_fn call) {{ call(id); }}
/* Callbacks of the last block, in the order in which they are called. */
static struct {{ executed_fn call; void *data; }} registered[8];
static int registered_count;
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, executed_fn call, int r, void *data) {{
    registered[registered_count].call = call, registered[registered_count++].data = data;
}}
static uint64_t block_address;
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb) {{ return block_address; }}
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *at, accessed_fn call, int r, int rw, void *data) {{}}
void qemu_plugin_register_vcpu_syscall_cb(plugin_id id, syscall_fn call) {{ (void)id, (void)call; }}
void qemu_plugin_register_vcpu_syscall_ret_cb(plugin_id id, returned_fn call) {{ (void)id, (void)call; }}
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb) {{ return tb == NULL; }}
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t at) {{ return NULL; }}
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *at) {{ return at; }}
/* "t ADDRESS" touches; "s NUMBER RESULT A1 A2 A3 A4" is a system call. Prints the pages after each, and the peak. */
static int memory(FILE *script) {{
    unsigned long long number, result, a[4];
    char what;
    while (fscanf(script, " %c", &what) == 1) {{
        if (what == 't' && fscanf(script, "%llx", &a[0]) == 1) {{
            accessed(0, 3, a[0], NULL);
        }} else if (fscanf(script, "%llu %llx %llx %llx %llx %llx", &number, &result, a, a + 1, a + 2, a + 3) == 6) {{
            on_syscall(0, 0, number, a[0], a[1], a[2], a[3], 0, 0, 0, 0);
            on_return(0, 0, number, (int64_t)result);
        }}
        printf("%llu\\n", (unsigned long long)pages);
    }}
    printf("%llu\\n", (unsigned long long)peak_pages);
    return 0;
}}
/*
 * "b ADDRESS LAST_WORD INSTRUCTIONS" executes a block, whose accesses are "t ADDRESS" before it. Prints the regions.
 */
static int parallel(FILE *script) {{
    unsigned long long address, word, instructions;
    char what;
    while (fscanf(script, " %c", &what) == 1) {{
        if (what == 't' && fscanf(script, "%llx", &address) == 1) {{
            accessed(0, 3, address, NULL);
        }} else if (fscanf(script, "%llx %llx %llu", &address, &word, &instructions) == 3) {{
            block_address = address, registered_count = 0;
            observe(NULL, (uint32_t)word);
            for (int i = 0; i < registered_count; i++) {{
                registered[i].call(0, registered[i].data);
            }}
            struct block *block = calloc(1, sizeof *block);
            *block = (struct block){{.runs = 1, .instructions = instructions, .next = blocks}};
            blocks = block;
        }}
    }}
    out = stdout;
    write_regions();
    return 0;
}}
int main(int argc, char **argv) {{
    if (argc > 1 && strcmp(argv[1], "parallel") == 0) {{
        for (int i = 2; i < argc; i++) {{
            if (!take_argument(argv[i])) {{
                return 3;
            }}
        }}
        regions = malloc(MAX_REGIONS * sizeof *regions);
        library_base = 0x10000;
        return parallel(stdin);
    }}
    if (argc > 1 && strcmp(argv[1], "memory") == 0) {{
        return memory(stdin);
    }}
    if (argc > 1 && argv[1][0] == 'l') {{
        int arguments = 0;
        while (arguments + 1 < argc && argv[1 + arguments][0] == 'l') {{
            if (!take_argument(argv[1 + arguments++])) {{
                return 3;
            }}
        }}
        for (int i = 1 + arguments; i < argc; i++) {{
            unsigned long long address, bytes_log2;
            sscanf(argv[i], "%llx:%llu", &address, &bytes_log2);
            accessed(0, (uint32_t)bytes_log2, address, NULL);
        }}
        printf("%llu %llu\\n", (unsigned long long)caches[0].misses, (unsigned long long)caches[1].misses);
        return 0;
    }}
    for (int i = 1; i < argc; i++) {{
        printf("%s\\n", KIND_NAMES[kind_of((uint32_t)strtoul(argv[i], NULL, 16))]);
    }}
}}
"""

# Words as an assembler makes them; Arm Architecture Reference Manual for A-profile, DDI 0487, C6 and C7.
WORDS = {
    "loads": {
        "ldr q0, [x0]": 0x3DC00000,
        "ldr d0, [x0]": 0xFD400000,
        "ldr x0, [x1]": 0xF9400020,
        "ldrsw x0, [x1]": 0xB9800020,
        "ldrb w0, [x1]": 0x39400020,
        "ldr x0, [x1, x2]": 0xF8626820,
        "ldp q0, q1, [x0]": 0xAD400400,
        "ldp x0, x1, [x2]": 0xA9400440,
        "ld1 {v0.4s}, [x0]": 0x4C407800,
        "ld1r {v0.4s}, [x0]": 0x4D40C800,
        "ldr x0, 8": 0x58000040,
        "ldr q0, 16": 0x9C000080,
    },
    "stores": {
        "str q0, [x0]": 0x3D800000,
        "str d0, [x0]": 0xFD000000,
        "str x0, [x1]": 0xF9000020,
        "strb w0, [x1]": 0x39000020,
        "stp q0, q1, [x0]": 0xAD000400,
        "st1 {v0.4s}, [x0]": 0x4C007800,
    },
    "branches": {
        "b 0": 0x14000000,
        "b.eq 0": 0x54000000,
        "ret": 0xD65F03C0,
        "cbz x0, 0": 0xB4000000,
        "svc 0": 0xD4000001,
    },
    "fmla": {
        "fmla v0.4s, v1.4s, v2.4s": 0x4E22CC20,
        "fmls v0.4s, v1.4s, v2.4s": 0x4EA2CC20,
        "fmla v0.4s, v1.4s, v2.s[0]": 0x4F821020,
        "fmla v0.8h, v1.8h, v2.8h": 0x4E420C20,
        "fmadd s0, s1, s2, s3": 0x1F020C20,
    },
    "dot": {
        "sdot v0.4s, v1.16b, v2.16b": 0x4E829420,
        "udot v0.4s, v1.16b, v2.16b": 0x6E829420,
        "sdot v0.4s, v1.16b, v2.4b[0]": 0x4F82E020,
        "smmla v0.4s, v1.16b, v2.16b": 0x4E82A420,
    },
    "simd": {
        "smlal v0.8h, v1.8b, v2.8b": 0x0E228020,
        "add v0.4s, v1.4s, v2.4s": 0x4EA28420,
        "fadd v0.4s, v1.4s, v2.4s": 0x4E22D420,
        "fmul v0.4s, v1.4s, v2.4s": 0x6E22DC20,
    },
    "other": {
        "add x0, x1, x2": 0x8B020020,
        "mov x0, 1": 0xD2800020,
        "prfm pldl1keep, [x0]": 0xF9800000,
    },
}


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """Runs the plugin's own functions."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "harness.c").write_text(HARNESS)
    command = [tools.COMPILER.path(), "-O1", "-std=c11", "-w"]
    subprocess.run([*command, "-o", folder / "harness", folder / "harness.c"], check=True)

    def run(*words, script=""):
        process = subprocess.run([folder / "harness", *words], check=True, capture_output=True, text=True, input=script)
        return process.stdout.split()

    return run


def test_the_plugin_compiles_without_a_warning(tmp_path):
    command = [tools.COMPILER.path(), "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", PLUGIN_SOURCE]
    subprocess.run([*command, "-o", tmp_path / "plugin.so"], check=True)


@pytest.mark.parametrize("kind", WORDS)
def test_each_instruction_is_of_its_kind(harness, kind):
    kinds = harness(*(f"{word:08x}" for word in WORDS[kind].values()))
    assert dict(zip(WORDS[kind], kinds, strict=True)) == dict.fromkeys(WORDS[kind], kind)


def misses(harness, *accesses, levels=("l1=128:1", "l2=256:2")):
    """L1 of two lines, one way; L2 of four lines, two ways."""
    return [int(text) for text in harness(*levels, *(f"{address:x}:{size}" for address, size in accesses))]


def test_a_line_misses_once_and_then_hits(harness):
    assert misses(harness, (0, 2), (60, 2), (0, 4)) == [1, 1]


def test_an_access_across_a_line_s_end_touches_both(harness):
    assert misses(harness, (60, 4)) == [2, 2]


def test_what_falls_out_of_the_first_level_is_found_in_the_second(harness):
    assert misses(harness, (0, 3), (128, 3), (0, 3), (128, 3)) == [4, 2]


def test_the_least_recently_used_line_of_a_set_falls_out_first(harness):
    # 0, 128 and 256 share a set of the second level; 0 was used after 128, so that 128 makes room for 256.
    assert misses(harness, (0, 3), (128, 3), (0, 3), (256, 3), (0, 3)) == [5, 3]
    assert misses(harness, (0, 3), (128, 3), (0, 3), (256, 3), (128, 3)) == [5, 4]


@pytest.mark.parametrize("text", ["l1=100:1", "l1=128", "l1=128:0", "l9=128:1", "l1=x:1"])
def test_a_cache_that_cannot_be_is_refused(harness, text):
    with pytest.raises(subprocess.CalledProcessError):
        harness(text)


READ, BRK, MUNMAP, MREMAP, MMAP, MADVISE = 63, 214, 215, 216, 222, 233
HIGH = 0x7F0000000000
FAILED = 2**64 - 12
FIXED, DONTNEED = 0x10, 4


def touch(address):
    return f"t {address:x}"


def system_call(number, result, *arguments):
    padded = (*arguments, *[0] * (4 - len(arguments)))
    return f"s {number} {' '.join(f'{value:x}' for value in (result, *padded))}"


@pytest.mark.parametrize(
    ("events", "pages"),
    [
        ([touch(0), touch(8), touch(4095), touch(4096), touch(HIGH)], [1, 1, 1, 2, 3]),
        # what is given back is no longer held, also in the middle, and may be touched again
        ([touch(HIGH + 4096 * i) for i in range(3)] + [system_call(MUNMAP, 0, HIGH + 4096, 4096)], [1, 2, 3, 2]),
        ([touch(HIGH), system_call(MUNMAP, 0, HIGH, 4096), touch(HIGH)], [1, 0, 1]),
        ([touch(HIGH), system_call(MADVISE, 0, HIGH, 1, DONTNEED), touch(HIGH)], [1, 0, 1]),
        ([touch(HIGH), system_call(MADVISE, 0, HIGH, 4096, 3)], [1, 1]),
        # a range that is larger than any table, with something of it on either side of 128 MiB
        ([touch(HIGH), touch(HIGH + 2**28), system_call(MUNMAP, 0, HIGH, 2**40), touch(0)], [1, 2, 0, 1]),
        # another mapping in the place of one
        ([touch(HIGH), system_call(MMAP, HIGH, HIGH, 4096, 3, 0)], [1, 1]),
        ([touch(HIGH), system_call(MMAP, HIGH, HIGH, 4096, 3, FIXED)], [1, 0]),
        # what moves is held elsewhere, and nothing where it was
        ([touch(HIGH), system_call(MREMAP, 2**32, HIGH, 4096, 8192), touch(2**32), touch(HIGH)], [1, 1, 1, 2]),
        ([touch(HIGH + 4096), system_call(MREMAP, HIGH, HIGH, 8192, 4096)], [1, 0]),
        ([touch(HIGH), system_call(MREMAP, FAILED, HIGH, 4096, 8192), touch(HIGH)], [1, 1, 1]),
        # the heap
        ([system_call(BRK, 0x5000), touch(0x4000), system_call(BRK, 0x4000), touch(0x3FFF)], [0, 1, 0, 1]),
        # what the kernel writes
        ([system_call(READ, 5000, 3, HIGH + 4000, 9999), system_call(READ, FAILED, 3, 0, 9999)], [3, 3]),
    ],
)
def test_pages_are_held_from_when_they_are_touched_until_they_are_given_back(harness, events, pages):
    *held, peak = map(int, harness("memory", script="\n".join(events)))
    assert held == pages
    assert peak == max(pages)


BLR, RET, ADD = 0xD63F0100, 0xD65F03C0, 0x8B020020
TASK = 0x99000


def block(address, word, instructions):
    return f"b {address:x} {word:x} {instructions}"


def regions_of(harness, *events, arguments=("l1=128:1", "more=256:2", "loop=100:200", "loop=200:300")):
    printed = " ".join(harness("parallel", *arguments, script="\n".join(events)))
    return json.loads(printed.partition(": ")[2])


def test_a_call_of_a_function_of_the_thread_pool_is_a_region_with_its_tasks_and_work(harness):
    """Two tasks, each called by a block of the loop; the last block of the region is the one that returns."""
    task = [block(0x10120, BLR, 5), f"t {0:x}", block(TASK, RET, 1000)]
    events = [block(0x50, ADD, 7), block(0x10100, ADD, 10), *task, *task, block(0x10180, RET, 3), block(0x50, ADD, 7)]
    assert regions_of(harness, *events) == [[0, 2, 2020, 1, 1]]


def test_work_outside_of_the_thread_pool_is_in_no_region(harness):
    assert regions_of(harness, block(TASK, RET, 1000), block(0x10180, RET, 3), block(0x10120, BLR, 3)) == []


def test_what_a_task_calls_of_the_thread_pool_belongs_to_its_region(harness):
    inner = [block(0x10200, BLR, 1), block(TASK, RET, 10), block(0x10280, RET, 1)]
    events = [block(0x10100, BLR, 1), *inner, block(0x10180, RET, 1)]
    assert regions_of(harness, *events) == [[0, 1, 13, 0, 0]]


@pytest.mark.parametrize("text", ["loop=200:100", "loop=x", "more=100:1", "more=256:2:100:1"])
def test_a_function_or_a_cache_that_cannot_be_is_refused(harness, text):
    with pytest.raises(subprocess.CalledProcessError):
        harness("parallel", text)
