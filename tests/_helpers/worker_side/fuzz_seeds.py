"""Intact files of each format, which the fuzzer mutates. They are written by their frameworks, in workers."""

from __future__ import annotations

from pathlib import Path

from edgekit.core.events import Listener


def torch_files(folder: str, *, emit: Listener) -> None:
    """Write a TorchScript archive, a lite interpreter file, an exported program and an ExecuTorch program."""
    import torch
    from executorch.exir import to_edge

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = torch.nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.dense(x)).reshape(x.shape[0], 3)

    torch.manual_seed(0)
    net = Net().eval()
    script = torch.jit.script(net)
    script.save(str(Path(folder, "model.pt")))
    script._save_for_lite_interpreter(str(Path(folder, "model.ptl")))
    example = (torch.zeros(2, 4),)
    dynamic = torch.export.export(net, example, dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    torch.export.save(dynamic, Path(folder, "model.pt2"))
    program = to_edge(torch.export.export(net, example)).to_executorch()
    Path(folder, "model.pte").write_bytes(program.buffer)


def keras_files(folder: str, *, emit: Listener) -> None:
    """Write a Keras file and a SavedModel."""
    import keras

    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, activation="relu")(x))
    model.save(Path(folder, "model.keras"))
    model.export(str(Path(folder, "saved_model")), verbose=False)
