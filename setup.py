"""What pyproject.toml cannot say: the build copies data of the top-level folders into the package."""

from collections.abc import Iterator
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PACKAGE = "latentscale"
# recipes/presets/mnist.yaml becomes latentscale/recipes/presets/mnist.yaml
PACKAGE_DATA = ("recipes/*.py", "recipes/presets/*.yaml")


class BuildWithData(build_py):
    """Builds the modules and copies the data; an editable install reads the data where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for source, target in self._data():
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(source), str(target))

    def get_source_files(self) -> list[str]:
        """What an sdist needs."""
        return [*super().get_source_files(), *(source.as_posix() for source, _ in self._data())]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Every file that a build makes."""
        data = [] if self.editable_mode else [str(target) for _, target in self._data()]
        return [*super().get_outputs(include_bytecode), *data]

    def _data(self) -> Iterator[tuple[Path, Path]]:
        for pattern in PACKAGE_DATA:
            sources = sorted(Path().glob(pattern))
            if not sources:
                raise FileNotFoundError(f"{pattern}: the wheel needs these files, and there are none")
            for source in sources:
                yield source, Path(self.build_lib, PACKAGE, source)


setup(cmdclass={"build_py": BuildWithData})
