"""Folders that `save_pretrained` of transformers writes, as sources."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgekit.contracts.source import UserModel
from edgekit.core.errors import InputError
from edgekit.sources._key_value_caches import CACHE_NOTE
from edgekit.sources._pretrained_folder import is_pretrained_folder
from edgekit.sources.torch import SOURCE
from edgekit.stages.models.model_refs import kind_of

IDS = np.arange(12, dtype=np.int64).reshape(2, 6)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a small GPT-2 of random weights, and the logits of its network."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1)
    model = GPT2LMHeadModel(config).eval()
    folder = tmp_path_factory.mktemp("pretrained") / "gpt2"
    model.save_pretrained(folder)
    with torch.no_grad():
        return folder, model(torch.from_numpy(IDS)).logits.numpy()


def copied(folder, to):
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def imported(path, folder):
    folder.mkdir()
    model = UserModel(path, None, None, (), {"input_ids": IDS})
    return *SOURCE.import_model(model, folder), model.notes


@pytest.mark.slow
def test_a_folder_is_imported_with_its_weights_and_nothing_else(saved, tmp_path):
    path, expected = saved
    path = copied(path, tmp_path / "gpt2")
    (path / "modeling.py").write_text("raise SystemExit('executed')")
    assert kind_of(path) == "torch"
    file, signature, notes = imported(path, tmp_path / "source")
    assert notes == [CACHE_NOTE]
    assert [output.name for output in signature.outputs] == ["logits"]
    assert {entry.name for entry in (tmp_path / "source" / file).iterdir()} == {"config.json", "model.safetensors"}
    loaded = SOURCE.load(tmp_path / "source" / file, signature, None).with_examples({"input_ids": IDS})
    np.testing.assert_allclose(loaded._run([IDS])[0], expected, atol=1e-6)


def test_weights_that_the_folder_lacks_are_not_random(saved, tmp_path):
    path = copied(saved[0], tmp_path / "gpt2")
    weights = load_file(path / "model.safetensors")
    dropped = [name for name in weights if ".mlp." in name]
    save_file({name: value for name, value in weights.items() if name not in dropped}, path / "model.safetensors")
    with pytest.raises(InputError, match=r"has no weights for .*mlp.*, which GPT2LMHeadModel has"):
        imported(path, tmp_path / "source")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["OwnModel"]}, "has no model OwnModel; if the folder has code of its own, name code"),
        ({"architectures": ["__init__.py"]}, r"has no model __init__\.py"),
        ({"architectures": ["AutoConfig"]}, "has no model AutoConfig"),
        ({"architectures": None}, "'architectures' must name one class"),
    ],
)
def test_a_configuration_names_a_model_of_transformers(saved, tmp_path, change, message):
    path = copied(saved[0], tmp_path / "gpt2")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=message):
        imported(path, tmp_path / "source")


def test_weights_are_neither_pickles_nor_outside_the_folder(saved, tmp_path):
    path = copied(saved[0], tmp_path / "gpt2")
    weights = path / "model.safetensors"
    (tmp_path / "elsewhere.safetensors").write_bytes(weights.read_bytes())
    weights.unlink()
    (path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="a pickle, which edgekit does not load"):
        imported(path, tmp_path / "first")
    index = {"weight_map": {"transformer.wte.weight": "../elsewhere.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="must map names of weights to files of the folder"):
        imported(path, tmp_path / "second")


@pytest.mark.parametrize("content", ["[]", "{", '{"learning_rate": 0.1}'])
def test_another_config_json_makes_no_model(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert not is_pretrained_folder(tmp_path)
