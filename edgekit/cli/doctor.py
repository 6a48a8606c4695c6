"""edgekit doctor"""

from __future__ import annotations

import click

from edgekit.cli._common import CommandSession, common


@click.command("doctor", short_help="Show what is installed and what is missing.")
@common
def command(session: CommandSession) -> int:
    """Show what is installed, and what each missing extra would add.

    \b
    Example:
      edgekit doctor
    """
    import platform

    from edgekit import __version__
    from edgekit.core.environment import requirements
    from edgekit.devices import host
    from edgekit.devices.emulation import tools
    from edgekit.reports.console import table

    packages = [
        {
            "package": item.distribution,
            "version": item.version() if item.installed() else None,
            "extra": item.extra,
            "adds": _ADDS[item.extra],
        }
        for item in requirements.ALL
    ]
    absent = [tool.package for tool in tools.ALL if tool.path() is None]
    missing = sorted({str(item["extra"]) for item in packages if item["version"] is None})
    data = {
        "edgekit": __version__,
        "python": platform.python_version(),
        "host": host.description(),
        "cpus": list(host.available_cpus()),
        "packages": packages,
        "missing_tools": absent,
        "missing_extras": {extra: _ADDS[extra] for extra in missing},
    }
    rows = [(str(item["package"]), str(item["version"] or "missing"), f"edgekit[{item['extra']}]") for item in packages]
    lines = [f"edgekit {__version__}, Python {data['python']}, {data['host']}\n"]
    advice = [f"missing: {_ADDS[extra]}; install with: pip install 'edgekit[{extra}]'\n" for extra in missing]
    if absent:
        advice.append(f"missing: the emulated tier; install with: apt-get install {' '.join(absent)}\n")
    session.answer(
        data,
        lambda: "".join(
            [
                *lines,
                table(("package", "version", "comes with"), rows, left=3, color=session.color),
                *(advice or ["nothing is missing\n"]),
            ]
        ),
    )
    return 0


_ADDS = {
    "tensorflow": "Keras models as sources, the tflite target and its runtime, Keras to ONNX",
    "torch": "PyTorch models as sources, the torchscript and lite-interpreter targets and runtimes, PyTorch to ONNX",
    "litert": "PyTorch to tflite, and int4 in tflite",
    "executorch": "the executorch target and runtime",
    "onnx": "the onnx target and ONNX Runtime",
    "tensorboard": "event files of a training (--tensorboard)",
    "micro": "TFLite artifacts on a microcontroller's interpreter (edgekit micro)",
    "report": "reports in HTML (report --format html)",
    "dask": "steps of a run on a cluster (run --dask)",
    "mlflow": "runs in MLflow (report --mlflow, run --mlflow)",
    "images": "folders of images as calibration samples",
    "data": "the MNIST subset that simple_cnn learns from",
}
