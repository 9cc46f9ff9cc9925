"""Puts our configs behind SchNetPack's on Hydra's search path.

Hydra imports this module in every Hydra application of the environment, so it uses nothing but
the standard library and Hydra, and acts only on SchNetPack's commands and our own.
"""

import warnings
from importlib.util import find_spec
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

_PROVIDER = "schnetpack_phonon"
_HOST_PATHS = ("pkg://schnetpack/configs", "pkg://schnetpack.configs")


def config_folder() -> Path | None:
    """Our configs: inside the package when installed, beside it in a checkout."""
    spec = find_spec(_PROVIDER)
    if spec is None or spec.origin is None:
        return None
    package = Path(spec.origin).parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "data" / "phonon_ensemble.yaml").is_file():
            return folder
    return None


def host_configs() -> Path:
    """Those of SchNetPack, which is not imported."""
    spec = find_spec("schnetpack")
    return Path(spec.origin).parent / "configs" if spec and spec.origin else Path()


class SchnetpackPhononSearchPath(SearchPathPlugin):
    """Appends our config folder where SchNetPack's is the main one."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        elements = search_path.get_path()
        hosts = (*_HOST_PATHS, str(host_configs()))
        main = any(e.provider == "main" and e.path in hosts for e in elements)
        if not main or any(e.provider == _PROVIDER for e in elements):
            return
        folder = config_folder()
        if folder is not None:
            search_path.append(_PROVIDER, f"file://{folder}")
            # SchNetPack looks into the working folder's configs, which few users have.
            missing = r"provider=hydra\.searchpath in main, path=.*configs is not\s+available"
            warnings.filterwarnings("ignore", missing, UserWarning)
            _warn_of_hidden_copies(folder)


def _warn_of_hidden_copies(ours: Path) -> None:
    """Hydra takes the first file of a name, and ours come before those of the working folder."""
    for folder in (Path.cwd(), Path.cwd() / "configs"):
        if folder.resolve() == ours.resolve():
            continue
        for file in ours.rglob("*.yaml"):
            copy = folder / file.relative_to(ours)
            if copy.is_file():
                warnings.warn(
                    f"{copy} is ignored: schnetpack_phonon has a config of the same name, which "
                    "comes first. Give yours another name",
                    stacklevel=2,
                )
