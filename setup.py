"""Compiles the kernels, if there is a C compiler: a plain shared library that needs no Python and no torch.

All else is in pyproject.toml.
"""

from __future__ import annotations

import os

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

NATIVE = "boxloss/kernels/csrc"
# Neither infinities nor NaN nor the sign of 0 may be assumed away, and no product be contracted into a sum. When GCC
# looks for partial redundancies (pre), it makes choices between truth values, of which it then can't make vectors.
FLAGS = ["-std=c11", "-g0", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-tree-pre", "-ffp-contract=off"]
FLAGS += ["-fvisibility=hidden"]
QUIET = ["-Wno-unused-parameter", "-Wno-unused-function", "-Wno-unused-variable", "-Wno-ignored-optimization-argument"]


class BuildLibrary(build_ext):
    """A library for ctypes: its name is that of no Python version."""

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + (".dll" if os.name == "nt" else ".so")

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return ext.export_symbols  # no PyInit_…


class Wheel(bdist_wheel):
    """For a platform, and any Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        *_, platform = super().get_tag()
        return "py3", "none", platform


setup(
    ext_modules=[
        Extension(
            "boxloss.kernels.csrc.compiled",
            [f"{NATIVE}/kernels.c"],
            depends=[
                f"{NATIVE}/{name}.h" for name in ("boxes", "functions", "generated", "isa", "names", "operations")
            ],
            extra_compile_args=[] if os.name == "nt" else FLAGS + QUIET,
            extra_link_args=[] if os.name == "nt" else ["-lm", "-pthread"],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": Wheel},
)
