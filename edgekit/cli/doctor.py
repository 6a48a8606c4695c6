"""edgekit doctor"""

from __future__ import annotations

import click

from edgekit.cli._session import CommandSession, common_options
from edgekit.core.escape import line


@click.command("doctor", short_help="Show installed and missing dependencies.")
@common_options
def command(session: CommandSession) -> int:
    """Show which packages and tools are installed, and what each missing one would add.

    The list includes the requirements of edgekit's own features and plug-ins, and of plug-ins from other packages.

    \b
    Example:
      edgekit doctor
    """
    import platform

    from edgekit._version import __version__
    from edgekit.browser import packages as browser_packages
    from edgekit.browser.program import VARIABLE, chromium_path
    from edgekit.core.environment.requirements import install_command
    from edgekit.devices import host_machine
    from edgekit.devices.browsers.setup import NPM
    from edgekit.devices.emulation import tools
    from edgekit.reports.console import table
    from edgekit.stages.doctor import confinement_problem, diagnose

    diagnosis = diagnose()
    unconfined = confinement_problem()
    packages = [
        {
            "package": requirement.distribution,
            "version": requirement.version() if requirement.installed() else None,
            "extra": requirement.extra,
            "adds": requirement.purpose,
            "install": requirement.install_command,
        }
        for requirement in diagnosis.requirements
    ]
    absent_tools = [tool.package for tool in tools.ALL if tool.path() is None]
    browser, is_set_up = chromium_path(), browser_packages.find_packages() is not None
    browser_advice = [
        *([] if browser else [f"a browser; install with: apt-get install chromium, or name one in {VARIABLE}"]),
        *([] if is_set_up else [f"the runtimes of a browser; set them up with: {browser_packages.SET_UP}"]),
        *([] if is_set_up or NPM.path() else [f"npm, which sets them up; install with: apt-get install {NPM.package}"]),
    ]
    # One line per purpose, because the packages of an extra are installed together.
    missing_by_purpose = {
        requirement.purpose: [candidate for candidate in diagnosis.missing if candidate.purpose == requirement.purpose]
        for requirement in diagnosis.missing
    }
    data = {
        "edgekit": __version__,
        "python": platform.python_version(),
        "host": host_machine.description(),
        "cpus": list(host_machine.available_cpus()),
        "packages": packages,
        "missing_tools": absent_tools,
        "browser": {"program": browser, "npm": NPM.path(), "set_up": is_set_up},
        "missing_extras": {
            requirement.extra: requirement.purpose for requirement in diagnosis.missing if requirement.extra
        },
        "broken_plugins": list(diagnosis.broken_plugins),
        "workers_confined": unconfined is None,
        "workers_not_confined_because": unconfined,
    }
    rows = [
        (requirement.distribution, str(package["version"] or "missing"), _origin(requirement.extra))
        for requirement, package in zip(diagnosis.requirements, packages, strict=True)
    ]
    advice = [
        line(f"missing: {purpose}; install with: {install_command(missing)}")
        for purpose, missing in sorted(missing_by_purpose.items())
    ]
    if absent_tools:
        advice.append(line(f"missing: the emulated tier; install with: apt-get install {' '.join(absent_tools)}"))
    advice += [line(f"missing: {text}") for text in browser_advice]
    advice += [line(f"broken: {sentence}") for sentence in diagnosis.broken_plugins]
    session.print_result(
        data,
        lambda: "".join(
            [
                line(f"edgekit {__version__}, Python {data['python']}, {data['host']}"),
                table(("package", "version", "comes with"), rows, left=3, color=session.color),
                "workers that open models are confined: no writing elsewhere, no network, no programs\n"
                if unconfined is None
                else line(f"workers that open models are not confined: {unconfined}"),
                *(advice or ["nothing is missing\n"]),
            ]
        ),
    )
    return 0


def _origin(extra: str) -> str:
    return f"edgekit[{extra}]" if extra else "a plug-in of another package"
