"""The generated reference: nothing public is missing from it."""

import sys
import tomllib

import click
import pytest
from _helpers.documented_commands import REPOSITORY
from _helpers.support import call

sys.path.insert(0, str(REPOSITORY / "docs" / "_hooks"))

import cli_reference
import code_reference
import key_reference
from undocumented import Undocumented

PAGES = cli_reference.pages()


@pytest.mark.parametrize("name", [name for name, _ in cli_reference.commands()])
def test_every_public_option_of_every_command_is_in_the_reference(name: str) -> None:
    text = PAGES[f"reference/cli/{name.split()[0]}.md"]() + PAGES["reference/cli/index.md"]()
    command = next(item for full, item in cli_reference.commands() if full == name)
    flags = [flag for item in command.get_params(click.Context(command)) if not getattr(item, "hidden", False)
             for flag in item.opts if flag.startswith("-") and flag not in ("-h",)]  # fmt: skip
    missing = [flag for flag in flags if f"`{flag}`" not in text and f"`{flag} " not in text]
    assert not missing
    assert f"# edgekit {name}\n" in text


def test_the_reference_has_the_commands_that_the_help_lists() -> None:
    listed = call("--help").out.partition("Commands:")[2].split("\n\n")[0]
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "]
    assert names
    assert {f"reference/cli/{name}.md" for name in names} <= set(PAGES)


def test_former_names_of_options_are_told() -> None:
    assert "former name: `--hard`" in PAGES["reference/cli/validate.md"]()
    assert "former name: `--blame`" in PAGES["reference/cli/diff.md"]()


def test_an_option_without_help_fails_the_build() -> None:
    @click.command("silent", help="Say nothing.")
    @click.option("--mute", is_flag=True)
    def silent(mute: bool) -> None: ...

    with pytest.raises(Undocumented, match="--mute has no help text"):
        cli_reference._option_table("edgekit silent", cli_reference._options(silent))


@pytest.mark.parametrize("file", ["edgekit.toml", "model.toml", "device profile", "recipe.json"])
def test_every_key_of_a_file_is_described(file: str) -> None:
    text = key_reference.keys(file)
    for key in key_reference.all_keys(file):
        assert f"| `{key.rpartition('.')[2]}` |" in text


def test_a_key_without_a_description_fails_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    described = dict(key_reference._descriptions())
    described["recipe.json"] = {key: text for key, text in described["recipe.json"].items() if key != "float_layers"}
    monkeypatch.setattr(key_reference, "_descriptions", lambda: described)
    with pytest.raises(Undocumented, match="the key float_layers is not described"):
        key_reference.keys("recipe.json")


def test_a_description_of_a_key_that_is_gone_fails_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    described = dict(key_reference._descriptions())
    described["recipe.json"] = {**described["recipe.json"], "colour": "Of the layers."}
    monkeypatch.setattr(key_reference, "_descriptions", lambda: described)
    with pytest.raises(Undocumented, match="colour"):
        key_reference.keys("recipe.json")


def test_records_list_their_keys_and_versions() -> None:
    pytest.importorskip("griffe")
    text = key_reference.records()
    assert "| `not_reproducible_because` |" in text
    assert "Schema version" in text


def test_exit_codes_and_error_types_are_listed() -> None:
    text = code_reference.exit_codes()
    assert "| 130 |" in text
    assert "`StepOutOfMemory`" in text


def test_environment_variables_are_those_that_the_code_reads() -> None:
    assert "`EDGEKIT_CACHE`" in code_reference.environment()


def test_every_extra_is_described() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as stream:
        extras = tomllib.load(stream)["project"]["optional-dependencies"]
    text = code_reference.extras()
    assert all(f"| `{name}` |" in text for name in extras)


def test_sections_that_are_read_off_the_code_have_content() -> None:
    assert "`edgekit.core`" in code_reference.layers()
    assert "`edgekit.targets`" in code_reference.plugin_groups()
    assert "::: edgekit.contracts.target" in code_reference.contracts()
    assert "| `int8` |" in code_reference.tolerances()
    assert code_reference.python_api()
