"""Puts what `pitwise init` makes a workspace of into the wheel, as `pitwise/template`."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TEMPLATE = (
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "locks",
    "params.yaml",
    "prices/.gitignore",
    "prices/README.md",
    "universe/README.md",
    "walk_forward/dvc.yaml",
)


class TemplateHook(BuildHookInterface):
    """An editable install needs no copy: there the template is the checkout itself."""

    def initialize(self, version: str, build_data: dict) -> None:
        if version != "editable":
            build_data["force_include"] |= {name: f"pitwise/template/{name}" for name in TEMPLATE}
