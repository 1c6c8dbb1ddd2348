"""Compiles engine/cuda/kernels/*.cu to kernels.ptx, which crepe embeds.

    pip install nvidia-cuda-nvrtc-cu12==12.4.127
    python tools/cuda/ptx.py [--report] [--check] [--nvrtc libnvrtc.so.12]

NVRTC of CUDA 12.4 writes PTX 8.4, which drivers from 550 on compile for the card they
find. No card and no CUDA toolkit is needed. The first line of the result holds the hash
of the sources, which a test compares; --check compiles and compares, and writes nothing.
With --report the registers, shared memory and
spills of every kernel on compute capability 9.0 are printed, if ptxas is on the path or
in the package triton."""

import ctypes
import glob
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "engine", "cuda", "kernels")


def sources():
    names = sorted(n for n in os.listdir(HERE) if n.endswith((".cu", ".cuh")))
    return [(n, open(os.path.join(HERE, n), "rb").read()) for n in names]


def digest():
    h = hashlib.sha256()
    for name, text in sources():
        h.update(b"%s %d\n" % (name.encode(), len(text)))
        h.update(text)
    return h.hexdigest()


def nvrtc():
    if "--nvrtc" in sys.argv:
        path = sys.argv[sys.argv.index("--nvrtc") + 1]
    else:
        path = os.path.join(sysconfig.get_paths()["purelib"], "nvidia", "cuda_nvrtc", "lib", "libnvrtc.so.12")
    if not os.path.exists(path):
        sys.exit("libnvrtc.so.12 is not installed: pip install nvidia-cuda-nvrtc-cu12==12.4.127")
    folder = os.path.dirname(path)
    for name in sorted(os.listdir(folder)):
        if name.startswith("libnvrtc-builtins"):
            ctypes.CDLL(os.path.join(folder, name), ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(path)


def compile_all():
    lib = nvrtc()
    headers = [(n, t) for n, t in sources() if n.endswith(".cuh")]
    # One program of all sources, so that there is one module.
    text = b"".join(b'#line 1 "%s"\n%s\n' % (n.encode(), t) for n, t in sources() if n.endswith(".cu"))
    program = ctypes.c_void_p()
    names = (ctypes.c_char_p * len(headers))(*[n.encode() for n, _ in headers])
    bodies = (ctypes.c_char_p * len(headers))(*[t for _, t in headers])
    check = lambda code, what: code == 0 or fail(lib, program, what)
    check(lib.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", len(headers), bodies, names), "create")
    options = [b"--gpu-architecture=compute_80", b"--std=c++17"]
    check(lib.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)), "compile")
    size = ctypes.c_size_t()
    check(lib.nvrtcGetPTXSize(program, ctypes.byref(size)), "size")
    ptx = ctypes.create_string_buffer(size.value)
    check(lib.nvrtcGetPTX(program, ptx), "PTX")
    return ptx.value.decode()


def fail(lib, program, what):
    size = ctypes.c_size_t()
    lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetProgramLog(program, log)
    sys.exit(f"{what}:\n{log.value.decode()}")


def report(path):
    ptxas = shutil.which("ptxas")
    if not ptxas:
        site = sysconfig.get_paths()["purelib"]
        found = glob.glob(os.path.join(site, "triton", "backends", "nvidia", "bin", "ptxas"))
        ptxas = found[0] if found else sys.exit("no ptxas")
    with tempfile.NamedTemporaryFile() as out:
        print(subprocess.run([ptxas, "-v", "-arch=sm_90", path, "-o", out.name], capture_output=True, text=True, check=True).stderr)


if __name__ == "__main__":
    path = os.path.join(HERE, "kernels.ptx")
    text = "// sources: " + digest() + "\n" + "\n".join(
        line for line in compile_all().splitlines() if not line.startswith("//")).strip() + "\n"
    if "--check" in sys.argv:
        sys.exit(open(path).read() != text and "kernels.ptx is not what its sources compile to: run tools/cuda/ptx.py")
    with open(path, "w") as f:
        f.write(text)
    if "--report" in sys.argv:
        report(path)
