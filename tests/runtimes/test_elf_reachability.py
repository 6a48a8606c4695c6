"""The computed reachability of code, compared with what a linker keeps."""

import platform
import shutil
import subprocess

import pytest

from edgekit.core.errors import InputError
from edgekit.core.records.section_sizes import Piece
from edgekit.runtimes._elf_reachability import Library

elffile = pytest.importorskip("elftools.elf.elffile")
pytest.importorskip("capstone")
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("gcc") is None, reason="needs gcc for x86-64"
)

SOURCE = """\
#define FAR __attribute__((noinline))
typedef int (*step_t)(int);
extern int puts(const char *);

FAR int doubled(int x) { return x * 2 + 1; }
FAR int squared(int x) { return x * x - 7; }
FAR int unused(int x) { puts("nobody says this"); return x / 3; }
static FAR int hidden(int x) { puts("a message of twenty-six"); return x ^ 5; }
step_t const steps[2] = {doubled, squared};
step_t const others[1] = {unused};
const int numbers[4] = {1, 2, 3, 5};
int entry(int x, int i) { return steps[i](x) + hidden(x) + numbers[i]; }
int recursive(int x) { return x < 1 ? 0 : unused(recursive(x - 1)); }
"""
FLAGS = ["-O1", "-ffunction-sections", "-fdata-sections", "-fcf-protection=none", "-fno-asynchronous-unwind-tables"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("linkage")
    (folder / "library.c").write_text(SOURCE)

    def gcc(name, *words):
        subprocess.run(["gcc", *FLAGS, *words, "-o", folder / name, folder / "library.c"], check=True)
        return folder / name

    return gcc


@pytest.fixture(scope="module")
def library(built):
    return Library(built("library.so", "-shared", "-fPIC"))


def reached(library, *roots, without=()):
    names = {address: name for name, address in library.addresses.items()}
    excluded = frozenset(library.addresses[name] for name in without)
    addresses = library.reached([library.addresses[name] for name in roots], excluded)
    return {names[address] for address in addresses if address in names}, library.measured(addresses)


def linked_symbols(path):
    """Return the names of the source that the linker kept, and the bytes of the functions among them."""
    names = {"doubled", "squared", "unused", "hidden", "entry", "recursive", "steps", "others", "numbers"}
    with path.open("rb") as file:
        table = elffile.ELFFile(file).get_section_by_name(".symtab")
        symbols = {symbol.name: symbol for symbol in table.iter_symbols() if symbol.name in names}
        code = sum(symbol["st_size"] for symbol in symbols.values() if symbol["st_info"]["type"] == "STT_FUNC")
    return set(symbols), code


@pytest.mark.parametrize("root", ["entry", "recursive", "doubled"])
def test_the_same_code_is_reached_as_a_linker_keeps(built, library, root):
    linked = built(f"{root}.so", "-shared", "-fPIC", "-fvisibility=hidden", f"-Wl,--gc-sections,-u,{root},-e,{root}")
    names, size = reached(library, root)
    linked_names, linked_code = linked_symbols(linked)
    assert names == linked_names
    assert size.instructions == linked_code


def test_tables_strings_and_pointers_are_distinguished(library):
    names, size = reached(library, "entry")
    assert names == {"entry", "hidden", "steps", "doubled", "squared", "numbers"}
    assert size == Piece(size.instructions, 4 * 4 + len("a message of twenty-six") + 1, 2)


def test_excluded_functions_are_not_followed(library):
    names, _ = reached(library, "recursive", without=["unused"])
    assert names == {"recursive"}


def test_other_files_are_refused(built, tmp_path):
    text = tmp_path / "text"
    text.write_text("no ELF")
    with pytest.raises(InputError, match="not an ELF file"):
        Library(text)
    with pytest.raises(InputError, match="not an x86-64 library with a symbol table"):
        Library(built("stripped.so", "-shared", "-fPIC", "-s"))
    with pytest.raises(InputError):
        Library(tmp_path / "nowhere")
