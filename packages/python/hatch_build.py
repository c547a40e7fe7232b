"""Builds the library by cargo and puts it into the wheel.

The library uses no Python, so one wheel serves every Python 3 of a platform. On Linux its tag names the newest glibc symbol that
the library needs. SQLITE_ANNOY_LIBRARY names a library that has been built already. Licences go where installers look for them.
"""
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAMES = {"darwin": "libsqlite_annoy.dylib", "win32": "sqlite_annoy.dll"}


def glibc_of(library):
    """The newest version of glibc of which the library needs a symbol, e.g. (2, 28)."""
    table = subprocess.run(["objdump", "-T", library], check=True, capture_output=True, text=True).stdout
    return max((int(major), int(minor)) for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", table))


def platform_tag(library):
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if platform.startswith("linux_") and shutil.which("objdump"):
        major, minor = glibc_of(library)
        # 2.17 is the oldest that installers know by this name.
        return f"manylinux_{major}_{max(minor, 17)}_{platform.removeprefix('linux_')}"
    return platform


class BuildLibrary(BuildHookInterface):
    def initialize(self, version, build_data):
        if self.target_name == "sdist":
            raise RuntimeError(
                "sqlite-annoy has wheels only: the sources are the repository; build from there with "
                "`python -m build --wheel packages/python` (or `pip wheel packages/python`)"
            )
        if version == "editable":
            return
        library = os.environ.get("SQLITE_ANNOY_LIBRARY") or self.build()
        name = NAMES.get(sys.platform, "libsqlite_annoy.so")
        self.folder = tempfile.mkdtemp()
        copy = Path(self.folder, name)
        shutil.copyfile(library, copy)
        if shutil.which("strip") and sys.platform == "linux":
            subprocess.run(["strip", "--strip-unneeded", copy], check=True)
        build_data["force_include"][str(copy)] = f"sqlite_annoy/{name}"
        notices = Path(self.folder, "LICENSES-OF-DEPENDENCIES")
        with open(notices, "wb") as out:
            subprocess.run([sys.executable, self.root_folder / ".ci/licences.py", "--texts"], check=True, stdout=out)
        for licence in (self.root_folder / "LICENSE-MIT", self.root_folder / "LICENSE-APACHE", notices):
            build_data["force_include"][str(licence)] = f"sqlite_annoy-{self.metadata.version}.dist-info/licenses/{licence.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(copy)}"

    def finalize(self, version, build_data, artifact_path):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @property
    def root_folder(self):
        """The repository."""
        return Path(self.root).parent.parent

    def build(self):
        subprocess.run(["cargo", "build", "--release", "--lib"], cwd=self.root_folder, check=True)
        target = Path(os.environ.get("CARGO_TARGET_DIR", self.root_folder / "target"))
        return target / "release" / NAMES.get(sys.platform, "libsqlite_annoy.so")
