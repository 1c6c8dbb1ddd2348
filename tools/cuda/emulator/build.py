"""Build the emulated CUDA driver: the kernels as C++, on the CPU.

    python tools/cuda/emulator/build.py FOLDER [--kernels engine/cuda/kernels]

writes FOLDER/libcuda.so.1 and FOLDER/libcublasLt.so.12. Needs g++ for x86-64. What is
newer than its sources is not compiled again. With

    CREPE_CUDA_DRIVER=FOLDER/libcuda.so.1 CREPE_CUBLASLT=FOLDER/libcublasLt.so.12

crepe takes them for a card. README.md beside this file says what they check.
"""

import argparse
import concurrent.futures
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLAGS = ["-std=c++17", "-fPIC", "-march=native", "-fvisibility=hidden", "-g1", "-Wall", "-pthread"]
# The kernels' own code: traps where an array's bounds or an address's alignment are
# not kept, as a card would fault. Pointers may alias integers there.
KERNEL_FLAGS = ["-O2", "-fno-strict-aliasing", "-ffp-contract=fast", "-fsanitize=alignment,bounds",
                "-fsanitize-undefined-trap-on-error", "-fno-stack-protector", "-fstack-clash-protection",
                "-DCREPE_EMULATOR",
                "-Wno-unknown-pragmas", "-Wno-unused", "-Wno-sign-compare", "-Wno-subobject-linkage"]
KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\(([^)]*)\)\s*)?(\w+)\s*\(')


def unit(source: Path, kernels: Path) -> str:
    """The C++ of one .cu: its text in a namespace of its own, and an entry per kernel."""
    text = re.sub(r"extern\s+__shared__[^;]*\bdynamic_shared\b[^;]*;", "", source.read_text())
    entries = [f'static const emulator::Entry<{name}> entry_{name}("{name}"{", (" + bounds.split(",")[0] + ")" if bounds else ""});'
               for bounds, name in KERNEL.findall(text)]
    missing = text.count("__global__") - len(entries)
    if missing:
        sys.exit(f"{source}: {missing} kernels do not begin with: extern \"C\" __global__ void name(")
    return "\n".join([f'#include "{HERE}/emulator.h"', "namespace {", f'#line 1 "{source}"', text, *entries, "}", ""])


def newer(target: Path, sources: list[Path]) -> bool:
    return target.exists() and all(target.stat().st_mtime >= s.stat().st_mtime for s in sources)


def compile(job: tuple[Path, list[str], list[Path]]) -> None:
    target, command, sources = job
    if not newer(target, sources):
        subprocess.run([*command, "-o", str(target)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kernels", type=Path, default=HERE.parents[2] / "engine" / "cuda" / "kernels")
    args = parser.parse_args()
    kernels = args.kernels.resolve()
    objects = args.folder / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    sources = sorted(kernels.glob("*.cu"))
    if not sources:
        sys.exit(f"{kernels}: no .cu files")
    headers = [HERE / "emulator.h", HERE / "fibres.h", Path(__file__), *kernels.glob("*.cuh")]

    jobs = []
    for name in ["fibres", "driver"]:
        jobs.append((objects / f"{name}.o", ["g++", *FLAGS, "-O2", "-c", str(HERE / f"{name}.cpp")], [HERE / f"{name}.cpp", *headers]))
    for source in sources:
        made = objects / f"{source.stem}.cu.cpp"
        text = unit(source, kernels)
        if not made.exists() or made.read_text() != text:
            made.write_text(text)
        jobs.append((objects / f"{source.stem}.cu.o", ["g++", *FLAGS, *KERNEL_FLAGS, "-I", str(kernels), "-I", str(HERE), "-c", str(made)], [made, *headers]))
    blas = (args.folder / "libcublasLt.so.12",
            ["g++", *FLAGS, "-O3", "-shared", "-Wl,-soname,libcublasLt.so.12", str(HERE / "cublaslt.cpp"), "-ldl"],
            [HERE / "cublaslt.cpp", Path(__file__)])
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile, [*jobs, blas]))
    parts = [target for target, _, _ in jobs]
    compile((args.folder / "libcuda.so.1",
             ["g++", *FLAGS, "-shared", "-Wl,-soname,libcuda.so.1", *map(str, parts), "-ldl"], parts))


if __name__ == "__main__":
    main()
