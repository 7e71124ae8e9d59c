"""SBOM, licences and known vulnerabilities of this environment: ``make audit``."""
