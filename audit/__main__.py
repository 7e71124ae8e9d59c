"""Command line: ``python -m audit --tools FOLDER --environment PYTHON --out FOLDER``; ``make audit`` calls it.

    environment.cdx.json   CycloneDX SBOM of the installed packages
    serve.cdx.json         CycloneDX SBOM of requirements-serve.lock, with its hashes
    licences.md            licence of every installed package
    advisories.json        known vulnerabilities of the installed packages; absent if the service cannot be reached

The tools have an environment of their own (``audit/requirements.lock``), so that they are no part of what they list.
Exit code 1 if a vulnerability is known, 2 if a tool fails.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parent.parent
SERVICE = "https://pypi.org/pypi/pip/json"
"""Address at the service that pip-audit asks."""
CONNECT_SECONDS = 10
AUDIT_SECONDS = 600


class ToolError(Exception):
    """A tool that failed; the message has its name and its last line."""


def main() -> int:
    """Write all reports and print one line for each."""
    parser = argparse.ArgumentParser(prog="python -m audit", description="Write SBOM, licences and advisories.")
    parser.add_argument("--tools", type=Path, required=True, help="folder with the executables of the tools")
    parser.add_argument("--environment", type=Path, default=Path(sys.executable), help="Python that is audited")
    parser.add_argument("--out", type=Path, required=True, help="folder of the reports")
    parser.add_argument("--service", default=SERVICE, help="address that must answer before advisories are asked for")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        write_sboms(options.tools, options.environment, options.out)
        write_licences(options.tools, options.environment, options.out)
        return write_advisories(options.tools, options.environment, options.out, options.service)
    except ToolError as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2


def write_sboms(tools: Path, environment: Path, out: Path) -> None:
    """Write the SBOM of the environment and that of the server's image."""
    tool, common = tools / "cyclonedx-py", ["--output-reproducible", "--of", "JSON"]
    reports = {
        "environment": ["environment", "--pyproject", str(ROOT / "pyproject.toml"), str(environment)],
        "serve": ["requirements", str(ROOT / "requirements-serve.lock")],
    }
    for name, arguments in reports.items():
        report = out / f"{name}.cdx.json"
        run(tool, arguments[0], *common, "-o", report, *arguments[1:])
        print(f"SBOM: {len(json.loads(report.read_text())['components'])} components in {report}")


def write_licences(tools: Path, environment: Path, out: Path) -> None:
    """Write the licence of every package, and print the packages that name none."""
    report, arguments = out / "licences.md", ["--python", environment, "--with-urls"]
    run(tools / "pip-licenses", *arguments, "--format=markdown", "--output-file", report)
    packages = json.loads(run(tools / "pip-licenses", *arguments, "--format=json"))
    unknown = [package["Name"] for package in packages if package["License"] == "UNKNOWN"]
    print(f"licences: {len(packages)} packages in {report}; without a licence: {', '.join(unknown) or 'none'}")


def write_advisories(tools: Path, environment: Path, out: Path, service: str) -> int:
    """Write the known vulnerabilities, and return the exit code; print one line if the service cannot be reached."""
    report = out / "advisories.json"
    report.unlink(missing_ok=True)  # an older one must not look like the present state
    if reason := unreachable(service):
        print(f"advisories: NOT CHECKED: {service} cannot be reached ({reason}); run make audit where it can")
        return 0
    packages = run(environment, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    command = [tools / "pip-audit", "--path", packages, "--format", "json", "--progress-spinner", "off"]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=AUDIT_SECONDS)
    try:
        found = json.loads(result.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        raise ToolError(_last_line("pip-audit", result.stderr)) from None
    report.write_text(result.stdout)
    affected = [package["name"] for package in found if package.get("vulns")]
    print(f"advisories: {len(found)} packages checked, in {report}; vulnerable: {', '.join(affected) or 'none'}")
    return 1 if affected else 0


def unreachable(service: str) -> str:
    """Return why the service of advisories cannot be reached; empty if it answers."""
    try:
        with urllib.request.urlopen(service, timeout=CONNECT_SECONDS):
            return ""
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def run(tool: Path, *arguments: object) -> str:
    """Return the output of a tool.

    Raises:
        ToolError: it does not exist, or fails.
    """
    try:
        result = subprocess.run(
            [str(tool), *map(str, arguments)], capture_output=True, text=True, timeout=AUDIT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{tool.name}: {error}") from None
    if result.returncode:
        raise ToolError(_last_line(tool.name, result.stderr or result.stdout))
    return result.stdout


def _last_line(tool: str, output: str) -> str:
    return f"{tool} failed: {(output.strip().splitlines() or ['no message'])[-1]}"


if __name__ == "__main__":
    sys.exit(main())
