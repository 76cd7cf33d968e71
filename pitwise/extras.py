"""Which extras of the package are installed: a person installs the parts they use."""

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from pitwise.errors import StoreError

PACKAGE = "pitwise"


def missing(extra: str) -> list[str]:
    """Distributions that an extra names, itself or by way of others, and that are not installed."""
    try:
        requirements = [Requirement(line) for line in requires(PACKAGE) or []]
    except PackageNotFoundError:  # a checkout on the path that nobody installed
        return []
    found: set[str] = set()
    for requirement in requirements:
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == PACKAGE:
            for part in requirement.extras:
                found.update(missing(part))
        elif not _is_installed(requirement.name):
            found.add(requirement.name)
    return sorted(found)


def require(extra: str, what: str = "this command") -> None:
    """Raise StoreError, with what to install, if not all of an extra is installed."""
    names = missing(extra)
    if names:
        raise StoreError(
            f"{what} needs {', '.join(names)}, which this Python does not have. Install it: "
            f"pip install '{PACKAGE}[{extra}]'"
        )


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
